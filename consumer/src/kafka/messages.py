"""Conversions of the Kafka client's messages and errors."""

from collections.abc import Iterable, Mapping
from itertools import groupby
from operator import methodcaller
from typing import Any, cast

from confluent_kafka import KafkaError, Message
from confluent_kafka import TopicPartition as PartitionOffset

from src.kafka.message_headers import MessageHeaders
from src.model.position import TopicPartition
from src.model.record import Record

_TOPIC = methodcaller("topic")


def records_of(messages: Iterable[Any], assignments: Mapping[TopicPartition, int]) -> list[Record]:
    """The records of Messages that are not errors or events, for partitions with a number in `assignments`."""
    records: list[Record] = []
    for topic, run in groupby(messages, _TOPIC):
        records += _records_of_topic(
            topic, run, {p: number for (name, p), number in assignments.items() if name == topic}
        )
    return records


def _records_of_topic(topic: str, messages: Iterable[Any], assignments: Mapping[int, int]) -> list[Record]:
    """One loop without functions of its own, because it runs for every message."""
    return [
        Record(
            topic,
            partition,
            message.offset(),
            message.key(),
            message.value(),
            MessageHeaders(message),  # type: ignore[arg-type] # a Sequence at run time
            time[1] if (time := message.timestamp())[0] else None,
            assignments[partition],
        )
        for message in messages
        if (partition := message.partition()) in assignments
    ]


def event_partition(event: Message) -> TopicPartition:
    """Of a message, or of an event, which may belong to no topic."""
    return TopicPartition(event.topic() or "", cast(int, event.partition()))


def partition_of(position: PartitionOffset) -> TopicPartition:
    return TopicPartition(position.topic, position.partition)


def reason(error: Exception) -> str:
    """The text of the client's error, without its code."""
    cause = error.args[0] if error.args else error
    return cause.str() if isinstance(cause, KafkaError) else str(cause)
