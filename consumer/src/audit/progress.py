"""How far the group has read the topic."""

from collections.abc import Mapping
from dataclasses import dataclass

from src.kafka.topic_reader import OffsetRange


@dataclass(frozen=True)
class Progress:
    """By partition: the group's committed offset, and the offsets that are in the topic."""

    committed: Mapping[int, int | None]
    available: Mapping[int, OffsetRange]

    @property
    def settled(self) -> dict[int, OffsetRange]:
        """What the group has committed and the topic still has."""
        return {
            partition: OffsetRange(available.first, min(available.end, self.committed[partition] or 0))
            for partition, available in self.available.items()
        }

    @property
    def pending(self) -> dict[int, OffsetRange]:
        return {
            partition: OffsetRange(max(available.first, self.committed[partition] or 0), available.end)
            for partition, available in self.available.items()
        }
