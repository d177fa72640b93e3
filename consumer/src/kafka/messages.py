"""What every reader of Kafka does with what the client hands it."""

from collections.abc import Sequence
from typing import cast

from confluent_kafka import KafkaError, Message

from src.model.record import Record

UNREADABLE = (("unreadable-headers", b"the name of a header is not UTF-8"),)
"""In place of headers that the client can't give."""

_Headers = Sequence[tuple[str, bytes | None]]


def record_of(message: Message, assignment: int = 0) -> Record:
    """What is kept of a message that is no event."""
    kind, milliseconds = message.timestamp()
    return Record(
        cast(str, message.topic()),
        partition_of(message),
        cast(int, message.offset()),
        message.key(),
        message.value(),
        _headers(message),
        milliseconds if kind else None,
        assignment,
    )


def partition_of(message: Message) -> int:
    return cast(int, message.partition())


def reason(error: Exception) -> str:
    """What the client says, without the error's code."""
    cause = error.args[0] if error.args else error
    return cause.str() if isinstance(cause, KafkaError) else str(cause)


def _headers(message: Message) -> tuple[tuple[str, bytes | None], ...]:
    try:
        return tuple(cast(_Headers, message.headers() or ()))
    except UnicodeDecodeError:
        return UNREADABLE
