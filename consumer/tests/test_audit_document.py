"""The whole consumer with other settings of a document, and what the audit counts then."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from confluent_kafka import KafkaError

from local.broker import EmbeddedBroker
from src.audit.comparison import Audit
from src.audit.report import Report
from src.dead_letters.replay import Replayer, ReplayError
from src.kafka.confirmed_producer import ConfirmedProducer, ProducerRecord
from src.kafka.topic_reader import TopicReader
from src.model.verdict import STORED, Verdict
from src.storage import DataStorage
from src.stores.document import DocumentBatch
from tests.test_whole_consumer import TOPIC, World

TRANSFORM = """
def orders(message):
    if message["n"] == 0:
        raise ZeroDivisionError
    return message | {"doubled": 2 * message["n"]} if message["kind"] == "order" else None
"""


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({TOPIC: 1, f"{TOPIC}.dlq": 1}) as broker:
        yield broker


UPSERTS = {"id": "key", "write": "replace", "on_tombstone": "delete"}


def consumed(world: World, **collaborators: Any) -> Report:
    with world.consuming(**collaborators):
        world.wait(lambda: world.lag() == 0)
    return audited(world)


def audited(world: World) -> Report:
    with TopicReader(world.settings.kafka) as reader, storage_of(world) as storage:
        return Audit(world.settings, reader, storage).run()


def storage_of(world: World) -> DataStorage:
    return DataStorage(world.settings.mongodb, world.settings.document)


def counts(report: Report) -> dict[str, int]:
    """Those that are not zero."""
    return {name: value for name, value in vars(report.findings).items() if value and isinstance(value, int)}


def encoded(*messages: Mapping[str, Any]) -> list[bytes]:
    return [json.dumps(message).encode() for message in messages]


def test_identities_are_those_of_the_settings(broker: EmbeddedBroker, tmp_path: Path) -> None:
    world = World(broker, tmp_path, document={"id": "meta.event_id"})
    again = {"meta": {"event_id": 1}}
    world.produce(encoded(again, {"meta": {"event_id": "1"}}, again, {"id": "x"}))

    report = consumed(world)

    assert counts(report) == {"produced": 4, "stored": 2, "duplicates": 1, "dead_lettered": 1}


def test_a_message_that_the_transform_skips_is_neither_stored_nor_lost(broker: EmbeddedBroker, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TRANSFORM)
    document = {"id": "n", "transform": "mine:orders", "transforms_folder": str(tmp_path)}
    world = World(broker, tmp_path, document=document)
    kinds = ["order", "order", "other", "order"]
    world.produce(encoded(*({"kind": kind, "n": n} for n, kind in enumerate(kinds))))

    report = consumed(world)

    assert counts(report) == {"produced": 4, "stored": 2, "skipped": 1, "dead_lettered": 1}
    with storage_of(world) as storage:
        assert [document["doubled"] for document in storage.get({}, sort=[("doubled", 1)])] == [2, 6]


def test_documents_from_before_a_change_of_the_settings_are_those_of_their_messages(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    world = World(broker, tmp_path)
    message = {"id": "a", "event": "b", "name": "x"}
    world.produce(encoded(message, message, {"id": "c"}))
    before = consumed(world)

    after = audited(World(broker, tmp_path, document={"id": "event", "drop": ["name"]}))

    assert counts(before) == {"produced": 3, "stored": 2, "duplicates": 1}
    assert counts(after) == counts(before) | {"other_ids": 2}
    assert (after.passed, len(after.notes)) == (True, 1)


class DropsUpdates(DataStorage):
    """Stores only the first message of an id."""

    def save_valid(self, batch: DocumentBatch) -> list[Verdict]:
        known = {each.id for page in self.scan() for each in page}
        kept = [index for index, identity in enumerate(batch.ids) if identity not in known]
        super().save_valid(batch.part(kept))
        return [STORED] * len(batch.documents)


@pytest.mark.parametrize("write", ["replace", "merge"])
def test_the_newest_message_of_a_key_decides_on_its_document(
    broker: EmbeddedBroker, tmp_path: Path, write: str
) -> None:
    world = World(broker, tmp_path, document=UPSERTS | {"write": write})
    world.produce_with_keys(("a", {"n": 1}), ("b", {"n": 2}), ("a", {"n": 3}), ("b", None), ("c", None))

    report = consumed(world)

    assert counts(report) == {"produced": 5, "stored": 1, "superseded": 2, "deleted": 2}
    with storage_of(world) as storage:
        assert [(each["_id"], each["n"]) for each in storage.get({})] == [("a", 3)]


def test_a_store_that_drops_updates_and_deletions_is_found(broker: EmbeddedBroker, tmp_path: Path) -> None:
    world = World(broker, tmp_path, document=UPSERTS)
    storage = DropsUpdates(world.settings.mongodb, world.settings.document)
    for messages in ([("a", {"n": 1}), ("b", {"n": 2})], [("a", {"n": 3}), ("b", None)]):
        world.produce_with_keys(*messages)
        report = consumed(world, storage=storage)

    assert [each.problem for each in report.findings.lost_first] == ["the store has an older record of its id"] * 2


class LosesMarkers:
    """A producer whose process is killed after the messages of a batch, before their markers."""

    def __init__(self, producer: ConfirmedProducer) -> None:
        self._producer = producer
        self.explain = producer.explain

    def deliver(self, records: Sequence[ProducerRecord]) -> Mapping[int, KafkaError]:
        if records[0].topic == TOPIC:
            return self._producer.deliver(records)
        return dict.fromkeys(range(len(records)), KafkaError(KafkaError.BROKER_NOT_AVAILABLE))


def test_with_coordinates_as_identity_a_replay_that_is_repeated_after_a_crash_is_one_document(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    strict = World(broker, tmp_path, document={"id": "coordinates", "checks": {"n": "integer"}})
    strict.produce(encoded({"n": 1}, {"n": "2"}))
    assert counts(consumed(strict)) == {"produced": 2, "stored": 1, "dead_lettered": 1}

    lenient = World(broker, tmp_path, document={"id": "coordinates", "checks": {}})
    with pytest.raises(ReplayError):
        replay(lenient)
    with pytest.raises(ReplayError):
        replay(lenient)
    report = consumed(lenient)

    assert counts(report) == {"produced": 4, "stored": 2, "duplicates": 1, "dead_lettered": 1}
    with storage_of(lenient) as storage:
        assert [document["_id"] for document in storage.get({"n": "2"})] == [f"{TOPIC}/0/1"]


def replay(world: World) -> None:
    settings = world.settings.kafka
    topic = settings.dead_letter_topic
    with TopicReader(settings) as reader, closing(ConfirmedProducer(settings)) as producer:
        dead_letters = list(reader.read(topic, reader.offset_ranges(topic, reader.partitions(topic))))
        Replayer(LosesMarkers(producer), topic, stop=Event()).replay(dead_letters)
