"""What Delivery relies on, of the undelivered folder and of its fake alike."""

import resource
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from src.delivery.undelivered_buffer import UndeliveredStore
from src.model.delivery_failure import DeliveryFailure, Fault
from src.model.errors import UndeliveredStoreError
from src.undelivered.folder import UndeliveredFolder
from tests.fakes import FakeUndeliveredStore, record, undelivered_keys


class Subject(ABC):
    """A store, and what a test has to know of it beside its interface."""

    store: UndeliveredStore

    @property
    @abstractmethod
    def keys(self) -> list[str]:
        """Of the stored messages, in their order."""

    @abstractmethod
    @contextmanager
    def full(self) -> Iterator[None]:
        """While the block runs there is no room for another message."""


class FakeSubject(Subject):
    def __init__(self) -> None:
        self.store = self._fake = FakeUndeliveredStore()

    @property
    def keys(self) -> list[str]:
        return self._fake.keys

    @contextmanager
    def full(self) -> Iterator[None]:
        self._fake.full = 1000
        yield
        self._fake.full = 0


class FolderSubject(Subject):
    def __init__(self, folder: Path) -> None:
        self.store = UndeliveredFolder(folder, "data-topic")
        self._folder = folder

    @property
    def keys(self) -> list[str]:
        return undelivered_keys(self._folder)

    @contextmanager
    def full(self) -> Iterator[None]:
        """Room for a few bytes more, so that a line is cut off."""
        size = max((path.stat().st_size for path in self._folder.iterdir()), default=0)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(params=["fake", "folder"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    return FakeSubject() if request.param == "fake" else FolderSubject(tmp_path)


def failures(*names: str) -> list[DeliveryFailure]:
    return [DeliveryFailure(record(name), Fault.TRANSIENT, "no leader") for name in names]


def test_appended_messages_are_stored_in_order(subject: Subject) -> None:
    subject.store.append(failures("a", "b"))
    subject.store.append(failures("c"))

    assert subject.keys == ["a", "b", "c"]


def test_a_full_store_raises_an_error_and_stores_none_of_the_messages(subject: Subject) -> None:
    subject.store.append(failures("a"))

    with subject.full():
        for _ in range(2):
            with pytest.raises(UndeliveredStoreError):
                subject.store.append(failures("b", "c"))

    assert subject.keys == ["a"]


def test_a_store_with_room_again_accepts_the_same_messages(subject: Subject) -> None:
    with subject.full(), pytest.raises(UndeliveredStoreError):
        subject.store.append(failures("a", "b"))

    subject.store.append(failures("a", "b"))

    assert subject.keys == ["a", "b"]
