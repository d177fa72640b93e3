"""Messages as `(key, value, headers)`, and their serialization."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

import msgspec

from src.model.errors import InvalidMessage

Headers = Mapping[str, str] | Sequence[tuple[str, str | bytes | None]] | None

_encode_json = msgspec.json.Encoder().encode


class Message(NamedTuple):
    """A message before serialization; a plain tuple of the three fields is accepted too."""

    key: str
    value: Mapping[str, Any]
    headers: Headers = None


class ProducerRecord(NamedTuple):
    """A serialized message: the bytes that are sent, retried, and written to the undelivered folder."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]

    @property
    def size(self) -> int:
        """Bytes of key and value, without headers."""
        return len(self.key or b"") + len(self.value or b"")


def encode(message: Message | tuple[str, Mapping[str, Any], Headers]) -> ProducerRecord:
    """Serialize a message. Raises InvalidMessage."""
    try:
        key, value, headers = message
        pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
        return ProducerRecord(
            key.encode(),
            _to_json(value),
            [(_valid_header_name(name), _header_value(content)) for name, content in pairs],
        )
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InvalidMessage(f"not a message with key, JSON value and headers: {error}") from error


def _to_json(value: Mapping[str, Any]) -> bytes:
    """NaN and Infinity are not valid JSON; the encoder would write them as null, so they are rejected."""
    text = _encode_json(value)
    if b"null" in text and not _is_finite(msgspec.to_builtins(value)):
        raise ValueError("the value contains NaN or Infinity, which JSON does not allow")
    return text


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return not isinstance(value, list | tuple) or all(map(_is_finite, value))


def _valid_header_name(name: str) -> str:
    """librdkafka crashes on an unpaired surrogate in a header name and truncates the name at a NUL."""
    name.encode()
    if "\0" in name:
        raise ValueError(f"header name {name!a} contains a NUL character")
    return name


def _header_value(content: str | bytes | None) -> bytes | None:
    """Checked here because the client would raise TypeError in the middle of a batch."""
    if content is None or isinstance(content, bytes):
        return content
    if isinstance(content, str):
        return content.encode()
    raise TypeError(f"header value is {type(content).__name__}, expected str, bytes or None")
