"""From a Kafka record to a document, or the reason why there is none. No Kafka, no MongoDB, no clock of its own.

What is taken:
- a JSON object in UTF-8 with an `id`, a text that is not empty. It is compared exactly as sent: upper and lower case,
  braces or `urn:uuid:` make another id;
- where they are present, `created_at` in RFC 3339 with a zone, `name` a text, `metadata` an object. Any other field is
  kept as it is, whatever characters its key has but NUL. Of a key given twice the last one counts, as JSON parsers do;
- what no store has room for (an integer beyond 64 bits, more than 100 levels, …) is refused at the store's door.

`created_at` becomes a date in UTC, cut to milliseconds. A leap second (`:60`), `24:00:00`, a comma before the fraction,
the form without dashes and colons, a date without time or zone are refused; lower case `t` and `z`, a blank for `T` and
`+0530` are taken.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import msgspec

from src.model.errors import InvalidMessage
from src.model.record import Record
from src.stores.document import as_date, require_encodable

REASONS = (
    "tombstone",
    "empty_value",
    "byte_order_mark",
    "not_utf8",
    "not_json",
    "nesting_too_deep",
    "not_an_object",
    "encoded_twice",
    "schema_registry_framing",
    "connect_envelope",
    "missing_id",
    "invalid_id",
    "invalid_created_at",
    "invalid_name",
    "invalid_metadata",
    "reserved_field",
    "integer_out_of_range",
    "number_out_of_range",
    "invalid_key",
    "invalid_string",
)
"""Every reason that an InvalidMessage from here can have."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UTF16 = (b"\xff\xfe", b"\xfe\xff", b"{\x00", b"\x00{\x00")
_FRAME = 5  # bytes that a schema registry's serialiser puts in front: a zero and the schema's number

_KINDS = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "an array",
    dict: "an object",
    type(None): "null",
}

_decode = msgspec.json.Decoder().decode


def _now() -> datetime:
    return datetime.now(UTC)


class DataProcessor:
    """Decides on one message at a time."""

    def __init__(self, clock: Callable[[], datetime] = _now) -> None:
        self._clock = clock

    def process(self, record: Record) -> dict[str, Any]:
        """The document of a record: its message, and under `kafka` where it came from. Raises InvalidMessage."""
        document = self.check(_object(record.value))
        document["kafka"] = {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": _instant(record.timestamp),
            "received_at": as_date(self._clock()),
        }
        return document

    def check(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The document of a message that is decoded already. Raises InvalidMessage."""
        document = dict(message)
        _require_id(document)
        _require_no_field_of_ours(document)
        _require_type(document, "name", str)
        _require_type(document, "metadata", dict)
        if "created_at" in document:
            document["created_at"] = as_date(document["created_at"])
        return document


# -- bytes to object


def _object(value: bytes | None) -> dict[str, Any]:
    if value is None:
        raise InvalidMessage("tombstone", "the record has no value")
    try:
        decoded = _decode(value)
    except RecursionError as error:
        raise InvalidMessage("nesting_too_deep", "the JSON is nested too deeply to be read") from error
    except ValueError as error:  # UnicodeDecodeError is one too
        _raise_diagnosis(value, error)
    if isinstance(decoded, dict):
        return decoded
    if isinstance(decoded, str) and _holds_json(decoded):
        raise InvalidMessage("encoded_twice", "the value is a JSON text that holds JSON; encode it once")
    raise InvalidMessage("not_an_object", f"the value is no JSON object but {_kind(decoded)}")


def _holds_json(text: str) -> bool:
    try:
        return isinstance(_decode(text), dict | list | str)
    except RecursionError:
        return True
    except ValueError:
        return False


def _raise_diagnosis(value: bytes, error: ValueError) -> NoReturn:
    """Why it can't be read. What is refused for its content, not its form, is told apart by a more lenient parser."""
    if not value:
        raise InvalidMessage("empty_value", "the value is empty") from error
    if value.startswith(b"\xef\xbb\xbf"):
        raise InvalidMessage("byte_order_mark", "the value begins with a byte order mark; send it without") from error
    if value.startswith(_UTF16):
        raise InvalidMessage("not_utf8", "the value looks like UTF-16; send UTF-8") from error
    if value.startswith(b"\0") and len(value) >= _FRAME:
        number = int.from_bytes(value[1:_FRAME], "big")
        text = f"the value begins as a schema registry's serialiser writes it, schema {number}; send plain JSON"
        raise InvalidMessage("schema_registry_framing", text) from error
    try:
        lenient = json.loads(value.decode(), parse_int=_bounded, parse_constant=_refuse)
        require_encodable(lenient)
    except UnicodeDecodeError as decode_error:
        raise InvalidMessage("not_utf8", f"the value is not UTF-8: {decode_error.reason}") from error
    except RecursionError:
        raise InvalidMessage("nesting_too_deep", "the JSON is nested too deeply to be read") from error
    except ValueError:
        pass
    raise InvalidMessage("not_json", f"the value is no JSON: {error}") from error


def _bounded(digits: str) -> int:
    """An integer, or enough of it to see that it is out of range: Python refuses to convert very long ones."""
    return int(digits[:40])


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


# -- the fields with a meaning


def _require_id(message: Mapping[str, Any]) -> None:
    if "id" not in message:
        raise _without_id(message)
    if not isinstance(message["id"], str):
        raise InvalidMessage("invalid_id", f"id is no text but {_kind(message['id'])}")
    if not message["id"]:
        raise InvalidMessage("invalid_id", "id is empty")


def _without_id(message: Mapping[str, Any]) -> InvalidMessage:
    if message.keys() == {"schema", "payload"}:
        text = "the message is wrapped in schema and payload; set schemas.enable=false where it is sent"
        return InvalidMessage("connect_envelope", text)
    return InvalidMessage("missing_id", "the message has no id")


def _require_no_field_of_ours(message: Mapping[str, Any]) -> None:
    if "_id" in message or "kafka" in message:
        raise InvalidMessage("reserved_field", "_id and kafka are fields of the store's own; rename yours")


def _require_type(message: Mapping[str, Any], field: str, kind: type) -> None:
    if field in message and not isinstance(message[field], kind):
        raise InvalidMessage(f"invalid_{field}", f"{field} is {_kind(message[field])} instead of {_KINDS[kind]}")


def _instant(milliseconds: int | None) -> datetime | None:
    """The record's time; None where Kafka has none, or one that no calendar holds (a producer may write anything)."""
    if milliseconds is None:
        return None
    try:
        return _EPOCH + timedelta(0, 0, 0, milliseconds)
    except OverflowError:
        return None


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)
