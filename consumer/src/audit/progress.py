"""How far the group has read the topic."""

from collections.abc import Mapping
from dataclasses import dataclass

from src.kafka.topic_reader import OffsetRange


@dataclass(frozen=True)
class Progress:
    """By partition: the group's committed offset, the offsets that are in the topic, and the first that counts."""

    committed: Mapping[int, int | None]
    available: Mapping[int, OffsetRange]
    first: Mapping[int, int]

    @property
    def settled(self) -> dict[int, OffsetRange]:
        """What the group has committed and the topic still has."""
        return {
            partition: OffsetRange(self.first[partition], min(available.end, self.committed[partition] or 0))
            for partition, available in self.available.items()
        }

    @property
    def pending(self) -> dict[int, OffsetRange]:
        return {
            partition: OffsetRange(max(self.first[partition], self.committed[partition] or 0), available.end)
            for partition, available in self.available.items()
        }

    @property
    def left_out(self) -> int:
        """The number of offsets that are in the topic and do not count."""
        return sum(self.first[partition] - available.first for partition, available in self.available.items())
