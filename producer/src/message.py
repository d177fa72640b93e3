"""What travels: the spec's `(key, value, headers)`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

Headers = Mapping[str, str] | Sequence[tuple[str, str | bytes | None]] | None


class Message(NamedTuple):
    """One message as the program holds it; a plain tuple of the three does as well."""

    key: str
    value: Mapping[str, Any]
    headers: Headers = None


class Encoded(NamedTuple):
    """The same message as Kafka gets it."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def encode(message: Message | tuple[str, Mapping[str, Any], Headers]) -> Encoded:
    """The bytes of a message. Raises TypeError or ValueError where its value is not JSON."""
    key, value, headers = message
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    return Encoded(
        key.encode(),
        msgspec.json.encode(value),
        [(name, content.encode() if isinstance(content, str) else content) for name, content in pairs],
    )
