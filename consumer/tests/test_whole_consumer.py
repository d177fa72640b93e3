"""The whole consumer on the embedded broker, and what the audit counts then: dead-letter storms, and a crash."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from types import MappingProxyType
from typing import Any

import pytest
from confluent_kafka import Producer
from prometheus_client import CollectorRegistry

from local.broker import EmbeddedBroker
from src.audit.comparison import Audit
from src.consumer import DataConsumer
from src.dead_letters.topic import DeadLetterTopic
from src.kafka.topic_reader import TopicReader
from src.model.record import Rejection
from src.model.verdict import Verdict
from src.settings import Settings
from src.storage import DataStorage
from src.utils.config import parse
from tests.fake_storage import FakeStore
from tests.fakes import rejected

TOPIC = "data-topic"
PATIENCE = 60.0  # seconds
UNTIL_STOPPED = 3600.0  # seconds between two probes
SOON = 0.005


class World:
    """A topic of one partition on the embedded broker, and a store."""

    def __init__(
        self, broker: EmbeddedBroker, folder: Path, *, document: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        self.settings: Settings = parse(
            Settings,
            {
                "kafka": {
                    "bootstrap_servers": broker.address,
                    "client": {"session.timeout.ms": 6000, "fetch.wait.max.ms": 20},
                },
                "consumer": {"offset_commit_frequency_ms": 20, "batch_size": 500},
                "mongodb": {"uri": f"sqlite:///{folder}/store.db"},
                "document": dict(document),
                "metrics": {"port": 0},
            },
        )
        self.registry = CollectorRegistry()

    def produce(self, values: Sequence[bytes]) -> None:
        self._produce((None, value) for value in values)

    def produce_with_keys(self, *messages: tuple[str, object]) -> None:
        """None is a tombstone."""
        self._produce((key, None if value is None else json.dumps(value).encode()) for key, value in messages)

    def _produce(self, messages: Iterable[tuple[str | None, bytes | None]]) -> None:
        producer = Producer({"bootstrap.servers": self.settings.kafka.servers})
        for key, value in messages:
            producer.produce(TOPIC, value, key, partition=0)
        assert producer.flush(PATIENCE) == 0

    @contextmanager
    def consuming(self, **collaborators: Any) -> Iterator[DataConsumer]:
        stop, self.registry = Event(), CollectorRegistry()
        with DataConsumer(self.settings, registry=self.registry, stop=stop, **collaborators) as consumer:
            thread = Thread(target=self._run, args=(consumer,), daemon=True)
            thread.start()
            try:
                yield consumer
            finally:
                stop.set()
                thread.join(PATIENCE)
                assert not thread.is_alive()

    def wait(self, condition: Callable[[], object]) -> None:
        tick, deadline = Event(), monotonic() + PATIENCE
        while not condition():
            assert monotonic() < deadline, "it did not come to pass"
            tick.wait(0.01)

    def _run(self, consumer: DataConsumer) -> None:
        with suppress(Crash):
            consumer.run()

    def settled(self, result: str) -> float:
        return self.registry.get_sample_value("consumer_messages_total", {"result": result}) or 0

    def lag(self) -> float | None:
        return self.registry.get_sample_value("consumer_lag_messages", {"topic": TOPIC, "partition": "0"})

    def account(self) -> dict[str, int]:
        with TopicReader(self.settings.kafka) as reader, DataStorage(self.settings.mongodb) as storage:
            findings = Audit(self.settings, reader, storage).run().findings
        names = ("produced", "stored", "dead_lettered", "lost", "twice", "repeated")
        return {name: getattr(findings, name) for name in names}


class Validated(FakeStore):
    """A store with a rule that no message keeps, until it is fixed."""

    fixed = False

    def insert_documents(self, documents: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        if self.fixed:
            return super().insert_documents(documents)
        return [rejected("validation_failed")] * len(documents)


class Crash(Exception):
    """Stands for the end of the process."""


class CrashesAfterDeadLettering(DeadLetterTopic):
    def send(self, rejections: Sequence[Rejection]) -> None:
        super().send(rejections)
        raise Crash


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with EmbeddedBroker({TOPIC: 1, f"{TOPIC}.dlq": 1}) as broker:
        yield World(broker, tmp_path)


def good(count: int) -> list[bytes]:
    return [json.dumps({"id": str(number)}).encode() for number in range(count)]


def test_a_storm_settles_every_message_once_even_if_the_consumer_stops(world: World) -> None:
    world.produce([b"{"] * 3000 + good(3000))

    with world.consuming(probe_interval=UNTIL_STOPPED) as consumer:
        world.wait(lambda: any("200 of the last 200 messages" in reason for reason in consumer.readiness_failures()))

    assert world.account() == {**NOTHING, "produced": 199, "dead_lettered": 199}

    with world.consuming(probe_interval=SOON) as consumer:
        world.wait(lambda: world.lag() == 0)
        assert consumer.readiness_failures() == []
        assert (world.settled("dead_lettered"), world.settled("stored")) == (2801, 3000)

    assert world.account() == {**NOTHING, "produced": 6000, "stored": 3000, "dead_lettered": 3000}


def test_after_a_store_rule_is_fixed_no_more_messages_are_dead_lettered(world: World) -> None:
    world.produce(good(2000))
    store = Validated()
    storage = DataStorage(world.settings.mongodb, store=store)

    with world.consuming(probe_interval=SOON, storage=storage) as consumer:
        world.wait(lambda: consumer.readiness_failures() and world.settled("dead_lettered") > 200)
        store.fixed = True
        world.wait(lambda: world.lag() == 0)
        assert consumer.readiness_failures() == []
        dead_lettered = world.settled("dead_lettered")

    assert 200 < dead_lettered < 2000
    assert world.settled("stored") == len(store.documents) == 2000 - dead_lettered


def test_a_message_dead_lettered_again_after_a_crash_is_counted_as_repeated_and_not_twice(world: World) -> None:
    world.produce([*good(5), b"{"])

    with world.consuming(dead_letters=CrashesAfterDeadLettering(world.settings.kafka)):
        world.wait(lambda: count_dead_letters(world) == 1)
    assert world.account() == NOTHING
    with world.consuming():
        world.wait(lambda: world.lag() == 0)

    assert world.account() == {**NOTHING, "produced": 6, "stored": 5, "dead_lettered": 1, "repeated": 1}


def count_dead_letters(world: World) -> int:
    topic = world.settings.kafka.dead_letter_topic
    with TopicReader(world.settings.kafka) as reader:
        ranges = reader.offset_ranges(topic, reader.partitions(topic)).values()
    return sum(available.end - available.first for available in ranges)


NOTHING = {"produced": 0, "stored": 0, "dead_lettered": 0, "lost": 0, "twice": 0, "repeated": 0}
