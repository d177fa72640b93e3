"""Converts documents and queries to MongoDB's form and back."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from bson import DatetimeMS, Int64, decode_all
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument

from src.model.position import MessagePosition
from src.stores.document import Document, StoredMessage
from src.stores.query import LOGICAL_OPERATORS, Query, Sort

# Raw documents are decoded field by field, so that no date is out of range and no `$ref` becomes a reference.
READABLE: CodecOptions[Any] = CodecOptions(
    document_class=RawBSONDocument,
    tz_aware=True,
    unicode_decode_error_handler="replace",
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)
_FAST: CodecOptions[Any] = CodecOptions(
    unicode_decode_error_handler="replace", datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
_INTEGERS = (int, Int64)
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001
_MILLISECOND = timedelta(milliseconds=1)


def to_mongo(document: Document) -> dict[str, Any]:
    return {"_id" if name == "id" else name: value for name, value in document.items()}  # inlined for speed


def from_mongo(raw: RawBSONDocument) -> dict[str, Any]:
    document = plain(raw)
    document.pop("id", None)  # written by another program: the id of a message is its `_id`
    return {"id": str(document.pop("_id")), **document}


def scanned(batch: bytes) -> list[StoredMessage]:
    """The documents of a batch. Those that the consumer has not written are decoded again, whatever they contain."""
    messages = [_message(document) for document in decode_all(batch, _FAST)]
    if None not in messages:
        return cast(list[StoredMessage], messages)
    raws = decode_all(batch, READABLE)
    return [
        message or StoredMessage.of(plain(raw["_id"]), plain(raw.get("kafka")))
        for message, raw in zip(messages, raws, strict=True)
    ]


def _message(document: Mapping[str, Any]) -> StoredMessage | None:
    """None unless every field has the type that the consumer writes."""
    identifier, kafka = document["_id"], document.get("kafka")
    if type(identifier) is not str or type(kafka) is not dict:
        return None
    topic, partition, offset, date = (kafka.get(field) for field in ("topic", "partition", "offset", "timestamp"))
    if type(topic) is str and type(partition) is int and type(offset) in _INTEGERS and type(date) is datetime:
        position = MessagePosition(topic, partition, int(cast(int, offset)))
        return StoredMessage(identifier, position, (date - _EPOCH) // _MILLISECOND)
    return None


def query_to_mongo(query: Query) -> dict[str, Any]:
    return {_field(field): _condition(field, condition) for field, condition in query.items()}


def sort_to_mongo(sort: Sort) -> list[tuple[str, int]]:
    return [(_field(field), direction) for field, direction in sort]


def plain(value: Any) -> Any:
    """JSON's own types and datetimes; any other type, which another program may have stored, becomes text."""
    if value is None or type(value) in (str, int, float, bool, datetime):
        return value
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, Int64):
        return int(value)
    return _distant_date(int(value)) if isinstance(value, DatetimeMS) else str(value)


def _field(name: str) -> str:
    return "_id" if name == "id" else name


def _condition(field: str, condition: Any) -> Any:
    if field in LOGICAL_OPERATORS and isinstance(condition, list):
        return [query_to_mongo(query) for query in condition]
    return condition


def _distant_date(milliseconds: int) -> str:
    """A date out of datetime's range, as JavaScript formats it: +010000-01-01T00:00:00.000Z."""
    base = datetime(2000, 1, 1, tzinfo=UTC)
    cycle = timedelta(days=146_097) // timedelta(milliseconds=1)  # 400 years
    cycles, remainder = divmod(milliseconds - int(base.timestamp()) * 1000, cycle)
    date = base + timedelta(milliseconds=remainder)
    return f"{date.year + 400 * cycles:+07d}{date:-%m-%dT%H:%M:%S}.{date.microsecond // 1000:03d}Z"
