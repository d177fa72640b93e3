"""What travels: the spec's `(key, value, headers)`."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any, NamedTuple

import msgspec

from src.model.errors import InvalidInput

Headers = Mapping[str, str] | Sequence[tuple[str, str | bytes | None]] | None

_encode_json = msgspec.json.Encoder().encode


class Message(NamedTuple):
    """One message as the program holds it; a plain tuple of the three does as well."""

    key: str
    value: Mapping[str, Any]
    headers: Headers = None


class Encoded(NamedTuple):
    """The same message as Kafka gets it; this is what is sent again, kept, and sent from the file."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]

    @property
    def size(self) -> int:
        """Bytes, headers apart."""
        return len(self.key or b"") + len(self.value or b"")


def encode(message: Message | tuple[str, Mapping[str, Any], Headers]) -> Encoded:
    """The bytes of a message. Raises InvalidInput."""
    try:
        key, value, headers = message
        pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
        return Encoded(
            key.encode(),
            _as_json(value),
            [(_sendable(name), _bytes(content)) for name, content in pairs],
        )
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InvalidInput(f"not a message of key, JSON value and headers: {error}") from error


def _as_json(value: Mapping[str, Any]) -> bytes:
    """NaN and the infinities, which JSON has not, would be written as null: they are refused."""
    text = _encode_json(value)
    if b"null" in text and not _is_finite(msgspec.to_builtins(value)):
        raise ValueError("NaN or Infinity in its value, which JSON has not")
    return text


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return not isinstance(value, list | tuple) or all(map(_is_finite, value))


def _sendable(name: str) -> str:
    """The name of a header, if the client can send it: half a surrogate pair would crash it, a NUL cut it short."""
    name.encode()
    if "\0" in name:
        raise ValueError(f"the name {name!a} of a header has a NUL in it")
    return name


def _bytes(content: str | bytes | None) -> bytes | None:
    """What a header holds. Anything else the client refuses only as it is handed the message, amid its neighbours."""
    if content is None or isinstance(content, bytes):
        return content
    if isinstance(content, str):
        return content.encode()
    raise TypeError(f"a header holds {type(content).__name__}, which is neither text nor bytes")


def utc_text(seconds: float) -> str:
    """Seconds since 1970 as the spec writes a time: `2023-07-15T12:34:56.789Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
