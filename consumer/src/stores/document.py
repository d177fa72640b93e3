"""A message as the stores keep it: its dates, its position in Kafka, and when two messages are the same."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from src.model.errors import InvalidMessage
from src.model.position import MessagePosition
from src.utils.text import utc_text

Document = Mapping[str, Any]

KAFKA_DATE_FIELDS = frozenset({"timestamp", "received_at"})
DATE_FIELDS = frozenset({"created_at", *(f"kafka.{name}" for name in KAFKA_DATE_FIELDS)})
"""No other field holds a date; text in any other field stays text."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LENGTH = len("2023-07-15T12:34:56.789Z")
_LONGEST_WITH_MICROSECONDS = len("2023-07-15T12:34:56.789012Z")  # longer text may have more digits
_FINER_THAN_MICROSECONDS = re.compile(r"(\.\d{6})\d+", re.ASCII)


class StoredMessage(NamedTuple):
    """The id of a stored document, and the position and timestamp of its message, None if unknown."""

    id: str
    position: MessagePosition | None = None
    timestamp: int | None = None
    """In milliseconds since the epoch."""

    @classmethod
    def of(cls, document_id: object, kafka: object) -> "StoredMessage":
        """`kafka` may be anything: other programs may have written the document."""
        fields = kafka if isinstance(kafka, Mapping) else {}
        topic, partition, offset = (fields.get(name) for name in ("topic", "partition", "offset"))
        position = None
        if isinstance(topic, str) and type(partition) is int and type(offset) is int:
            position = MessagePosition(topic, partition, offset)
        return cls(str(document_id), position, epoch_milliseconds(fields.get("timestamp")))


def canonical_json(document: Document) -> bytes:
    """Equal for equal messages, whatever their positions. 1, 1.0 and true differ; the order of keys does not matter."""
    message = {name: value for name, value in document.items() if name != "kafka"}
    return msgspec.json.encode(dates_as_text(message), order="sorted")


def convert_dates(message: Mapping[str, Any], convert: Callable[[object], object] | None = None) -> dict[str, Any]:
    """A copy whose date fields are converted, by default to datetimes. Raises InvalidMessage."""
    convert = convert or as_date
    document = dict(message)
    if "created_at" in document:
        document["created_at"] = convert(document["created_at"])
    if isinstance(kafka := document.get("kafka"), dict):
        document["kafka"] = {
            name: convert(value) if name in KAFKA_DATE_FIELDS and value is not None else value
            for name, value in kafka.items()
        }
    return document


def as_date(value: object) -> datetime:
    """The datetime in UTC, truncated to milliseconds as in MongoDB. Raises InvalidMessage (`invalid_created_at`)."""
    try:
        date = value if isinstance(value, datetime) else msgspec.convert(_without_finer_digits(value), datetime)
        if date.tzinfo is None:
            raise InvalidMessage("invalid_created_at", "a date without its offset from UTC")
        date = date if date.tzinfo is UTC else date.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError) as error:
        raise InvalidMessage("invalid_created_at", f"not a date of the years 1 to 9999 in UTC: {error}") from error
    finer = date.microsecond % 1000
    return date - timedelta(microseconds=finer) if finer else date


def dates_as_text(value: Any) -> Any:
    """A copy of any value in which every date has the specification's format: 2023-07-15T12:34:56.789Z."""
    if isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return utc_text(value)
    if isinstance(value, dict):
        return {name: dates_as_text(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [dates_as_text(inner) for inner in value]
    return value


def epoch_milliseconds(value: object) -> int | None:
    """A date, or its text, as milliseconds since 1970; None for anything else."""
    if not isinstance(value, datetime | str):
        return None
    try:
        return (_parsed(value) - _EPOCH) // _MILLISECOND
    except (InvalidMessage, msgspec.ValidationError):
        return None


def _parsed(value: datetime | str) -> datetime:
    """Like `as_date`; faster for a text as `dates_as_text` writes it."""
    if isinstance(value, str) and len(value) == _LENGTH and value.endswith("Z"):
        return msgspec.convert(value, datetime)
    return as_date(value)


def _without_finer_digits(value: object) -> object:
    """The parser would round what is finer than a microsecond, perhaps into the next second."""
    if isinstance(value, str) and len(value) > _LONGEST_WITH_MICROSECONDS:
        return _FINER_THAN_MICROSECONDS.sub(r"\1", value)
    return value
