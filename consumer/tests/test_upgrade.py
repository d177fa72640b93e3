"""An upgrade from version 1.0.0: this version starts with the topics, offsets and store that 1.0.0 has written.

The fixtures are described in tests/upgrade/README.md of the project.
"""

import gzip
import json
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest
from bson import json_util
from confluent_kafka import Consumer, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from prometheus_client import CollectorRegistry
from pymongo import MongoClient

from local.broker import EmbeddedBroker
from src.audit.comparison import Audit
from src.consumer import DataConsumer
from src.dead_letters.__main__ import main as dead_letters
from src.kafka.retriable import retrying
from src.kafka.topic_reader import TopicReader
from src.settings import Settings
from src.storage import DataStorage
from src.utils.config import parse
from tests.kafka_containers import kafka3_servers, kafka4_servers, kafka_servers
from tests.kafka_server import Topics, topics
from tests.mongodb_server import mongodb_database, mongodb_uri

__all__ = ["kafka3_servers", "kafka4_servers", "kafka_servers", "mongodb_database", "mongodb_uri", "topics"]

FIXTURES = Path(__file__).resolve().parents[2] / "tests/upgrade/1.0.0"
RECORDED_TOPIC = "recorded-topic"
PATIENCE = 60.0  # seconds

STORED, DUPLICATES, DEAD_LETTERED = 320, 2, 8
ALL = STORED + DUPLICATES + DEAD_LETTERED
PENDING = 30  # behind the committed offsets
COUNTS = (
    *("produced", "stored", "duplicates", "dead_lettered", "expired", "lost", "twice"),
    *("foreign_documents", "foreign_dead_letters"),
)
REASONS = {
    "not_json": 2,  # one was replayed, and dead-lettered again
    "not_utf8": 1,
    "not_an_object": 1,
    "missing_id": 1,
    "invalid_created_at": 1,
    "id_conflict": 1,
    "tombstone": 1,
}


class World:
    """The topics and the offsets of version 1.0.0, and a store."""

    def __init__(self, servers: str, topic: str, store: str, mongodb: Mapping[str, Any], folder: Path) -> None:
        self.topic = topic
        self._tree: dict[str, dict[str, Any]] = {
            "kafka": {
                "bootstrap_servers": servers,
                "topic": topic,
                "dead_letter_topic": f"{topic}.dlq",
                "group_id": f"{topic}-{store}",
                "client": {"session.timeout.ms": 6000, "fetch.wait.max.ms": 20},
            },
            "consumer": {"offset_commit_frequency_ms": 20},
            "mongodb": {**mongodb, "ttl_days": 20_000},
            "metrics": {"port": 0},
        }
        self._store = store
        self._config = folder / "config.json"
        self.use_group(f"{topic}-{store}")

    def use_group(self, group: str) -> None:
        self._tree["kafka"]["group_id"] = group
        self.settings: Settings = parse(Settings, self._tree)
        self._config.write_text(json.dumps(self._tree))

    def restore_topics(self) -> None:
        producer = Producer({"bootstrap.servers": self.settings.kafka.servers})
        for topic, text in (
            (self.topic, gzip.decompress((FIXTURES / "topic.jsonl.gz").read_bytes()).decode()),
            (f"{self.topic}.dlq", (FIXTURES / "dead-letters.jsonl").read_text()),
        ):
            for record in map(json.loads, text.replace(RECORDED_TOPIC, self.topic).splitlines()):
                producer.produce(
                    topic,
                    content(record["value"]),
                    content(record["key"]),
                    record["partition"],
                    timestamp=record["timestamp"],
                    headers=[(name, content(value)) for name, value in record["headers"]],
                )
        assert producer.flush(PATIENCE) == 0

    def restore_offsets(self, topic_id: str | None = None) -> None:
        """With the id of the topic that was recorded, unless another one is given."""
        committed = json.loads((FIXTURES / "committed.json").read_text())[self._store]
        client = Consumer({"bootstrap.servers": self.settings.kafka.servers, "group.id": self.settings.kafka.group_id})
        offsets = [
            TopicPartition(self.topic, int(partition), offset, topic_id or recorded_id)
            for partition, (offset, recorded_id) in committed.items()
        ]
        retrying(PATIENCE)(lambda: client.commit(offsets=offsets, asynchronous=False))
        client.close()

    @contextmanager
    def consuming(self) -> Iterator[tuple[DataConsumer, Callable[[str], float]]]:
        """The running consumer, and a function that counts its messages by result."""
        stop, registry = Event(), CollectorRegistry()
        with DataConsumer(self.settings, registry=registry, stop=stop) as consumer:
            thread = Thread(target=consumer.run, daemon=True)
            thread.start()
            try:
                yield (
                    consumer,
                    lambda result: registry.get_sample_value("consumer_messages_total", {"result": result}) or 0,
                )
            finally:
                stop.set()
                thread.join(PATIENCE)
                assert not thread.is_alive()

    def wait(self, condition: Callable[[], object]) -> None:
        tick, deadline = Event(), monotonic() + PATIENCE
        while not condition():
            assert monotonic() < deadline, "the condition is not met"
            tick.wait(0.02)

    def counts(self) -> dict[str, int]:
        """What the audit finds; without what it finds none of."""
        with TopicReader(self.settings.kafka) as reader, DataStorage(self.settings.mongodb) as storage:
            findings = Audit(self.settings, reader, storage).run().findings
        return {name: getattr(findings, name) for name in COUNTS if getattr(findings, name)}

    def dead_letters(self, *arguments: str) -> list[Any]:
        """The output of `python -m src.dead_letters`: JSON lines, or text."""
        command, *options = arguments
        with redirect_stdout(StringIO()) as out:
            assert dead_letters([command, "--config", str(self._config), *options]) == 0
        lines = out.getvalue().splitlines()
        return [json.loads(line) for line in lines] if "--json" in options else lines

    def storage(self) -> DataStorage:
        return DataStorage(self.settings.mongodb)


def content(value: Any) -> bytes | None:
    if isinstance(value, dict):
        return b64decode(value["base64"])
    return None if value is None else str(value).encode()


class UpgradeContract:
    def test_the_audit_finds_everything_that_was_stored_and_dead_lettered(self, world: World) -> None:
        assert world.counts() == {
            "produced": ALL,
            "stored": STORED,
            "duplicates": DUPLICATES,
            "dead_lettered": DEAD_LETTERED,
        }

    def test_the_consumer_continues_at_the_committed_offsets(self, world: World) -> None:
        with world.consuming() as (_, count):
            world.wait(lambda: count("stored") == PENDING)
            world.wait(lambda: world.counts()["produced"] == ALL + PENDING)

            assert count("duplicate") == count("dead_lettered") == 0
        assert world.counts() == {
            "produced": ALL + PENDING,
            "stored": STORED + PENDING,
            "duplicates": DUPLICATES,
            "dead_lettered": DEAD_LETTERED,
        }

    def test_messages_that_are_redelivered_are_recognised_as_duplicates(self, world: World) -> None:
        world.use_group(f"group-{uuid4().hex[:12]}")

        with world.consuming() as (_, count):
            world.wait(lambda: count("stored") + count("duplicate") == STORED + DUPLICATES + PENDING)
            world.wait(lambda: count("dead_lettered") == DEAD_LETTERED)

            assert count("stored") == PENDING
        assert world.counts() == {
            "produced": ALL + PENDING,
            "stored": STORED + PENDING,
            "duplicates": DUPLICATES,
            "dead_lettered": DEAD_LETTERED,
        }

    def test_stored_messages_are_found_with_their_dates_as_before(self, world: World) -> None:
        with world.storage() as storage:
            (message,) = storage.get({"id": "m-0001"})
            kafka = message.pop("kafka")

            assert message == {
                "id": "m-0001",
                "name": "item_00000001",
                "created_at": "2026-11-02T11:34:56.001Z",
                "metadata": {"source": "café", "version": "1.0"},
                "value": 1 / 7,
            }
            assert kafka["topic"] == world.topic
            assert kafka["timestamp"] <= kafka["received_at"]
            assert len(storage.get({})) == STORED
            assert len(storage.get({"created_at": {"$gte": "2026-11-02T11:34:56.001Z", "$lt": "2026-11-03"}})) == 11
            assert len(storage.get({"metadata.source": "東京"})) == 100

    def test_the_check_accepts_the_store_and_its_indexes(self, world: World) -> None:
        with world.storage() as storage:
            storage.ensure_indexes()

            assert [result for result in storage.check() if not result.ok] == []

    def test_dead_letters_are_listed_and_shown(self, world: World) -> None:
        listed = world.dead_letters("list", "--all", "--json")
        (broken,) = [entry for entry in listed if entry["state"] == "replayed"]
        shown = world.dead_letters("show", f"{broken['partition']}:{broken['offset']}", "--json")

        assert Counter(entry["reason"] for entry in listed) == REASONS
        assert {entry["copies"] for entry in listed} == {2}  # one for each consumer group
        assert [entry["value_prefix"] for entry in listed if entry["replays"]] == ["{broken"]
        assert [record["value"] for record in shown] == ["{broken", "{broken"]
        assert shown[0]["exception_class"] == "src.errors.InvalidMessage"
        assert "Traceback" in shown[0]["stacktrace"]
        assert shown[0]["headers"] == [
            ["repeated", "1"],
            ["repeated", "2"],
            ["null", None],
            ["bytes", {"base64": "/wA="}],
        ]

    def test_a_header_name_that_starts_like_an_encoded_one_is_unchanged(self, world: World) -> None:
        (entry,) = world.dead_letters("list", "--reason", "not_utf8", "--json")
        shown, _ = world.dead_letters("show", f"{entry['partition']}:{entry['offset']}", "--json")

        assert shown["headers"] == [["base64:YWJj", "a name of another program"], ["ünïcode", "é"]]
        assert shown["value"] == {"base64": "//4gbm90IHRleHQ="}

    def test_dead_letters_are_replayed_once_and_continue_their_count(self, world: World) -> None:
        waiting = DEAD_LETTERED - 1

        replayed = world.dead_letters("replay")
        again = world.dead_letters("replay")
        with world.consuming() as (_, count):
            world.wait(lambda: count("dead_lettered") == waiting)
            world.wait(lambda: world.counts()["produced"] == ALL + PENDING + waiting)

        listed = world.dead_letters("list", "--all", "--json")
        assert (replayed, again) == (
            [f"{waiting} replayed, each confirmed by Kafka"],
            [],
        )
        assert Counter(entry["state"] for entry in listed) == {"replayed": DEAD_LETTERED, "waiting": waiting}
        assert {entry["replays"] for entry in listed if entry["state"] == "waiting"} == {1, 2}
        assert not {"lost", "twice"} & world.counts().keys()


class TestUpgradeOnSqlite(UpgradeContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[World]:
        (tmp_path / "store.db").write_bytes(gzip.decompress((FIXTURES / "store.db.gz").read_bytes()))
        with EmbeddedBroker({RECORDED_TOPIC: 2, f"{RECORDED_TOPIC}.dlq": 1}) as broker:
            world = World(broker.address, RECORDED_TOPIC, "sqlite", {"uri": f"sqlite:///{tmp_path}/store.db"}, tmp_path)
            world.restore_topics()
            world.restore_offsets()
            yield world


@pytest.mark.docker
class TestUpgradeOnServers(UpgradeContract):
    @pytest.fixture
    def world(self, topics: Topics, mongodb_uri: str, mongodb_database: str, tmp_path: Path) -> World:
        """Topics of this test only."""
        topic = topics.name()
        topics.create(topic, 2, **{"retention.ms": "-1"})
        topics.create(f"{topic}.dlq", 1, **{"retention.ms": "-1"})
        restore_collection(mongodb_uri, mongodb_database, topic)
        world = World(topics.servers, topic, "mongodb", {"uri": mongodb_uri, "database": mongodb_database}, tmp_path)
        world.restore_topics()
        world.restore_offsets(topic_id(topics.servers, topic))
        return world

    def test_a_topic_recreated_since_the_last_commit_is_recognised(self, world: World) -> None:
        world.restore_offsets()

        with world.consuming() as (consumer, count):
            world.wait(lambda: any("recreated" in reason for reason in consumer.readiness_failures()))

            assert count("stored") == 0

    def test_the_ttl_is_that_of_the_index(self, world: World) -> None:
        with world.storage() as storage:
            assert storage.ttl_seconds == 20_000 * 86_400


def restore_collection(uri: str, database: str, topic: str) -> None:
    text = gzip.decompress((FIXTURES / "mongodb.json.gz").read_bytes()).decode().replace(RECORDED_TOPIC, topic)
    recorded = json_util.loads(text)
    with MongoClient[dict[str, Any]](uri) as client:
        collection = client[database]["messages"]
        collection.insert_many(recorded["documents"])
        for index in recorded["indexes"]:
            options = {name: value for name, value in index.items() if name not in ("v", "key")}
            if options["name"] != "_id_":
                collection.create_index(list(index["key"].items()), **options)


def topic_id(servers: str, topic: str) -> str:
    admin = AdminClient({"bootstrap.servers": servers})
    return str(admin.describe_topics(TopicCollection([topic]))[topic].result(PATIENCE).topic_id)
