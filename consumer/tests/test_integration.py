"""The whole consumer on real Kafka and MongoDB: in containers, or on the servers that the environment names."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from time import monotonic
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from src.consumer import DataConsumer
from src.kafka.topic_reader import TopicReader
from src.settings import Settings
from src.storage import DataStorage
from src.utils.config import parse
from tests.group_member_contract import Group, GroupMemberContract, GroupOnServers
from tests.kafka_containers import kafka3_servers, kafka4_servers
from tests.kafka_server import PATIENCE, Topics
from tests.mongodb_server import mongodb_database, mongodb_uri

__all__ = ["kafka3_servers", "kafka4_servers", "mongodb_database", "mongodb_uri"]

pytestmark = pytest.mark.docker


class World:
    """A topic, a store, and consumers that run in threads."""

    def __init__(self, topics: Topics, uri: str, database: str) -> None:
        self.topics = topics
        self.topic = topics.name()
        self.config: dict[str, Any] = {
            "kafka": {
                "bootstrap_servers": topics.servers,
                "topic": self.topic,
                "dead_letter_topic": f"{self.topic}.dlq",
                "group_id": self.topic,
                "group_protocol": topics.group_protocol,
                "client": {"topic.metadata.refresh.interval.ms": 1000},
            },
            "consumer": {"offset_commit_frequency_ms": 100},
            "mongodb": {"uri": uri, "database": database},
            "metrics": {"port": 0},
        }
        self.storage = DataStorage(self.config["mongodb"])

    def create_topics(self) -> None:
        self.topics.create(self.topic)
        self.create_dead_letter_topic()

    def create_dead_letter_topic(self) -> None:
        self.topics.create(f"{self.topic}.dlq", partitions=1)

    def produce(self, messages: Sequence[dict[str, Any] | bytes], partition: int = -1) -> None:
        producer = Producer({"bootstrap.servers": self.topics.servers})
        for message in messages:
            value = message if isinstance(message, bytes) else json.dumps(message).encode()
            producer.produce(self.topic, value, partition=partition)
        assert producer.flush(PATIENCE) == 0

    @contextmanager
    def consuming(self, **consumer: Any) -> Iterator[DataConsumer]:
        config = {**self.config, "consumer": {**self.config["consumer"], **consumer}}
        stop = Event()
        with DataConsumer(config, stop=stop) as running:
            thread = Thread(target=running.run, daemon=True)
            thread.start()
            try:
                yield running
            finally:
                stop.set()
                thread.join(PATIENCE)
                assert not thread.is_alive()

    def wait(self, condition: Callable[[], object]) -> None:
        tick, deadline = Event(), monotonic() + PATIENCE
        while not condition():
            assert monotonic() < deadline, "it did not come to pass"
            tick.wait(0.05)

    @property
    def stored(self) -> set[str]:
        return {message["id"] for message in self.storage.get({})}

    def committed(self, partitions: int = 4) -> int:
        """The sum of the group's committed offsets."""
        with TopicReader(parse(Settings, self.config).kafka) as reader:
            return sum(offset or 0 for offset in reader.committed(self.topic, range(partitions)).values())

    def dead_letters(self) -> list[bytes | None]:
        consumer = Consumer(
            {"bootstrap.servers": self.topics.servers, "group.id": "reader", "enable.partition.eof": True}
        )
        consumer.assign([TopicPartition(f"{self.topic}.dlq", 0, 0)])
        values: list[bytes | None] = []
        while (message := consumer.poll(PATIENCE)) is not None and message.error() is None:
            values.append(message.value())
        consumer.close()
        return values


@pytest.fixture(
    params=[("kafka3_servers", "classic"), ("kafka4_servers", "classic"), ("kafka4_servers", "consumer")], ids=" ".join
)
def topics(request: pytest.FixtureRequest) -> Topics:
    servers, group_protocol = request.param
    return Topics(request.getfixturevalue(servers), group_protocol)


@pytest.fixture
def world(topics: Topics, mongodb_uri: str, mongodb_database: str) -> Iterator[World]:
    world = World(topics, mongodb_uri, mongodb_database)
    yield world
    world.storage.close()


def messages(count: int, start: int = 0) -> list[dict[str, Any] | bytes]:
    return [{"id": str(number), "name": "item_00000001"} for number in range(start, start + count)]


def ids(count: int) -> set[str]:
    return {str(number) for number in range(count)}


def test_valid_messages_are_stored_invalid_ones_dead_lettered_and_all_committed(world: World) -> None:
    world.create_topics()
    world.produce([*messages(500), b"{broken", *messages(500, start=500)])

    with world.consuming():
        world.wait(lambda: world.committed() == 1001)

    assert world.stored == ids(1000)
    assert world.dead_letters() == [b"{broken"]


def test_the_next_consumer_continues_where_the_last_one_committed(world: World) -> None:
    world.create_topics()
    world.produce(messages(100))
    with world.consuming():
        world.wait(lambda: world.committed() == 100)
    world.produce(messages(100, start=100))

    with world.consuming() as second:
        world.wait(lambda: world.committed() == 200)

        assert counted(second, "duplicate") == 0
    assert world.stored == ids(200)


def test_consumers_that_come_and_go_store_everything_once(world: World) -> None:
    world.create_topics()
    world.produce(messages(2000))

    with world.consuming(batch_size=50):
        with world.consuming(batch_size=50):
            world.wait(lambda: world.committed() > 0)
            world.produce(messages(2000, start=2000))
        world.wait(lambda: world.committed() == 4000)

    assert world.stored == ids(4000)
    assert world.dead_letters() == []


def test_partitions_that_are_added_while_it_runs_are_read_from_their_beginning(world: World) -> None:
    world.create_topics()
    with world.consuming():
        world.produce(messages(50))
        world.wait(lambda: world.committed() == 50)

        world.topics.add_partitions(world.topic, 6)
        world.produce(messages(50, start=50), partition=5)
        world.wait(lambda: world.committed(partitions=6) == 100)

    assert world.stored == ids(100)


def test_a_topic_that_is_created_later_is_read(world: World) -> None:
    world.create_dead_letter_topic()  # where the broker creates topics, the consumer would have it created
    with world.consuming() as consumer:
        world.wait(lambda: any(f"topic {world.topic}:" in reason for reason in consumer.readiness_failures()))

        world.topics.create(world.topic)
        world.produce(messages(10))
        world.wait(lambda: world.committed() == 10)
        world.wait(lambda: consumer.readiness_failures() == [])

    assert world.stored == ids(10)


def test_nothing_of_a_recreated_topic_is_skipped_silently(world: World) -> None:
    world.create_topics()
    with world.consuming() as consumer:
        world.produce(messages(10), partition=0)
        world.wait(lambda: world.committed() == 10)

        world.topics.delete(world.topic)
        world.topics.create(world.topic)
        world.produce(messages(30, start=10), partition=0)
        world.wait(lambda: world.stored == ids(40) or is_stopped(consumer))


def is_stopped(consumer: DataConsumer) -> bool:
    return any("recreated" in reason or "no longer exists" in reason for reason in consumer.readiness_failures())


def counted(consumer: DataConsumer, result: str) -> float | None:
    return consumer.registry.get_sample_value("consumer_messages_total", {"result": result})


class TestGroupMemberOnKafka(GroupMemberContract):
    @pytest.fixture
    def group(self, topics: Topics) -> Iterator[Group]:
        name = topics.name()
        topics.create(name, partitions=2)
        group = GroupOnServers(topics.servers, name, {}, topics.group_protocol, seconds=PATIENCE)
        yield group
        group.leave()
