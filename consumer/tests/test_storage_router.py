"""Each topic's documents are stored in its collection."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from src.model.errors import StorageUnavailable
from src.model.record import Record
from src.model.verdict import STORED, Outcome, Verdict
from src.settings import DocumentSettings, MongoSettings, Settings
from src.storage import DataStorage
from src.storage_router import StorageRouter, open_storage
from src.stores.document import DocumentBatch
from src.utils.config import parse
from tests.fake_storage import FakeStore

STORES: dict[str, FakeStore] = {}


class FakeStorage(DataStorage):
    def __init__(self, config: MongoSettings, document: DocumentSettings) -> None:
        STORES[config.collection] = FakeStore()
        super().__init__(config, document, store=STORES[config.collection])


@pytest.fixture(autouse=True)
def _no_stores() -> None:
    STORES.clear()


def opened(topics: Sequence[str], kind: type[DataStorage] = FakeStorage, **mongodb: Any) -> DataStorage | StorageRouter:
    return open_storage(parse(Settings, {"kafka": {"topics": topics}, "mongodb": mongodb}), kind)


def routed(*topics: str, **mongodb: Any) -> StorageRouter:
    router = opened(topics, **mongodb)
    assert isinstance(router, StorageRouter)
    return router


def batch(*messages: tuple[str, str]) -> DocumentBatch:
    """Of topics and ids."""
    records = [Record(topic, 0, offset, None, b"{}") for offset, (topic, _) in enumerate(messages)]
    return DocumentBatch([{"id": identifier} for _, identifier in messages], records, 0)


def test_documents_are_stored_in_the_collections_of_their_topics_and_verdicts_keep_the_order() -> None:
    router = routed("orders", "pay", collection="of_{topic}", collections={"pay": "payments"})
    STORES["payments"].verdicts["2"] = iter([Verdict(Outcome.REJECTED, "validation_failed", ValueError())])

    verdicts = router.save_valid(batch(("orders", "1"), ("pay", "2"), ("orders", "3"), ("pay", "1")))

    assert {name: list(store.documents) for name, store in STORES.items() if store.inserts} == {
        "of_orders": ["1", "3"],
        "payments": ["1"],
    }
    assert [verdict.outcome for verdict in verdicts] == [
        *(Outcome.STORED, Outcome.REJECTED, Outcome.STORED, Outcome.STORED)
    ]


def test_one_collection_needs_no_router() -> None:
    storages = [opened(topics) for topics in (["orders"], ["orders", "pay"], ["^orders"])]

    assert [type(storage) for storage in storages] == [FakeStorage] * 3
    assert list(STORES) == ["messages"]


def test_the_only_topic_is_stored_in_the_collection_of_its_name() -> None:
    assert isinstance(opened(["orders"], collection="{topic}"), FakeStorage)
    assert list(STORES) == ["orders"]


def test_a_topic_that_begins_to_match_a_pattern_gets_a_collection_with_indexes() -> None:
    router = routed("^orders", collection="{topic}")

    assert router.save_valid(batch(("orders-eu", "1"))) == [STORED]

    assert list(STORES["orders-eu"].documents) == ["1"]
    assert STORES["orders-eu"].has_indexes


def test_while_a_collection_is_unavailable_the_documents_of_the_others_are_stored_once() -> None:
    router = routed("orders", "pay", collection="{topic}")
    both = batch(("orders", "1"), ("pay", "2"))
    STORES["pay"].outages = 1

    first, second = router.save_valid(both)

    assert (first, second.outcome) == (STORED, Outcome.DEFERRED)
    STORES["orders"].outages = 1
    with pytest.raises(StorageUnavailable):
        router.save_valid(both)


def test_one_ping_is_enough_and_all_collections_are_closed() -> None:
    router = routed("orders", "pay", collection="{topic}")
    STORES["orders"].outages = 1

    with pytest.raises(StorageUnavailable):
        router.ping()
    router.ensure_indexes()
    router.close()

    assert [(store.has_indexes, store.closed) for store in STORES.values()] == [(True, True)] * 2


def test_a_document_without_its_record_has_no_collection() -> None:
    router = routed("orders", "pay", collection="{topic}")

    assert not router.save({"id": "1"})
    assert router.of("pay").save({"id": "1"})
    assert list(STORES["pay"].documents) == ["1"]


def test_in_sqlite_each_collection_is_a_table_of_one_file(tmp_path: Path) -> None:
    with opened(["orders", "pay"], DataStorage, uri=f"sqlite:///{tmp_path}/a.db", collection="{topic}") as router:
        assert isinstance(router, StorageRouter)
        router.ensure_indexes()
        assert router.save_valid(batch(("orders", "1"), ("pay", "1"), ("pay", "2"))) == [STORED] * 3

        assert [len(router.of(topic).get({})) for topic in ("orders", "pay")] == [1, 2]
