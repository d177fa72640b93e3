"""Translates a part of a MongoDB filter to SQL, so that an index can answer it.

The result is wider than the filter: each document that it selects is matched against the whole filter afterwards.
"""

from datetime import datetime
from typing import Any

from src.stores.document import epoch_milliseconds
from src.stores.query import Query, has_operators

MAX_PARAMETERS = 900  # of one statement; old versions of SQLite allow 999
COMPARISONS = {"$eq": "=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
COLUMNS = {"created_at": "created_at", "name": "name", "metadata.source": "source"}
NULL_MAY_MATCH = frozenset({"name", "source"})  # the field may be an array with an element that matches


def where_clauses(query: Query, identity_field: str) -> tuple[list[str], list[str | int]]:
    """The clauses, and the values of their parameters."""
    clauses, parameters = [], []
    columns = {identity_field: "id", **COLUMNS}
    for field, condition in query.items():
        conditions = condition.items() if has_operators(condition) else [("$eq", condition)]
        for operator, operand in conditions if field in columns else ():
            clause, values = _clause(columns[field], operator, operand)
            clauses += [clause] if clause else []
            parameters += values
    return clauses, parameters


def _clause(column: str, operator: str, operand: Any) -> tuple[str, list[str | int]]:
    """Empty where the condition has no equivalent in SQL."""
    operands = operand if operator == "$in" else [operand]
    values = [_value(column, each) for each in operands]
    known = [value for value in values if value is not None]
    if len(known) < len(values) or len(known) > MAX_PARAMETERS:
        return "", []
    if operator == "$in":
        clause = f"{column} IN ({', '.join('?' * len(known))})"
    elif operator in COMPARISONS:
        clause = f"{column} {COMPARISONS[operator]} ?"
    else:
        return "", []
    return (f"({clause} OR {column} IS NULL)" if column in NULL_MAY_MATCH else clause), known


def _value(column: str, operand: object) -> str | int | None:
    if column == "created_at":
        return epoch_milliseconds(operand) if isinstance(operand, datetime) else None
    if column == "id" and type(operand) is int:
        return operand
    return text_or_none(operand)


def text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
