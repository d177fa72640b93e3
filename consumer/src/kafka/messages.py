"""Conversions of the Kafka client's messages and errors."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from confluent_kafka import KafkaError, Message

from src.kafka.message_headers import MessageHeaders
from src.model.record import Record


def records_of(topic: str, messages: Iterable[Any], assignments: Mapping[int, int]) -> list[Record]:
    """The records of Messages that are not errors or events, for partitions with a number in `assignments`.

    One loop without functions of its own, because it runs for every message.
    """
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


def record_of(message: Message) -> Record:
    """The record of a message that is not an error or event."""
    [record] = records_of(cast(str, message.topic()), [message], {partition_of(message): 0})
    return record


def partition_of(message: Message) -> int:
    return cast(int, message.partition())


def reason(error: Exception) -> str:
    """The text of the client's error, without its code."""
    cause = error.args[0] if error.args else error
    return cause.str() if isinstance(cause, KafkaError) else str(cause)
