"""What the batch writer relies on of a dead-letter topic: the fake, the embedded broker and Kafka."""

from collections.abc import Callable, Iterator
from threading import Event
from time import monotonic
from typing import Protocol

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from local.broker import EmbeddedBroker
from src.consumer import DeadLetters
from src.dead_letters.topic import DeadLetterTopic
from src.model.errors import DeadLetterError, InvalidMessage
from src.model.record import Record, Rejection
from src.settings import KafkaSettings
from tests.fakes import DEADLINE, FakeDeadLetters
from tests.kafka_containers import kafka3_servers, kafka4_servers, kafka_servers
from tests.kafka_server import PATIENCE, Topics, topics

__all__ = ["kafka3_servers", "kafka4_servers", "kafka_servers", "topics"]  # fixtures

PRODUCE = 0  # API key of the request
UNLIMITED = 2**20 * 10  # bytes


class Topic(Protocol):
    """A dead-letter topic, and what a test can do to it."""

    @property
    def dead_letters(self) -> DeadLetters: ...

    def fail(self) -> None:
        """From now on `send` fails, at least for one dead letter."""

    def recover(self) -> None: ...

    def names(self) -> set[str]:
        """Of the dead letters in the topic."""


class DeadLettersContract:
    """A subclass provides the fixture `topic`, which is empty."""

    def test_dead_letters_are_in_the_topic_when_send_returns(self, topic: Topic) -> None:
        topic.dead_letters.send(rejections("a", "b", "c"))

        assert topic.names() == {"a", "b", "c"}

    def test_sending_nothing_succeeds_even_in_an_outage(self, topic: Topic) -> None:
        topic.dead_letters.send(rejections("a"))
        topic.fail()

        topic.dead_letters.send([])

        assert topic.names() == {"a"}

    def test_unconfirmed_dead_letters_are_reported_and_the_others_are_in_the_topic(self, topic: Topic) -> None:
        topic.dead_letters.send(rejections("a"))
        topic.fail()

        with pytest.raises(DeadLetterError) as caught:
            topic.dead_letters.send(rejections("b", "c", "d"))

        unconfirmed = list(caught.value.unconfirmed)
        assert caught.value.cause
        assert unconfirmed
        assert unconfirmed == sorted(set(unconfirmed) & {0, 1, 2})
        assert {"a", *("bcd"[index] for index in range(3) if index not in unconfirmed)} <= topic.names()

    def test_a_single_unconfirmed_dead_letter_is_reported(self, topic: Topic) -> None:
        topic.dead_letters.send(rejections("a"))
        topic.fail()

        with pytest.raises(DeadLetterError) as caught:
            topic.dead_letters.send(rejections("b"))

        assert list(caught.value.unconfirmed) == [0]

    def test_after_an_outage_unconfirmed_dead_letters_can_be_sent_again(self, topic: Topic) -> None:
        topic.dead_letters.send(rejections("a"))
        topic.fail()
        with pytest.raises(DeadLetterError) as caught:
            topic.dead_letters.send(rejections("b", "c"))

        topic.recover()
        topic.dead_letters.send([rejections("b", "c")[index] for index in caught.value.unconfirmed])

        assert topic.names() == {"a", "b", "c"}

    def test_a_topic_that_exists_is_found(self, topic: Topic) -> None:
        before = topic.dead_letters.unavailable_reason

        topic.dead_letters.look_up()

        assert "not checked yet" in (before or "")
        assert topic.dead_letters.unavailable_reason is None

    def test_a_confirmed_dead_letter_proves_that_the_topic_exists(self, topic: Topic) -> None:
        topic.dead_letters.send([])
        before = topic.dead_letters.unavailable_reason
        topic.dead_letters.send(rejections("a"))

        assert (before is None, topic.dead_letters.unavailable_reason) == (False, None)

    def test_a_rejection_may_be_sent_again(self, topic: Topic) -> None:
        for _ in range(2):
            topic.dead_letters.send(rejections("a"))

        assert topic.names() == {"a"}


class FakeTopic:
    def __init__(self) -> None:
        self.dead_letters = self._fake = FakeDeadLetters()

    def fail(self) -> None:
        self._fake.outages = 1

    def recover(self) -> None:
        self._fake.outages = 0

    def names(self) -> set[str]:
        return {(rejection.record.key or b"").decode() for rejection in self._fake.rejections}


class TopicOnEmbeddedBroker:
    def __init__(self, broker: EmbeddedBroker) -> None:
        self._broker = broker
        self.dead_letters = DeadLetterTopic(KafkaSettings(bootstrap_servers=broker.address))

    def fail(self) -> None:
        self._broker.fail_next(PRODUCE, KafkaError.INVALID_RECORD)

    def recover(self) -> None:
        """The error was for one request."""

    def names(self) -> set[str]:
        return keys(self._broker.address, "data-topic.dlq")


class TopicOnKafka:
    """Fails while the topic's `max.message.bytes` is smaller than any message."""

    def __init__(self, servers: str, topic: str) -> None:
        self._servers = servers
        self._topic = topic
        self._admin = AdminClient({"bootstrap.servers": servers})
        self.dead_letters = DeadLetterTopic(KafkaSettings(bootstrap_servers=servers, dead_letter_topic=topic))

    def fail(self) -> None:
        self._limit_messages(1)
        until(lambda: self._error_of_a_message() is not None)

    def recover(self) -> None:
        self._limit_messages(UNLIMITED)
        until(lambda: self._error_of_a_message() is None)

    def names(self) -> set[str]:
        return keys(self._servers, self._topic)

    def _limit_messages(self, size: int) -> None:
        change = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, self._topic, incremental_configs=[change])
        for changed in self._admin.incremental_alter_configs([resource]).values():
            changed.result(PATIENCE)

    def _error_of_a_message(self) -> KafkaError | None:
        errors: list[KafkaError | None] = []
        producer = Producer({"bootstrap.servers": self._servers})
        producer.produce(self._topic, b"not a dead letter", on_delivery=lambda error, _message: errors.append(error))
        assert producer.flush(PATIENCE) == 0
        return errors[0]


class TestFakeDeadLetters(DeadLettersContract):
    @pytest.fixture
    def topic(self) -> Topic:
        return FakeTopic()


class TestEmbeddedBroker(DeadLettersContract):
    @pytest.fixture
    def topic(self) -> Iterator[Topic]:
        with EmbeddedBroker({"data-topic.dlq": 2}) as broker:
            topic = TopicOnEmbeddedBroker(broker)
            yield topic
            topic.dead_letters.close()


@pytest.mark.docker
class TestKafka(DeadLettersContract):
    @pytest.fixture
    def topic(self, topics: Topics) -> Iterator[Topic]:
        name = topics.name()
        topics.create(name, partitions=2)
        topic = TopicOnKafka(topics.servers, name)
        yield topic
        topic.dead_letters.close()
        topics.delete(name)


def rejections(*names: str) -> list[Rejection]:
    error = InvalidMessage("not_json", "not JSON")
    records = [Record("data-topic", 0, offset, name.encode(), b"{") for offset, name in enumerate(names)]
    return [Rejection(record, "not_json", "process", error, 1, 1000.0, 1000.0) for record in records]


def keys(servers: str, topic: str) -> set[str]:
    """The keys of all records in both partitions of a topic."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "unused", "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(2)])
    found: set[str] = set()
    ended = 0
    while ended < 2:
        message = consumer.poll(DEADLINE)
        assert message is not None, f"no end of {topic} within {DEADLINE} s"
        ended += message.error() is not None
        if message.error() is None and (key := message.key()):
            found.add(key.decode())
    consumer.close()
    return found


def until(condition: Callable[[], bool]) -> None:
    tick, deadline = Event(), monotonic() + PATIENCE
    while not condition():
        assert monotonic() < deadline, "the broker has not applied the change"
        tick.wait(0.05)
