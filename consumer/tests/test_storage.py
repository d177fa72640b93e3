"""The rules of the door, on a store that answers as it is told."""

from itertools import repeat

import pytest

from src.model.errors import StorageUnavailable
from src.model.verdict import DUPLICATE_KEY, Outcome, Verdict
from src.settings import MongoSettings
from src.storage import DataStorage
from src.utils.config import ConfigurationError
from tests.fake_storage import FakeStore
from tests.storage_contract import StorageContract, message

AWAY = StorageUnavailable("unreachable", "nobody there")
DEFERRED = Verdict(Outcome.DEFERRED, "overloaded", RuntimeError("later"))
FAILED = Verdict(Outcome.FAILED, "write_error", RuntimeError("who knows"))
REFUSED = Verdict(Outcome.REFUSED, "validation_failed", RuntimeError("never"))


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def storage(store: FakeStore) -> DataStorage:
    return DataStorage(MongoSettings(), store=store)


class TestFakeStore(StorageContract):
    """The fake keeps the contract, so that no test is green by a lie of its."""


def test_an_unavailable_store_fails_a_save_and_raises_inside(storage: DataStorage, store: FakeStore) -> None:
    store.outages = 3

    assert not storage.save(message())
    with pytest.raises(StorageUnavailable):
        storage.save_many([message()])
    with pytest.raises(StorageUnavailable):
        storage.ping()


@pytest.mark.parametrize("verdict", [DEFERRED, FAILED, REFUSED])
def test_what_is_not_stored_is_no_success(storage: DataStorage, store: FakeStore, verdict: Verdict) -> None:
    store.verdicts["1"] = repeat(verdict)

    assert not storage.save(message("1"))
    assert storage.save_many([message("1"), message("2")]) == [verdict, Verdict(Outcome.STORED)]


def test_an_equal_message_behind_one_shares_its_verdict(storage: DataStorage, store: FakeStore) -> None:
    store.verdicts["1"] = repeat(REFUSED)

    assert storage.save_many([message("1"), message("1")]) == [REFUSED, REFUSED]
    assert store.inserts == [["1"]]


def test_a_different_message_behind_a_refused_one_is_tried_by_itself(storage: DataStorage, store: FakeStore) -> None:
    store.verdicts["1"] = repeat(FAILED)

    storage.save_many([message("1"), message("1", name="another")])

    assert store.inserts == [["1"], ["1"]]


def test_nothing_overtakes_a_message_that_is_put_off(storage: DataStorage, store: FakeStore) -> None:
    store.verdicts["1"] = repeat(DEFERRED)

    assert storage.save_many([message("1"), message("1", name="another")]) == [DEFERRED, DEFERRED]
    assert store.inserts == [["1"]]


def test_many_messages_of_one_id_cost_one_call(storage: DataStorage, store: FakeStore) -> None:
    verdicts = storage.save_many([message("1", x=each) for each in range(500)])

    assert [verdict.reason for verdict in verdicts] == ["", *["id_conflict"] * 499]
    assert store.inserts == [["1"]]


def test_a_key_of_the_users_own_that_is_taken_is_a_refusal(storage: DataStorage, store: FakeStore) -> None:
    verdict = Verdict(Outcome.REFUSED, DUPLICATE_KEY, RuntimeError("the name is taken"))
    store.verdicts["1"] = repeat(verdict)

    assert storage.save_many([message("1")]) == [verdict]


@pytest.mark.parametrize("verdict", [Verdict(Outcome.REFUSED, DUPLICATE_KEY, RuntimeError("a name")), REFUSED, FAILED])
def test_what_is_stored_is_a_duplicate_whatever_else_the_store_has_against_it_by_now(
    storage: DataStorage, store: FakeStore, verdict: Verdict
) -> None:
    storage.save(message("1"))
    store.verdicts["1"] = repeat(verdict)

    [answer] = storage.save_many([message("1")])

    assert answer.outcome is Outcome.DUPLICATE


class FallsSilent(FakeStore):
    """Answers so many calls, and then nothing any more."""

    def __init__(self, answered: int) -> None:
        super().__init__()
        self._answered = answered

    def ping(self) -> None:
        super().ping()
        if not self._answered:
            raise AWAY
        self._answered -= 1


def test_what_is_known_stays_known_when_the_store_falls_silent_before_the_comparison() -> None:
    store = FallsSilent(answered=2)
    storage = DataStorage(MongoSettings(), store=store)
    storage.save(message("1"))

    verdicts = storage.save_many([message("1"), message("2"), message("1")])

    assert [verdict.outcome.name for verdict in verdicts] == ["DEFERRED", "STORED", "DEFERRED"]
    assert verdicts[0].reason == "unreachable"


def test_what_is_known_stays_known_when_the_store_falls_silent_before_the_second_round() -> None:
    store = FallsSilent(answered=2)
    store.verdicts["1"] = repeat(REFUSED)
    storage = DataStorage(MongoSettings(), store=store)

    verdicts = storage.save_many([message("1"), message("2"), message("1", name="another")])

    assert [verdict.outcome.name for verdict in verdicts] == ["REFUSED", "STORED", "DEFERRED"]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"uri": "postgres://user:secret@h"}, "uri"),
        ({"url": "mongodb://h"}, "url"),
        ({"timeout_ms": 1}, "timeout_ms"),
        ({"uri": "sqlite://relative"}, "sqlite:///relative/path"),
        ({"uri": "sqlite:///"}, "sqlite:///relative/path"),
        ({"uri": "sqlite:///:memory:"}, "sqlite:///relative/path"),
        ({"uri": "mongodb://user:se/cret@h:1"}, "%XX"),
        ({"uri": "mongodb://user:secret@h/?w=0"}, "w=0"),
        ({"uri": "mongodb://user:secret@h/?w=0&journal=true"}, "mongodb.uri"),
        ({"uri": "mongodb://h/?tls=maybe"}, "tls"),
        ({"uri": "mongodb://h:99999"}, "Port"),
        ({"uri": "mongodb://h/?tls=true&tlsCAFile=/no/such/file"}, "tlscafile"),
    ],
)
def test_a_wrong_setting_is_named_without_the_password(config: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        DataStorage(config)

    assert "cret" not in str(caught.value)
    assert caught.value.__suppress_context__ or "cret" not in str(caught.value.__context__)
