"""Which messages a store can hold. The limits are MongoDB's, so that SQLite rejects the same messages."""

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from src.model.errors import InvalidMessage
from src.stores.document import DEFAULT_SCHEMA, Document, Schema, as_date, convert_dates, require_identity

Result = TypeVar("Result")

MAX_DEPTH = 100  # levels, including the document itself
MAX_BSON_BYTES = 16 * 1024 * 1024 - 512  # room for the field `kafka`, which is added later
MAX_BSON_PER_JSON_BYTE = 16  # a safe upper bound; 7 in practice
TOO_DEEP = "nesting_too_deep"
MIN_INT64, MAX_INT64 = -(2**63), 2**63 - 1


def validated(message: Mapping[str, Any], schema: Schema = DEFAULT_SCHEMA) -> Document:
    """The document to store for a message: a copy, with its dates as datetimes. Raises InvalidMessage."""
    _check_identity(message, schema.identity_field)
    document = convert_dates(message, schema.date_converters)
    require_encodable(document)
    may_be_too_large = len(_naming_path(_encoded, document)) * MAX_BSON_PER_JSON_BYTE > MAX_BSON_BYTES
    if may_be_too_large and _size(document) > MAX_BSON_BYTES:
        raise InvalidMessage("document_too_large", f"the document is larger than {MAX_BSON_BYTES} bytes in BSON")
    return document


def _encoded(document: Document) -> bytes:
    try:
        return msgspec.json.encode(document)
    except TypeError as error:  # a subclass of a JSON type
        raise InvalidMessage("not_encodable", str(error)) from error


def require_encodable(value: Any) -> None:
    """Raises InvalidMessage if any part of the value, at any depth, has no equivalent in BSON or JSON."""
    _naming_path(_check, value)


def _naming_path(check: Callable[[Any], Result], value: Any) -> Result:
    """The result of the check. The text of its InvalidMessage begins with the path of the value at fault."""
    try:
        return check(value)
    except InvalidMessage as error:
        path = "" if error.reason == TOO_DEEP else ".".join(_path(check, value))
        raise InvalidMessage(error.reason, f"{path}: {error}" if path else str(error)) from error


def _path(check: Callable[[Any], object], value: Any) -> Iterator[str]:
    """To the innermost value that the check rejects."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for name, inner in items:
        try:
            check(inner)
        except InvalidMessage:
            yield str(name)
            yield from _path(check, inner)
            return


def _check(value: Any) -> None:
    _check_value(value, 1)


def _check_identity(message: Mapping[str, Any], field: str) -> None:
    if "_id" in message and field != "_id":
        raise InvalidMessage("reserved_field", "_id is reserved: the store uses it for id")
    if field not in message:
        raise InvalidMessage("missing_id", f"the document has no {field}")
    require_identity(message[field], field)


def _check_fields(fields: Mapping[Any, Any], level: int) -> None:
    """Most fields are an ASCII key and an ASCII string. Checking those without a call halves the time."""
    _check_level(level)
    for key, value in fields.items():
        if type(key) is not str or not key.isascii() or "\0" in key:
            _check_key(key)
        if type(value) is not str or not value.isascii():
            _check_value(value, level + 1)


def _check_value(value: Any, level: int) -> None:
    if isinstance(value, str):
        _check_text(value, "invalid_string")
    elif isinstance(value, dict):
        _check_fields(value, level)
    elif isinstance(value, list | tuple):
        _check_level(level)
        for item in value:
            _check_value(item, level + 1)
    elif isinstance(value, datetime):
        as_date(value, "date")
    elif value is not None:
        _check_number(value)


def _check_level(level: int) -> None:
    if level > MAX_DEPTH:
        raise InvalidMessage(TOO_DEEP, f"more than {MAX_DEPTH} levels of objects and arrays")


def _check_key(key: object) -> None:
    if not isinstance(key, str) or "\0" in key:
        raise InvalidMessage("invalid_key", f"the key {key!a} is not a string, or contains NUL")
    _check_text(key, "invalid_key")


def _check_text(text: str, reason: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidMessage(reason, f"a string with a lone surrogate: {error}") from error


def _check_number(value: object) -> None:
    if isinstance(value, int):  # includes bool
        if not MIN_INT64 <= value <= MAX_INT64:
            raise InvalidMessage("integer_out_of_range", "an integer of more than 64 bits")
    elif not isinstance(value, float):
        raise InvalidMessage("not_encodable", f"{type(value).__name__} is not a JSON type")
    elif not math.isfinite(value):
        raise InvalidMessage("number_out_of_range", f"{value} is not a JSON number")


# -- the size in BSON of a document that is encodable


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
