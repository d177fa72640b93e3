"""Conversions of the Kafka client's messages and errors."""

from typing import cast

from confluent_kafka import KafkaError, Message

from src.kafka.message_headers import MessageHeaders
from src.model.record import Record


def record_of(message: Message, assignment: int = 0) -> Record:
    """The record for a message that is not an error or event."""
    kind, milliseconds = message.timestamp()
    return Record(
        cast(str, message.topic()),
        partition_of(message),
        cast(int, message.offset()),
        message.key(),
        message.value(),
        MessageHeaders(message),
        milliseconds if kind else None,
        assignment,
    )


def partition_of(message: Message) -> int:
    return cast(int, message.partition())


def reason(error: Exception) -> str:
    """The text of the client's error, without its code."""
    cause = error.args[0] if error.args else error
    return cause.str() if isinstance(cause, KafkaError) else str(cause)
