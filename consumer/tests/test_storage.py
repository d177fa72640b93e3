"""The rules of DataStorage, with a store that responds as the test decides."""

from collections.abc import Sequence
from itertools import repeat

import pytest

from src.model.errors import StorageUnavailable
from src.model.verdict import DUPLICATE_KEY, Outcome, Verdict
from src.settings import MongoSettings
from src.storage import DataStorage
from src.stores.document import Document, Identity
from src.utils.config import ConfigurationError
from tests.fake_storage import FakeStore
from tests.storage_contract import StorageContract, message

UNREACHABLE = StorageUnavailable("unreachable", "connection refused")
DEFERRED = Verdict(Outcome.DEFERRED, "overloaded", RuntimeError("overloaded"))
FAILED = Verdict(Outcome.FAILED, "write_error", RuntimeError("unknown"))
REJECTED = Verdict(Outcome.REJECTED, "validation_failed", RuntimeError("invalid"))


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def keyed_store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def storage(store: FakeStore) -> DataStorage:
    return DataStorage(MongoSettings(), store=store)


class TestFakeStore(StorageContract):
    """The fake behaves like the real stores."""


def test_an_unavailable_store_makes_save_false_and_other_calls_raise(storage: DataStorage, store: FakeStore) -> None:
    store.outages = 3

    assert not storage.save(message())
    with pytest.raises(StorageUnavailable):
        storage.save_many([message()])
    with pytest.raises(StorageUnavailable):
        storage.ping()


@pytest.mark.parametrize("verdict", [DEFERRED, FAILED, REJECTED])
def test_a_document_that_is_not_stored_is_not_saved(storage: DataStorage, store: FakeStore, verdict: Verdict) -> None:
    store.verdicts["1"] = repeat(verdict)

    assert not storage.save(message("1"))
    assert storage.save_many([message("1"), message("2")]) == [verdict, Verdict(Outcome.STORED)]


def test_an_equal_message_later_in_the_batch_has_the_same_verdict(storage: DataStorage, store: FakeStore) -> None:
    store.verdicts["1"] = repeat(REJECTED)

    assert storage.save_many([message("1"), message("1")]) == [REJECTED, REJECTED]
    assert store.inserts == [["1"]]


def test_a_different_message_after_a_failed_one_is_inserted_itself(storage: DataStorage, store: FakeStore) -> None:
    store.verdicts["1"] = repeat(FAILED)

    storage.save_many([message("1"), message("1", name="another")])

    assert store.inserts == [["1"], ["1"]]


def test_no_message_overtakes_a_deferred_one_with_its_id(storage: DataStorage, store: FakeStore) -> None:
    store.verdicts["1"] = repeat(DEFERRED)

    assert storage.save_many([message("1"), message("1", name="another")]) == [DEFERRED, DEFERRED]
    assert store.inserts == [["1"]]


def test_many_messages_with_one_id_cost_one_call(storage: DataStorage, store: FakeStore) -> None:
    verdicts = storage.save_many([message("1", x=each) for each in range(500)])

    assert [verdict.reason for verdict in verdicts] == ["", *["id_conflict"] * 499]
    assert store.inserts == [["1"]]


def test_a_duplicate_key_of_an_operators_own_index_is_a_rejection(storage: DataStorage, store: FakeStore) -> None:
    verdict = Verdict(Outcome.REJECTED, DUPLICATE_KEY, RuntimeError("the name is taken"))
    store.verdicts["1"] = repeat(verdict)

    assert storage.save_many([message("1")]) == [verdict]


@pytest.mark.parametrize("verdict", [Verdict(Outcome.REJECTED, DUPLICATE_KEY, RuntimeError("name")), REJECTED, FAILED])
def test_a_stored_message_is_a_duplicate_even_if_the_store_would_reject_it_now(
    storage: DataStorage, store: FakeStore, verdict: Verdict
) -> None:
    storage.save(message("1"))
    store.verdicts["1"] = repeat(verdict)

    [response] = storage.save_many([message("1")])

    assert response.outcome is Outcome.DUPLICATE


class IgnoresCase(FakeStore):
    """Like a MongoDB collection with a case-insensitive collation: "a" is taken where "A" is stored."""

    def fetch(self, ids: Sequence[Identity]) -> list[Document]:
        return super().fetch([str(each).upper() for each in ids])


def test_an_id_that_a_collation_equates_with_another_one_is_not_stored() -> None:
    store = IgnoresCase()
    storage = DataStorage(MongoSettings(), store=store)
    storage.save(message("A"))
    store.verdicts["a"] = repeat(FAILED)

    assert storage.save_many([message("a")]) == [FAILED]


class OverwritesAny(FakeStore):
    """An upsert without a condition."""

    def may_overwrite(self, *_: object) -> bool:
        return True


def test_a_store_that_overwrites_newer_documents_is_found() -> None:
    with pytest.raises(AssertionError):
        StorageContract().test_any_order_of_deliveries_ends_in_the_state_of_the_topic(OverwritesAny())


class BecomesUnavailable(FakeStore):
    """Responds to a number of calls, and is unavailable after that."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self._remaining = calls

    def ping(self) -> None:
        super().ping()
        if not self._remaining:
            raise UNREACHABLE
        self._remaining -= 1


def test_verdicts_remain_valid_if_the_store_becomes_unavailable_before_the_comparison() -> None:
    store = BecomesUnavailable(calls=2)
    storage = DataStorage(MongoSettings(), store=store)
    storage.save(message("1"))

    verdicts = storage.save_many([message("1"), message("2"), message("1")])

    assert [verdict.outcome.name for verdict in verdicts] == ["DEFERRED", "STORED", "DEFERRED"]
    assert verdicts[0].reason == "unreachable"


def test_verdicts_remain_valid_if_the_store_becomes_unavailable_before_the_second_round() -> None:
    store = BecomesUnavailable(calls=2)
    store.verdicts["1"] = repeat(REJECTED)
    storage = DataStorage(MongoSettings(), store=store)

    verdicts = storage.save_many([message("1"), message("2"), message("1", name="another")])

    assert [verdict.outcome.name for verdict in verdicts] == ["REJECTED", "STORED", "DEFERRED"]


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
        ({"uri": "mongodb://h/?tls=true&tlsCAFile=/no/such/file"}, "tlsCAFile"),
    ],
)
def test_a_wrong_setting_is_named_without_the_password(config: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        DataStorage(config)

    assert "cret" not in str(caught.value)
    assert caught.value.__suppress_context__ or "cret" not in str(caught.value.__context__)
