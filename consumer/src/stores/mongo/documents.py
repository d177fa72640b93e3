"""Converts documents and queries to MongoDB's form and back."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import DatetimeMS, Int64
from bson.raw_bson import RawBSONDocument

from src.stores.document import Document
from src.stores.query import LOGICAL_OPERATORS, Query, Sort


def to_mongo(document: Document) -> dict[str, Any]:
    return {"_id" if name == "id" else name: value for name, value in document.items()}  # inlined for speed


def from_mongo(raw: RawBSONDocument) -> dict[str, Any]:
    document = plain(raw)
    document.pop("id", None)  # written by another program: the id of a message is its `_id`
    return {"id": str(document.pop("_id")), **document}


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
