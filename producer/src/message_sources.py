"""Where the producer's loop gets its records from."""

from collections.abc import Sequence
from typing import Protocol

from src.data_generator import DataGenerator
from src.model.message import ProducerRecord


class MessageSource(Protocol):
    @property
    def exhausted(self) -> bool: ...

    def next_batch(self, size: int) -> Sequence[ProducerRecord]:
        """Up to `size` records, without waiting for them."""


class GeneratedMessages:
    """`count` generated messages, or an unlimited number."""

    def __init__(self, generator: DataGenerator, count: int | None = None) -> None:
        self._generator = generator
        self._left = count

    @property
    def exhausted(self) -> bool:
        return self._left == 0

    def next_batch(self, size: int) -> list[ProducerRecord]:
        if self._left is not None:
            size = min(size, self._left)
            self._left -= size
        return self._generator.generate_records(size)
