"""Reading a topic outside of a consumer group, on the embedded broker."""

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer

from local.broker import EmbeddedBroker
from src.kafka.topic_reader import OffsetRange, TopicReader
from src.model.errors import SourceError
from src.settings import KafkaSettings
from src.utils.secret import ClientSettings
from tests.fake_kafka import FakeMessage

FETCH, LIST_OFFSETS, OFFSET_FETCH = 1, 2, 9  # API keys of these requests
TOPIC = "data-topic"
FIRST = {0: OffsetRange(0, 1)}


class LaggingReplica(Consumer):
    """Reports the end of the partition too early, once, like a lagging replica."""

    has_reported = False

    def poll(self, timeout: float = 0.0) -> Any:
        if self.has_reported:
            return super().poll(timeout)
        self.has_reported = True
        return FakeMessage(0, error=KafkaError(KafkaError._PARTITION_EOF))


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    """Has the message "a" at offset 0."""
    with EmbeddedBroker({TOPIC: 2}) as broker:
        produce(broker, b"a")
        yield broker


def produce(broker: EmbeddedBroker, value: bytes, *, partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": broker.address, "linger.ms": 0})
    producer.produce(TOPIC, value, partition=partition)
    producer.flush()


def topic_reader(servers: str, **options: Any) -> TopicReader:
    client = ClientSettings({"fetch.wait.max.ms": 20})
    return TopicReader(KafkaSettings(bootstrap_servers=servers, topic=TOPIC, client=client), **options)


def read(broker: EmbeddedBroker, ranges: dict[int, OffsetRange], **options: Any) -> list[tuple[int, bytes | None]]:
    with topic_reader(broker.address, **options) as reader:
        return [(record.partition, record.value) for record in reader.read(TOPIC, ranges)]


def test_an_unreachable_broker_is_named_with_the_reason() -> None:
    with (
        topic_reader("127.0.0.1:1", request_timeout=0.5) as reader,
        pytest.raises(SourceError, match=r"^broker 127\.0\.0\.1:.* refused"),
    ):
        reader.partitions(TOPIC)


def test_a_broker_that_becomes_unavailable_during_reading_is_an_error(broker: EmbeddedBroker) -> None:
    with topic_reader(broker.address, read_timeout=0.0) as reader:
        broker.go_down()

        with pytest.raises(SourceError, match=r"^broker 127\.0\.0\.1:"):
            list(reader.read(TOPIC, FIRST))


def test_a_range_beyond_the_end_of_the_topic_ends_with_the_topic(broker: EmbeddedBroker) -> None:
    assert read(broker, {0: OffsetRange(0, 100)}) == [(0, b"a")]


def test_a_lagging_replica_does_not_end_the_reading(broker: EmbeddedBroker) -> None:
    assert read(broker, FIRST, consumer=LaggingReplica) == [(0, b"a")]


def test_messages_beyond_the_range_are_not_read(broker: EmbeddedBroker) -> None:
    produce(broker, b"b")
    produce(broker, b"c", partition=1)

    assert sorted(read(broker, {0: OffsetRange(0, 1), 1: OffsetRange(0, 1)})) == [(0, b"a"), (1, b"c")]


def test_a_missing_partition_is_an_error(broker: EmbeddedBroker) -> None:
    with pytest.raises(SourceError, match=r"^broker 127\.0\.0\.1:.*\[17\]"):
        read(broker, {17: OffsetRange(0, 1)}, read_timeout=1.0)


def test_a_topic_without_permission_is_an_error(broker: EmbeddedBroker) -> None:
    broker.fail_next(FETCH, *[KafkaError.TOPIC_AUTHORIZATION_FAILED] * 3)

    with pytest.raises(SourceError, match="Kafka returned an error for data-topic"):
        read(broker, FIRST)


def test_a_group_without_permission_is_an_error(broker: EmbeddedBroker) -> None:
    broker.fail_next(OFFSET_FETCH, *[KafkaError.GROUP_AUTHORIZATION_FAILED] * 3)

    with topic_reader(broker.address) as reader, pytest.raises(SourceError, match="authoriz"):
        reader.committed(TOPIC, [0])


def test_a_request_to_a_moving_coordinator_is_retried(broker: EmbeddedBroker) -> None:
    broker.fail_next(OFFSET_FETCH, *[KafkaError.NOT_COORDINATOR] * 3)

    with topic_reader(broker.address) as reader:
        assert reader.committed(TOPIC, [0]) == {0: None}


def test_a_coordinator_that_keeps_moving_is_an_error(broker: EmbeddedBroker) -> None:
    broker.fail_next(OFFSET_FETCH, *[KafkaError.NOT_COORDINATOR] * 50)

    with topic_reader(broker.address, retry_timeout=0.5) as reader, pytest.raises(SourceError, match="oordinator"):
        reader.committed(TOPIC, [0])


def test_a_partition_whose_leader_is_being_elected_is_asked_again(broker: EmbeddedBroker) -> None:
    broker.fail_next(LIST_OFFSETS, *[KafkaError.NOT_LEADER_FOR_PARTITION] * 6)

    with topic_reader(broker.address) as reader:
        assert reader.offset_ranges(TOPIC, [0]) == FIRST


def test_a_topic_that_may_not_be_described_is_an_error_and_not_a_missing_topic(broker: EmbeddedBroker) -> None:
    broker.fail_topic(TOPIC, KafkaError.TOPIC_AUTHORIZATION_FAILED)

    with topic_reader(broker.address) as reader, pytest.raises(SourceError, match="authorization failed"):
        reader.partitions(TOPIC)
