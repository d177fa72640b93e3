"""A message as the stores keep it, and the limits that hold for every store.

The limits are MongoDB's, so that a trial run on SQLite refuses what production refuses.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from src.errors import InvalidMessage

Document = Mapping[str, Any]

KAFKA_DATES = frozenset({"timestamp", "received_at"})
DATES = frozenset({"created_at", *(f"kafka.{name}" for name in KAFKA_DATES)})
"""The fields that are dates; text is a date nowhere else."""

DEEPEST = 100  # levels, the document itself among them
LARGEST = 16 * 1024 * 1024  # bytes of BSON
SMALLEST_INTEGER, LARGEST_INTEGER = -(2**63), 2**63 - 1

_FINER_THAN_MILLISECONDS = re.compile(r"(\.\d{3})\d+", re.ASCII)


class StoredMessage(NamedTuple):
    """What the audit needs to know of a stored document; None where it does not say which message it came from."""

    id: str
    topic: str | None
    partition: int | None
    offset: int | None

    @classmethod
    def of(cls, document_id: object, kafka: object) -> "StoredMessage":
        """Reads the `kafka` field of a document that anyone may have written."""
        origin = kafka if isinstance(kafka, Mapping) else {}
        topic, partition, offset = (origin.get(name) for name in ("topic", "partition", "offset"))
        return cls(
            str(document_id),
            topic if isinstance(topic, str) else None,
            partition if type(partition) is int else None,
            offset if type(offset) is int else None,
        )


def checked(message: Mapping[str, Any]) -> Document:
    """The document to store for a message: a copy, its dates as UTC datetimes. Raises InvalidMessage."""
    _check_id(message)
    document = dated(message)
    if _size(dated(document, lambda _date: LARGEST_INTEGER)) > LARGEST:  # of one size in BSON
        raise InvalidMessage("document_too_large", f"the document has more than {LARGEST} bytes as BSON")
    return document


def content(document: Document) -> bytes:
    """Equal for equal messages, wherever in Kafka they were: 1, 1.0 and true differ, the order of the keys does not."""
    message = {name: value for name, value in document.items() if name != "kafka"}
    return msgspec.json.encode(as_text(message), order="sorted")


def dated(message: Mapping[str, Any], read: Callable[[object], object] | None = None) -> dict[str, Any]:
    """A copy with the date fields read, as dates if nothing else is said. Raises InvalidMessage."""
    read = read or as_date
    document = dict(message)
    if "created_at" in document:
        document["created_at"] = read(document["created_at"])
    if isinstance(kafka := document.get("kafka"), dict):
        document["kafka"] = {
            name: read(value) if name in KAFKA_DATES and value is not None else value for name, value in kafka.items()
        }
    return document


def as_date(value: object) -> datetime:
    """The instant in UTC, cut to milliseconds as MongoDB keeps it. Raises InvalidMessage (`invalid_created_at`)."""
    try:
        moment = value if isinstance(value, datetime) else msgspec.convert(_in_milliseconds(value), datetime)
        if moment.tzinfo is None:
            raise InvalidMessage("invalid_created_at", "a date without its offset from UTC")
        moment = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError) as error:
        raise InvalidMessage("invalid_created_at", f"no date of the years 1 to 9999 in UTC: {error}") from error
    finer = moment.microsecond % 1000
    return moment - timedelta(microseconds=finer) if finer else moment


def as_text(value: Any) -> Any:
    """The same value with every date in it as the spec writes one: 2023-07-15T12:34:56.789Z."""
    if isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, dict):
        return {name: as_text(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_text(inner) for inner in value]
    return value


def _in_milliseconds(value: object) -> object:
    return _FINER_THAN_MILLISECONDS.sub(r"\1", value) if isinstance(value, str) else value


def _check_id(message: Mapping[str, Any]) -> None:
    if "_id" in message:
        raise InvalidMessage("reserved_field", "_id is the store's own name for id")
    if "id" not in message:
        raise InvalidMessage("missing_id", "the message has no id")
    if not isinstance(message["id"], str) or not message["id"]:
        raise InvalidMessage("invalid_id", "the id is no text, or is empty")


def _size(document: Document) -> int:
    """The bytes of a document in BSON. Raises InvalidMessage for what BSON, or JSON, can't hold."""
    return _size_of_object(document, 1) + len("_id") - len("id")


def _size_of_object(fields: Mapping[Any, Any], level: int) -> int:
    _check_level(level)
    size = 5
    for key, value in fields.items():
        size += 2 + _size_of_key(key) + _size_of_value(value, level)
    return size


def _size_of_key(key: object) -> int:
    if not isinstance(key, str) or "\0" in key:
        raise InvalidMessage("invalid_key", f"the key {key!a} is no text, or has a NUL in it")
    return _size_of_text(key, "invalid_key")


def _size_of_array(values: Sequence[Any], level: int) -> int:
    _check_level(level)
    return 5 + sum(2 + len(str(index)) + _size_of_value(value, level) for index, value in enumerate(values))


def _check_level(level: int) -> None:
    if level > DEEPEST:
        raise InvalidMessage("nesting_too_deep", f"the document has more than {DEEPEST} levels")


def _size_of_value(value: object, level: int) -> int:
    if isinstance(value, str):
        return 5 + _size_of_text(value)
    if isinstance(value, dict):
        return _size_of_object(value, level + 1)
    if isinstance(value, list | tuple):
        return _size_of_array(value, level + 1)
    return _size_of_scalar(value)


def _size_of_scalar(value: object) -> int:
    if value is None or isinstance(value, bool):
        return 0 if value is None else 1
    if isinstance(value, int):
        return _size_of_integer(value)
    if isinstance(value, float):
        return _size_of_number(value)
    raise InvalidMessage("not_encodable", f"a {type(value).__name__} is no JSON value")


def _size_of_text(text: str, reason: str = "invalid_string") -> int:
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidMessage(reason, f"half a character (a lone surrogate) in a text: {error}") from error


def _size_of_integer(number: int) -> int:
    if not SMALLEST_INTEGER <= number <= LARGEST_INTEGER:
        raise InvalidMessage("integer_out_of_range", "an integer of more than 64 bits")
    return 4 if -(2**31) <= number < 2**31 else 8


def _size_of_number(number: float) -> int:
    if not math.isfinite(number):
        raise InvalidMessage("number_out_of_range", f"{number} is no JSON number")
    return 8
