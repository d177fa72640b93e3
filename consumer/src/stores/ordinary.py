"""Documents of ordinary messages: one call of the JSON parser decodes and validates each.

A message is ordinary if nothing about it takes a closer look. Two forms are recognized: exactly the fields of the
specification, and any fields whose values are plain JSON of a few levels.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from src.model.errors import InvalidMessage
from src.stores.document import MAX_EXACT_DATE, SpecifiedMessage, ValidDocument, as_date
from src.stores.validation import MAX_BSON_BYTES, MAX_BSON_PER_JSON_BYTE, MAX_INT64, MIN_INT64

MAX_BYTES = MAX_BSON_BYTES // MAX_BSON_PER_JSON_BYTE  # of JSON; that is not too large in BSON
MAX_LEVELS = 5  # of values in a field
BACKSLASH = ord("\\")


def ordinary_documents(values: Sequence[bytes]) -> list[ValidDocument | None]:
    """None for each value that is not ordinary. This runs for every message: its loops call no functions of ours."""
    documents: list[ValidDocument | None] = []
    specified: list[SpecifiedMessage] = []
    for value in values:
        if len(value) > MAX_BYTES or (BACKSLASH in value and b"\\u0000" in value):  # the latter may be in a key
            documents.append(None)
            continue
        try:
            message = _decode_specified(value)
        except (ValueError, RecursionError):
            documents.append(_simple_document(value))
        else:
            documents.append(message)
            specified.append(message)
    return documents if _convert_dates(specified) else [_other_form(document) for document in documents]


def ordinary_message(value: bytes) -> dict[str, Any] | None:
    """The message, if any values in its fields can be stored as they are. The general form of the above."""
    if len(value) > MAX_BYTES or (BACKSLASH in value and b"\\u0000" in value):
        return None
    try:
        return _decode_simple(value)
    except (ValueError, RecursionError):
        return None


def _convert_dates(messages: Sequence[SpecifiedMessage]) -> bool:
    """In place. False if any has another date than milliseconds in UTC."""
    texts = [message.created_at for message in messages]
    try:
        dates = msgspec.convert(texts, list[datetime])
    except msgspec.ValidationError:
        return False
    for text, date in zip(texts, dates, strict=True):
        if date.tzinfo is not UTC or date.microsecond % 1000 or len(text) > MAX_EXACT_DATE:
            return False
    for message, date in zip(messages, dates, strict=True):
        message.created_at = date
    return True


def _other_form(document: ValidDocument | None) -> ValidDocument | None:
    return _with_date(document.as_dict()) if isinstance(document, SpecifiedMessage) else document


def _simple_document(value: bytes) -> ValidDocument | None:
    try:
        message = _decode_simple(value)
    except (ValueError, RecursionError):
        return None
    ordinary = (
        (type(identity := message.get("id")) is int or (type(identity) is str and identity))
        and type(message.get("name", "")) is str
        and type(message.get("metadata", message)) is dict
        and "_id" not in message
        and "kafka" not in message
    )
    return _with_date(message) if ordinary else None


def _with_date(message: dict[str, Any]) -> ValidDocument | None:
    """In place."""
    try:
        if "created_at" in message:
            message["created_at"] = as_date(message["created_at"], "created_at")
    except InvalidMessage:
        return None
    return message


def _simple(levels: int) -> Any:
    """The type of a JSON value that needs no further check, but for NUL in keys."""
    simple: Any = None | bool | Annotated[int, Meta(ge=MIN_INT64, le=MAX_INT64)] | float | str
    leaf = simple
    for _ in range(levels):
        simple = leaf | list[simple] | dict[str, simple]
    return simple


_decode_simple: Callable[[bytes], dict[str, Any]] = msgspec.json.Decoder(dict[str, _simple(MAX_LEVELS)]).decode  # type: ignore[misc]
_decode_specified = msgspec.json.Decoder(SpecifiedMessage).decode
