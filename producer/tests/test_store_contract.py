"""The behavior that Delivery relies on, of the undelivered folder and of its fake."""

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from src.delivery.undelivered_buffer import UndeliveredStore
from src.model.delivery_failure import DeliveryFailure, Fault
from src.model.errors import UndeliveredStoreError
from src.undelivered.folder import UndeliveredFolder
from src.undelivered.segments import segment_paths
from tests.fakes import FakeUndeliveredStore, record, undelivered_keys


class Subject(NamedTuple):
    store: UndeliveredStore
    keys: Callable[[], list[str]]
    """Of the stored messages, in order."""
    full: Callable[[], AbstractContextManager[None]]
    """While the block runs, the store has no capacity for another message."""


def fake() -> Subject:
    store = FakeUndeliveredStore()

    @contextmanager
    def full() -> Iterator[None]:
        store.full = 1000
        yield
        store.full = 0

    return Subject(store, lambda: store.keys, full)


def folder(path: Path) -> Subject:
    def keys() -> list[str]:
        lines = [line for segment in segment_paths(path) for line in segment.read_bytes().splitlines()]
        keys = undelivered_keys(path)
        assert len(keys) == len(lines), "a line is cut off"
        return keys

    @contextmanager
    def full() -> Iterator[None]:
        """Room for a few bytes, so that a line is cut off."""
        size = max((segment.stat().st_size for segment in segment_paths(path)), default=0)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return Subject(UndeliveredFolder(path, "data-topic"), keys, full)


@pytest.fixture(params=["fake", "folder"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    return fake() if request.param == "fake" else folder(tmp_path)


def failures(*names: str) -> list[DeliveryFailure]:
    return [DeliveryFailure(record(name), Fault.TRANSIENT, "no leader") for name in names]


def test_appended_messages_are_stored_in_order(subject: Subject) -> None:
    subject.store.append(failures("a", "b"))
    subject.store.append(failures("c"))

    assert subject.keys() == ["a", "b", "c"]


def test_a_full_store_raises_an_error_and_stores_none_of_the_messages(subject: Subject) -> None:
    subject.store.append(failures("a"))

    with subject.full():
        for _ in range(2):
            with pytest.raises(UndeliveredStoreError):
                subject.store.append(failures("b", "c"))

    assert subject.keys() == ["a"]


def test_a_store_with_capacity_again_accepts_the_same_messages(subject: Subject) -> None:
    with subject.full(), pytest.raises(UndeliveredStoreError):
        subject.store.append(failures("a", "b"))

    subject.store.append(failures("a", "b"))

    assert subject.keys() == ["a", "b"]
