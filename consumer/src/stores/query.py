"""Validates and normalizes the field names and dates of a query, for every store."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from src.model.errors import ConsumerError, InvalidMessage
from src.stores.document import DEFAULT_SCHEMA, KAFKA_DATE_FIELDS, Schema, as_date

Query = Mapping[str, Any]
Sort = Sequence[tuple[str, int]]

LOGICAL_OPERATORS = frozenset({"$and", "$or", "$nor"})
_KAFKA_DATES = [f"kafka.{name}" for name in KAFKA_DATE_FIELDS]
_NOT_DATES = frozenset({"$regex", "$options", "$type"})
"""Operators whose operand is no date, whatever the field holds."""


class UnsupportedQuery(ConsumerError):
    """The store cannot answer this query; the text names the part that it does not support."""


def normalized(query: Query, schema: Schema = DEFAULT_SCHEMA) -> dict[str, Any]:
    """The query with datetimes in place of text where the field holds a date. Raises UnsupportedQuery."""
    return {field: _normalized(field, condition, schema) for field, condition in query.items()}


def has_operators(condition: Any) -> bool:
    """Whether this is `{"$gt": …}` or the like, and not a value to be equal to."""
    return isinstance(condition, Mapping) and str(next(iter(condition), "")).startswith("$")


def _normalized(field: str, condition: Any, schema: Schema) -> Any:
    if field.split(".")[0] == "_id" != schema.identity_field:
        raise UnsupportedQuery("use id: _id is not a field of a message")
    if field in LOGICAL_OPERATORS and isinstance(condition, list | tuple):
        return [normalized(query, schema) for query in condition]
    return _with_dates(field, condition) if field in (*schema.dates, *_KAFKA_DATES) else condition


def _with_dates(field: str, condition: Any) -> Any:
    if isinstance(condition, str | datetime):
        return _date(field, condition)
    if isinstance(condition, list | tuple):
        return [_with_dates(field, inner) for inner in condition]
    if has_operators(condition):
        return {name: inner if name in _NOT_DATES else _with_dates(field, inner) for name, inner in condition.items()}
    return condition


def _date(field: str, value: str | datetime) -> datetime:
    """A day without a time is its midnight in UTC; a datetime without a zone is in UTC, as in MongoDB."""
    try:
        if isinstance(value, str):
            return as_date(f"{value}T00:00:00Z" if len(value) == len("2023-07-15") else value, field)
        return as_date(value if value.tzinfo else value.replace(tzinfo=UTC), field)
    except InvalidMessage as error:
        raise UnsupportedQuery(f"{field}: {value!r} is not a date") from error
