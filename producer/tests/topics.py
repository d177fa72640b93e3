"""Reads topics, so that tests can see what Kafka has."""

from collections.abc import Iterator
from typing import cast
from uuid import uuid4

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from src.model.message import ProducerRecord
from tests.fakes import DEADLINE, UNLIMITED

TOPIC = "data-topic"
POLLS = int(DEADLINE / 0.1)


def create_topic(servers: str, partitions: int) -> str:
    """A new topic; returns its name."""
    name = f"test-{uuid4().hex[:12]}"
    admin = AdminClient({"bootstrap.servers": servers})  # must outlive the future
    admin.create_topics([NewTopic(name, partitions, 1)])[name].result(60.0)
    return name


def first_records(servers: str, count: int, topic: str = TOPIC) -> list[ProducerRecord]:
    """The first records that can be read from the topic, ordered by key; fewer after the deadline."""
    found: list[ProducerRecord] = []
    for record in _consume(servers, topic, polls=POLLS):
        if record is not None:
            found.append(record)
        if len(found) == count:
            break
    return sorted(found, key=lambda record: record.key or b"")


def all_records(servers: str, topic: str = TOPIC) -> list[ProducerRecord]:
    return [record for record in _consume(servers, topic, to_end=True) if record is not None]


def _consume(
    servers: str, topic: str, *, polls: int = UNLIMITED, to_end: bool = False
) -> Iterator[ProducerRecord | None]:
    """One item per poll: a record, or None. Ends after so many polls without a record."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "test",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 10,
            "enable.partition.eof": to_end,
        }
    )
    try:
        remaining = set(consumer.list_topics(topic, timeout=DEADLINE).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in remaining])
        empty = 0
        while empty < polls:
            message = consumer.poll(DEADLINE if to_end else 0.1)
            if message is None:
                assert not to_end, "the topic cannot be read"
                empty += 1
                yield None
            elif error := message.error():
                assert error.code() == KafkaError._PARTITION_EOF, error
                remaining.discard(message.partition())
                if not remaining:
                    return
            else:
                headers = cast(list[tuple[str, bytes | None]], message.headers() or [])
                yield ProducerRecord(message.key(), message.value(), headers)
    finally:
        consumer.close()
