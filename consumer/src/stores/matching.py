"""MongoDB's filters and sort order, for a store without them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from heapq import nsmallest
from itertools import islice
from operator import ge, gt, le, lt
from typing import Any

from src.stores.document import Document
from src.stores.query import LOGICAL_OPERATORS, Query, Sort, UnsupportedQuery, has_operators

Condition = Callable[[list[Any]], bool]
"""Whether all the values that a path leads to in a document, taken together, fulfil it."""

_MISSING = object()


def in_order(documents: Iterable[Document], sort: Sort | None, limit: int | None) -> list[Document]:
    """Sorted as MongoDB would, whatever the types; with a limit, in the memory that `limit` documents take."""
    if not sort:
        return list(islice(documents, limit))
    key = partial(_sort_key, sort)
    return sorted(documents, key=key) if limit is None else nsmallest(limit, documents, key=key)


def matcher(query: Query) -> Callable[[Document], bool]:
    """The query as a predicate. Raises UnsupportedQuery now rather than for a document."""
    tests = [_test(field, condition) for field, condition in query.items()]
    return lambda document: all(test(document) for test in tests)


# -- from a query to predicates


def _test(field: str, condition: Any) -> Callable[[Document], bool]:
    if field in LOGICAL_OPERATORS:
        return _logical(field, condition)
    if field.startswith("$"):
        raise UnsupportedQuery(f"the operator {field} is not supported")
    path = field.split(".")
    conditions = _conditions(condition)
    return lambda document: all(fulfilled(list(_values_at(document, path))) for fulfilled in conditions)


def _logical(operator: str, queries: Any) -> Callable[[Document], bool]:
    if not isinstance(queries, list | tuple) or not queries:
        raise UnsupportedQuery(f"{operator} must be a non-empty list of queries")
    tests = [matcher(query) for query in queries]
    if operator == "$and":
        return lambda document: all(test(document) for test in tests)
    some = operator == "$or"
    return lambda document: some is any(test(document) for test in tests)


def _conditions(condition: Any) -> list[Condition]:
    if not has_operators(condition):
        return [_equals(condition)]
    return [_condition(operator, operand) for operator, operand in condition.items()]


def _condition(operator: str, operand: Any) -> Condition:
    make = _OPERATORS.get(operator)
    if make is None:
        raise UnsupportedQuery(f"the operator {operator} is not supported; supported are {', '.join(_OPERATORS)}")
    return make(operand)


def _compares(comparison: Callable[[Any, Any], bool], operand: Any) -> Condition:
    """Values of different types do not compare; null is neither greater nor less than null."""
    wanted = _order(operand)
    return lambda values: any(
        rank[0] == wanted[0] and comparison(rank, wanted) for rank in map(_order, _candidates(values))
    )


def _is_one_of(operands: Any) -> Condition:
    if not isinstance(operands, list | tuple):
        raise UnsupportedQuery("$in and $nin must be lists")
    conditions = [_equals(operand) for operand in operands]
    return lambda values: any(fulfilled(values) for fulfilled in conditions)


def _exists(wanted: Any) -> Condition:
    return lambda values: bool(wanted) is any(value is not _MISSING for value in values)


def _equals(operand: Any) -> Condition:
    """MongoDB's equality: a missing value equals null, and one element of an array is enough."""
    wanted = _order(operand)
    return lambda values: any(_order(value) == wanted for value in _candidates(values))


def _not(condition: Condition) -> Condition:
    return lambda values: not condition(values)


_OPERATORS: Mapping[str, Callable[[Any], Condition]] = {
    "$eq": _equals,
    "$ne": lambda operand: _not(_equals(operand)),
    "$gt": partial(_compares, gt),
    "$gte": partial(_compares, ge),
    "$lt": partial(_compares, lt),
    "$lte": partial(_compares, le),
    "$in": _is_one_of,
    "$nin": lambda operands: _not(_is_one_of(operands)),
    "$exists": _exists,
}


# -- from a document to the values that a path leads to


def _values_at(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """The values at the end of the path; in an array of documents, those of each document."""
    if not path:
        yield value
    elif isinstance(value, Mapping):
        yield from _values_at(value[path[0]], path[1:]) if path[0] in value else (_MISSING,)
    elif isinstance(value, list | tuple):
        yield from _values_in_array(value, path)
    else:
        yield _MISSING


def _values_in_array(values: Sequence[Any], path: Sequence[str]) -> Iterator[Any]:
    if path[0].isdecimal() and int(path[0]) < len(values):
        yield from _values_at(values[int(path[0])], path[1:])
    for value in values:
        if isinstance(value, Mapping):
            yield from _values_at(value, path)


def _candidates(values: Iterable[Any]) -> Iterator[Any]:
    """An array fulfils a condition as a whole or with one of its elements."""
    for value in values:
        yield value
        if isinstance(value, list | tuple):
            yield from value


# -- MongoDB's order of values of different types


def _order(value: Any) -> tuple[Any, ...]:
    """A sort key that is comparable with that of any value. Its first item is the type's; a boolean is not a number."""
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
    return (1,) if value is _MISSING else _raise_unsupported(value)


def _raise_unsupported(value: object) -> tuple[Any, ...]:
    raise UnsupportedQuery(f"a {type(value).__name__} cannot be queried")


def _sort_key(sort: Sort, document: Document) -> tuple[Any, ...]:
    return tuple(_sort_key_of_field(document, field.split("."), direction) for field, direction in sort)


def _sort_key_of_field(document: Document, path: Sequence[str], direction: int) -> Any:
    """An array sorts by its least element, or in descending order by its greatest."""
    ranks = [
        rank
        for value in _values_at(document, path)
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
