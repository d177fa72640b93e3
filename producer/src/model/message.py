"""Messages as `(key, value, headers)`, and their serialization."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from math import isfinite
from typing import Any, NamedTuple

import msgspec

from src.model.errors import InvalidMessage

Headers = Mapping[str, str] | Sequence[tuple[str, str | bytes | None]] | None
EncodedHeaders = list[tuple[str, bytes | None]]

_encode_json = msgspec.json.Encoder().encode


class Message(NamedTuple):
    """A message before serialization; a plain tuple of the three fields is accepted too."""

    key: str
    value: Mapping[str, Any]
    headers: Headers = None


class ProducerRecord(msgspec.Struct, frozen=True, gc=False):
    """A serialized message: the bytes that are sent, retried, and written to the undelivered folder.

    `gc=False`: tens of thousands are in flight, and Python's garbage collector would visit each again and again.
    """

    key: bytes | None
    value: bytes | None
    headers: EncodedHeaders
    """Records may share the list."""

    @property
    def size(self) -> int:
        """Bytes of key and value, without headers."""
        return len(self.key or b"") + len(self.value or b"")


def total_size(records: Iterable[ProducerRecord]) -> int:
    return sum([len(record.key or b"") + len(record.value or b"") for record in records])


def encode(message: Message | tuple[str, Mapping[str, Any], Headers]) -> ProducerRecord:
    """Serialize a message. Raises InvalidMessage."""
    try:
        key, value, headers = message
    except (TypeError, ValueError) as error:
        raise InvalidMessage(f"not a message with key, JSON value and headers: {error}") from error
    return encode_batch([key], [value], headers)[0]


def encode_batch(
    keys: Iterable[str], values: Sequence[Mapping[str, Any] | msgspec.Struct], headers: Headers
) -> list[ProducerRecord]:
    """Serialize messages that have the same headers. Raises InvalidMessage if one of them is invalid."""
    try:
        pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
        encoded = [(_valid_header_name(name), _header_value(content)) for name, content in pairs]
        return list(map(ProducerRecord, map(str.encode, keys), _to_json(values), repeat(encoded)))
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InvalidMessage(f"not a message with key, JSON value and headers: {error}") from error


def _to_json(values: Sequence[Mapping[str, Any] | msgspec.Struct]) -> list[bytes]:
    """NaN and Infinity are not valid JSON; the encoder would write them as null, so they are rejected."""
    texts = list(map(_encode_json, values))
    if b"null" in b"".join(texts) and not all(_is_finite(msgspec.to_builtins(value)) for value in values):
        raise ValueError("the value contains NaN or Infinity, which JSON does not allow")
    return texts


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
