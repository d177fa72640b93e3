"""Generates the messages. To change their fields, change `Value` and `DataGenerator._values`."""

import os
import time
from collections.abc import Callable, Sequence

from msgspec import Struct, to_builtins

from src.model.message import Message, ProducerRecord, encode_batch
from src.utils.text import utc_text

_UUID4 = b"xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx\n"
_RANDOM = [position for position, character in enumerate(_UUID4) if character in b"xy"]
_VARIANT = _UUID4.index(b"y")
_TO_VARIANT = bytes.maketrans(b"0123456789abcdef", b"89ab" * 4)
_TO_DIGIT = bytes(ord("0") + byte % 10 for byte in range(256))


class Metadata(Struct, frozen=True, gc=False):
    source: str = "system-a"
    version: str = "1.0.0"


class Value(Struct, frozen=True, gc=False):
    id: str
    name: str
    created_at: str
    metadata: Metadata = Metadata()


def random_ids(count: int) -> list[str]:
    """Version 4 UUIDs, ten times faster than `uuid.uuid4` for each: one digit of all of them is set at a time."""
    digits = os.urandom(16 * count).hex().encode()
    lines = bytearray(_UUID4 * count)
    for number, position in enumerate(_RANDOM):
        lines[position :: len(_UUID4)] = digits[number::32]
    lines[_VARIANT :: len(_UUID4)] = lines[_VARIANT :: len(_UUID4)].translate(_TO_VARIANT)
    return lines.decode().split()


def random_numbers(count: int) -> list[str]:
    """Numbers of eight digits."""
    digits = os.urandom(8 * count).translate(_TO_DIGIT).decode()
    return [digits[start : start + 8] for start in range(0, 8 * count, 8)]


class DataGenerator:
    """Deterministic for a given clock and given sources of ids and numbers."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        ids: Callable[[int], Sequence[str]] = random_ids,
        numbers: Callable[[int], Sequence[str]] = random_numbers,
    ) -> None:
        self._clock = clock
        self._ids = ids
        self._numbers = numbers

    def generate_batch(self, size: int) -> list[Message]:
        """The clock is read once, so that `created_at` in value and header are equal."""
        created_at = utc_text(self._clock())
        return [Message(value.id, to_builtins(value), _headers(created_at)) for value in self._values(size, created_at)]

    def generate_records(self, size: int) -> list[ProducerRecord]:
        """As `generate_batch`, already serialized."""
        created_at = utc_text(self._clock())
        values = self._values(size, created_at)
        return encode_batch([value.id for value in values], values, _headers(created_at))

    def _values(self, size: int, created_at: str) -> list[Value]:
        numbered = zip(self._ids(size), self._numbers(size), strict=True)
        return [Value(identifier, "item_" + number, created_at) for identifier, number in numbered]


def _headers(created_at: str) -> dict[str, str]:
    return {"content-type": "application/json", "created_at": created_at}
