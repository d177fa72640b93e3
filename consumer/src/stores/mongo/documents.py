"""Converts documents and queries to MongoDB's form and back."""

import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import bson
from bson import DatetimeMS, Int64
from bson.raw_bson import RawBSONDocument
from msgspec import Struct

from src.model.record import Record
from src.stores.document import (
    EARLIEST,
    LATEST,
    DocumentBatch,
    SpecifiedMessage,
    as_identity,
    fields_of,
    identity_of,
    origin,
)
from src.stores.query import LOGICAL_OPERATORS, Query, Sort

_MAX_INT32 = 2**31 - 1
_NUMBERS = struct.Struct("<i11sq")
"""The offset of a message, the type and name of its timestamp, and the timestamp."""


@Mapping.register  # for the driver without its C code
class EncodedObject(Struct, gc=False):
    """An object that is encoded already: like RawBSONDocument, but created in a fifth of its time."""

    raw: bytes
    _type_marker: ClassVar[int] = RawBSONDocument._type_marker


def to_mongo(batch: DocumentBatch) -> list[dict[str, Any]]:
    """This runs for every message: the form that most have is converted without functions of its own."""
    origins = encoded_origins(batch.records, batch.received_at)
    return [
        {
            "_id": document.id,
            "name": document.name,
            "created_at": document.created_at,
            "metadata": document.metadata,
            "kafka": origin,
        }
        if type(document) is SpecifiedMessage and origin is not None
        else _to_mongo(fields_of(document), origin)
        for document, origin in zip(batch.documents, origins, strict=True)
    ]


def encoded_origins(records: Sequence[Record | None], received_at: int) -> list[EncodedObject | None]:
    """The field `kafka` of each document, in a tenth of the time of `bson.encode`.

    Of the messages of a partition that are received at the same time, only offset and timestamp differ.
    """
    tail = b"\treceived_at\0" + struct.pack("<qx", received_at)
    heads: dict[tuple[str, int], bytes] = {}
    pack = _NUMBERS.pack
    origins: list[EncodedObject | None] = []
    for record in records:
        if record is None:
            origins.append(None)
            continue
        partition, offset, timestamp = (record.topic, record.partition), record.offset, record.timestamp
        if timestamp is None or offset > _MAX_INT32 or not EARLIEST <= timestamp <= LATEST:
            origins.append(EncodedObject(bson.encode(origin(record, received_at))))
            continue
        if partition not in heads:
            heads[partition] = _head(record, len(tail))
        origins.append(EncodedObject(heads[partition] + pack(offset, b"\ttimestamp", timestamp) + tail))
    return origins


def _head(record: Record, tail: int) -> bytes:
    """What precedes the offset, in an object that ends with a `tail` of so many bytes."""
    fields = bson.encode({"topic": record.topic, "partition": record.partition})[4:-1] + b"\x10offset\0"
    return struct.pack("<i", 4 + len(fields) + _NUMBERS.size + tail) + fields


def _to_mongo(fields: Mapping[str, Any], origin: EncodedObject | None) -> dict[str, Any]:
    document = fields_to_mongo(fields)
    return document if origin is None else {**document, "kafka": origin}


def fields_to_mongo(fields: Mapping[str, Any]) -> dict[str, Any]:
    document = {"_id": identity_of(fields), **fields}
    if "_id" not in fields:
        del document["id"]
    return document


def from_mongo(raw: RawBSONDocument, identity_field: str) -> dict[str, Any]:
    document = plain(raw)
    identity = as_identity(document.pop("_id"))
    document.pop(identity_field, None)  # `id`, written by another program: the id of a message is its `_id`
    return {identity_field: identity, **document}


def query_to_mongo(query: Query, identity_field: str) -> dict[str, Any]:
    return {
        _field(field, identity_field): _condition(field, condition, identity_field)
        for field, condition in query.items()
    }


def sort_to_mongo(sort: Sort, identity_field: str) -> list[tuple[str, int]]:
    return [(_field(field, identity_field), direction) for field, direction in sort]


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


def _field(name: str, identity_field: str) -> str:
    return "_id" if name == identity_field else name


def _condition(field: str, condition: Any, identity_field: str) -> Any:
    if field in LOGICAL_OPERATORS and isinstance(condition, list):
        return [query_to_mongo(query, identity_field) for query in condition]
    return condition


def _distant_date(milliseconds: int) -> str:
    """A date out of datetime's range, as JavaScript formats it: +010000-01-01T00:00:00.000Z."""
    base = datetime(2000, 1, 1, tzinfo=UTC)
    cycle = timedelta(days=146_097) // timedelta(milliseconds=1)  # 400 years
    cycles, remainder = divmod(milliseconds - int(base.timestamp()) * 1000, cycle)
    date = base + timedelta(milliseconds=remainder)
    return f"{date.year + 400 * cycles:+07d}{date:-%m-%dT%H:%M:%S}.{date.microsecond // 1000:03d}Z"
