"""MongoDB's filters and sort order, for a store that has none of its own.

Also the part of a query that is the same for every store: field names and dates.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from heapq import nsmallest
from itertools import islice
from operator import ge, gt, le, lt
from typing import Any

from src.model.errors import ConsumerError, InvalidMessage
from src.stores.document import DATES, Document, as_date

Query = Mapping[str, Any]
Sort = Sequence[tuple[str, int]]
Condition = Callable[[list[Any]], bool]
"""Says of all values that a path leads to in a document whether they fulfil it."""

LOGICAL = frozenset({"$and", "$or", "$nor"})

_MISSING = object()


class UnsupportedQuery(ConsumerError):
    """The store can't answer this query; the text names what it stumbles over."""


def normalised(query: Query) -> dict[str, Any]:
    """The query with text as dates where the field is one. Raises UnsupportedQuery."""
    return {field: _normalised(field, condition) for field, condition in query.items()}


def in_order(documents: Iterable[Document], sort: Sort | None, limit: int | None) -> list[Document]:
    """As MongoDB would sort them, of any types; in the memory that `limit` documents take."""
    if not sort:
        return list(islice(documents, limit))
    key = partial(_rank, sort)
    return sorted(documents, key=key) if limit is None else nsmallest(limit, documents, key=key)


def matcher(query: Query) -> Callable[[Document], bool]:
    """The query as a test of one document. Raises UnsupportedQuery, here and not later."""
    tests = [_test(field, condition) for field, condition in query.items()]
    return lambda document: all(test(document) for test in tests)


def equals(operand: Any) -> Condition:
    """MongoDB's equality: a missing value is null, and of an array one element is enough."""
    wanted = _order(operand)
    return lambda values: any(_order(value) == wanted for value in _candidates(values))


def is_condition(value: Any) -> bool:
    """Whether this is `{"$gt": …}` and its like rather than a value to be equal to."""
    return isinstance(value, Mapping) and str(next(iter(value), "")).startswith("$")


# From a query to tests


def _test(field: str, condition: Any) -> Callable[[Document], bool]:
    if field in LOGICAL:
        return _logical(field, condition)
    if field.startswith("$"):
        raise UnsupportedQuery(f"the operator {field} is not supported")
    path = field.split(".")
    conditions = _conditions(condition)
    return lambda document: all(holds(list(_reached(document, path))) for holds in conditions)


def _logical(operator: str, queries: Any) -> Callable[[Document], bool]:
    if not isinstance(queries, list | tuple) or not queries:
        raise UnsupportedQuery(f"{operator} takes a list of queries")
    tests = [matcher(query) for query in queries]
    if operator == "$and":
        return lambda document: all(test(document) for test in tests)
    some = operator == "$or"
    return lambda document: some is any(test(document) for test in tests)


def _conditions(condition: Any) -> list[Condition]:
    if not is_condition(condition):
        return [equals(condition)]
    return [_condition(operator, operand) for operator, operand in condition.items()]


def _condition(operator: str, operand: Any) -> Condition:
    make = _OPERATORS.get(operator)
    if make is None:
        raise UnsupportedQuery(f"the operator {operator} is not supported; there are {', '.join(_OPERATORS)}")
    return make(operand)


def _compares(comparison: Callable[[Any, Any], bool], operand: Any) -> Condition:
    """Only values of one type have an order; null is neither above nor below itself."""
    wanted = _order(operand)
    return lambda values: any(
        rank[0] == wanted[0] and comparison(rank, wanted) for rank in map(_order, _candidates(values))
    )


def _is_one_of(operands: Any) -> Condition:
    if not isinstance(operands, list | tuple):
        raise UnsupportedQuery("$in and $nin take a list")
    conditions = [equals(operand) for operand in operands]
    return lambda values: any(holds(values) for holds in conditions)


def _exists(wanted: Any) -> Condition:
    return lambda values: bool(wanted) is any(value is not _MISSING for value in values)


def _not(condition: Condition) -> Condition:
    return lambda values: not condition(values)


_OPERATORS: Mapping[str, Callable[[Any], Condition]] = {
    "$eq": equals,
    "$ne": lambda operand: _not(equals(operand)),
    "$gt": partial(_compares, gt),
    "$gte": partial(_compares, ge),
    "$lt": partial(_compares, lt),
    "$lte": partial(_compares, le),
    "$in": _is_one_of,
    "$nin": lambda operands: _not(_is_one_of(operands)),
    "$exists": _exists,
}


# From a document to the values that a path leads to


def _reached(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """What lies at the end of the path; of the documents in an array, at the end of each one's."""
    if not path:
        yield value
    elif isinstance(value, Mapping):
        yield from _reached(value[path[0]], path[1:]) if path[0] in value else (_MISSING,)
    elif isinstance(value, list | tuple):
        yield from _reached_in_array(value, path)
    else:
        yield _MISSING


def _reached_in_array(values: Sequence[Any], path: Sequence[str]) -> Iterator[Any]:
    if path[0].isdecimal() and int(path[0]) < len(values):
        yield from _reached(values[int(path[0])], path[1:])
    for value in values:
        if isinstance(value, Mapping):
            yield from _reached(value, path)


def _candidates(values: Iterable[Any]) -> Iterator[Any]:
    """An array may fulfil a condition itself, or by one of its elements."""
    for value in values:
        yield value
        if isinstance(value, list | tuple):
            yield from value


# MongoDB's order of values of any types


def _order(value: Any) -> tuple[Any, ...]:
    """Comparable with that of any other value. The first item is the type's; true is no number here."""
    match value:
        case bool():
            return (8, value)
        case None:
            return (1,)
        case int() | float():
            return (2, value)
        case str():
            return (3, value.encode())  # as MongoDB does, which compares bytes
        case Mapping():
            return (4, tuple((_order(inner)[0], name, _order(inner)) for name, inner in value.items()))
        case list() | tuple():
            return (5, tuple(_order(inner) for inner in value))
        case datetime():
            return (9, value if value.tzinfo else value.replace(tzinfo=UTC))
    return (1,) if value is _MISSING else _unknown(value)


def _unknown(value: object) -> tuple[Any, ...]:
    raise UnsupportedQuery(f"a {type(value).__name__} can't be looked for")


def _rank(sort: Sort, document: Document) -> tuple[Any, ...]:
    return tuple(_rank_of_field(document, field.split("."), direction) for field, direction in sort)


def _rank_of_field(document: Document, path: Sequence[str], direction: int) -> Any:
    """An array stands where its least element does, or in descending order its greatest."""
    ranks = [
        rank
        for value in _reached(document, path)
        for rank in (map(_order, value) if isinstance(value, list | tuple) else (_order(value),))
    ]
    if direction < 0:
        return _Descending(max(ranks, default=(0,)))
    return min(ranks, default=(0,))


@dataclass(frozen=True)
class _Descending:
    rank: tuple[Any, ...]

    def __lt__(self, other: "_Descending") -> bool:
        return other.rank < self.rank


# Names and dates


def _normalised(field: str, condition: Any) -> Any:
    if field.split(".")[0] == "_id":
        raise UnsupportedQuery("_id is the store's own name; ask for id")
    if field in LOGICAL and isinstance(condition, list | tuple):
        return [normalised(query) for query in condition]
    return _with_dates(field, condition) if field in DATES else condition


def _with_dates(field: str, condition: Any) -> Any:
    if isinstance(condition, str | datetime):
        return _date(field, condition)
    if isinstance(condition, list | tuple):
        return [_with_dates(field, inner) for inner in condition]
    if is_condition(condition):
        return {name: inner if name == "$regex" else _with_dates(field, inner) for name, inner in condition.items()}
    return condition


def _date(field: str, value: str | datetime) -> datetime:
    """A day without a time is its first instant; a datetime without a zone is in UTC, as for MongoDB."""
    try:
        if isinstance(value, str):
            return as_date(f"{value}T00:00:00Z" if len(value) == len("2023-07-15") else value)
        return as_date(value if value.tzinfo else value.replace(tzinfo=UTC))
    except InvalidMessage as error:
        raise UnsupportedQuery(f"{field}: {value!r} is no date") from error
