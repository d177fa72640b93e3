"""Message ids in compact form, and hashes that are equal for messages that the store considers equal."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec

from src.model.errors import InvalidMessage
from src.stores.document import canonical_json, convert_dates

_SPEC_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def id_and_hash(value: bytes | None) -> tuple[bytes | str | None, int]:
    """The packed id of a message, if it has one, and a 64-bit hash of its content."""
    data = value or b""
    try:
        message = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None, _hash(data)
    identifier = message.get("id")
    packed = pack_id(identifier) if isinstance(identifier, str) else None
    return packed, _hash(_canonical(message) or data)


def pack_id(identifier: str) -> bytes | str:
    """A UUID as its 16 bytes, any other id unchanged; bytes and text are never equal in SQLite."""
    return bytes.fromhex(identifier.replace("-", "")) if _CANONICAL_UUID.fullmatch(identifier) else identifier


def unpack_id(packed: bytes | str | None) -> str | None:
    return str(UUID(bytes=packed)) if isinstance(packed, bytes) else packed


def _canonical(message: Mapping[str, Any]) -> bytes | None:
    """What the store compares; None if it cannot hold the message. Not parsing the usual dates is 20 times faster."""
    created_at = message.get("created_at")
    try:
        if created_at is None or (isinstance(created_at, str) and _SPEC_DATE.fullmatch(created_at)):
            return msgspec.json.encode(message, order="sorted")
        return canonical_json(convert_dates(message))
    except (msgspec.MsgspecError, InvalidMessage, UnicodeError, OverflowError, RecursionError):
        return None


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), signed=True)
