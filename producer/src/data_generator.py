"""Generates the messages. To change their structure or content, change `_message`."""

import os
import random
import time
from collections.abc import Callable, Sequence

from src.model.message import Message
from src.utils.text import utc_text

SOURCE = "system-a"
VERSION = "1.0.0"


def random_ids(count: int) -> list[str]:
    """Version 4 UUIDs from a single call to `os.urandom`, several times faster than `uuid.uuid4` for each."""
    digits = os.urandom(16 * count).hex()
    return [_uuid4(digits[start : start + 32]) for start in range(0, 32 * count, 32)]


def _uuid4(digits: str) -> str:
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


class DataGenerator:
    """Deterministic for a given clock, id source and random number source."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        ids: Callable[[int], Sequence[str]] = random_ids,
        random_number: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._ids = ids
        self._random_number = random_number

    def generate_batch(self, size: int) -> list[Message]:
        """The clock is read once, so that `created_at` in value and header are equal."""
        created_at = utc_text(self._clock())
        return [self._message(identifier, created_at) for identifier in self._ids(size)]

    def _message(self, identifier: str, created_at: str) -> Message:
        return Message(
            key=identifier,
            value={
                "id": identifier,
                "name": f"item_{int(self._random_number() * 100_000_000):08d}",
                "created_at": created_at,
                "metadata": {"source": SOURCE, "version": VERSION},
            },
            headers={"content-type": "application/json", "created_at": created_at},
        )
