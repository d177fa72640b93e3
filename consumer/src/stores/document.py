"""A message as the stores keep it, and the limits that hold for every store.

The limits are MongoDB's, so that a trial run on SQLite refuses what production refuses.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from src.model.errors import InvalidMessage

Document = Mapping[str, Any]

KAFKA_DATES = frozenset({"timestamp", "received_at"})
DATES = frozenset({"created_at", *(f"kafka.{name}" for name in KAFKA_DATES)})
"""The fields that are dates; text is a date nowhere else."""

DEEPEST = 100  # levels, the document itself among them
LARGEST = 16 * 1024 * 1024  # bytes of BSON
MOST_BSON_FOR_JSON = 16  # times the bytes of a document's JSON, at the very most; in earnest 7
SMALLEST_INTEGER, LARGEST_INTEGER = -(2**63), 2**63 - 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TOP_DATES = frozenset({"created_at"})
_EXACT = len("2023-07-15T12:34:56.789012Z")  # a longer text may have more digits
_FINER_THAN_MICROSECONDS = re.compile(r"(\.\d{6})\d+", re.ASCII)


class StoredMessage(NamedTuple):
    """What the audit needs to know of a stored document; None where it does not say which message it came from."""

    id: str
    topic: str | None
    partition: int | None
    offset: int | None
    time: int | None
    """The message's own, in milliseconds since 1970."""

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
            milliseconds(origin.get("timestamp")),
        )


def checked(message: Mapping[str, Any]) -> Document:
    """The document to store for a message: a copy, its dates as UTC datetimes. Raises InvalidMessage."""
    _check_id(message)
    document = dated(message)
    _check_fields(document, 1, _TOP_DATES)
    if len(msgspec.json.encode(document)) > LARGEST // MOST_BSON_FOR_JSON and _size(document) > LARGEST:
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
        moment = value if isinstance(value, datetime) else msgspec.convert(_without_finer_digits(value), datetime)
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


def milliseconds(value: object) -> int | None:
    """A date, or its text, as milliseconds since 1970; None for anything else."""
    if not isinstance(value, datetime | str):
        return None
    try:
        return (as_date(value) - _EPOCH) // timedelta(milliseconds=1)
    except InvalidMessage:
        return None


def _without_finer_digits(value: object) -> object:
    """The parser would round what is finer than a microsecond, perhaps into the next second."""
    if isinstance(value, str) and len(value) > _EXACT:
        return _FINER_THAN_MICROSECONDS.sub(r"\1", value)
    return value


def _check_id(message: Mapping[str, Any]) -> None:
    if "_id" in message:
        raise InvalidMessage("reserved_field", "_id is the store's own name for id")
    if "id" not in message:
        raise InvalidMessage("missing_id", "the message has no id")
    if not isinstance(message["id"], str) or not message["id"]:
        raise InvalidMessage("invalid_id", "the id is no text, or is empty")


def require_encodable(value: Any) -> None:
    """Raises InvalidMessage where a part of the value, however deep it lies, is nothing that BSON or JSON can hold."""
    _check_value(value, 1)


def _check_fields(fields: Mapping[Any, Any], level: int, dates: frozenset[str] = frozenset()) -> None:
    """What most fields are, an ASCII key and an ASCII text, is decided without a call: it is half the time."""
    _check_level(level)
    for key, value in fields.items():
        if type(key) is not str or not key.isascii() or "\0" in key:
            _check_key(key)
        if (type(value) is str and value.isascii()) or (type(value) is datetime and key in dates):
            continue
        _check_value(value, level + 1, KAFKA_DATES if key == "kafka" and dates is _TOP_DATES else frozenset())


def _check_value(value: Any, level: int, dates: frozenset[str] = frozenset()) -> None:
    if isinstance(value, str):
        _check_text(value, "invalid_string")
    elif isinstance(value, dict):
        _check_fields(value, level, dates)
    elif isinstance(value, list | tuple):
        _check_level(level)
        for item in value:
            _check_value(item, level + 1)
    elif value is not None:
        _check_number(value)


def _check_level(level: int) -> None:
    if level > DEEPEST:
        raise InvalidMessage("nesting_too_deep", f"more than {DEEPEST} levels of objects and arrays")


def _check_key(key: object) -> None:
    if not isinstance(key, str) or "\0" in key:
        raise InvalidMessage("invalid_key", f"the key {key!a} is no text, or has a NUL in it")
    _check_text(key, "invalid_key")


def _check_text(text: str, reason: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidMessage(reason, f"half a character (a lone surrogate) in a text: {error}") from error


def _check_number(value: object) -> None:
    if isinstance(value, int):  # a boolean too
        if not SMALLEST_INTEGER <= value <= LARGEST_INTEGER:
            raise InvalidMessage("integer_out_of_range", "an integer of more than 64 bits")
    elif not isinstance(value, float):
        raise InvalidMessage("not_encodable", f"a {type(value).__name__} is no JSON value")
    elif not math.isfinite(value):
        raise InvalidMessage("number_out_of_range", f"{value} is no JSON number")


# -- the size in BSON of what is known to be encodable


def _size(document: Document) -> int:
    return _size_of_object(document) + len("_id") - len("id")


def _size_of_object(fields: Mapping[str, Any]) -> int:
    return 5 + sum(2 + len(key.encode()) + _size_of_value(value) for key, value in fields.items())


def _size_of_value(value: object) -> int:
    if isinstance(value, str):
        return 5 + len(value.encode())
    if isinstance(value, dict):
        return _size_of_object(value)
    if isinstance(value, list | tuple):
        return 5 + sum(2 + len(str(index)) + _size_of_value(item) for index, item in enumerate(value))
    if value is None or isinstance(value, bool):
        return 0 if value is None else 1
    return 4 if isinstance(value, int) and -(2**31) <= value < 2**31 else 8
