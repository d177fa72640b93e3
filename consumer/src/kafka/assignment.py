"""What may be committed. No Kafka here, so that the law can be tested by itself.

The law: an offset is committed only when every message before it is stored or dead-lettered.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from src.model.record import Record


@dataclass
class _Progress:
    """How far one owned partition is. Offsets name the next message, as in Kafka."""

    assignment: int
    settled: int | None
    committed: int | None
    in_hand: dict[int, list[int]] = field(default_factory=dict)
    """The offsets of each batch that are not settled, by the first of them."""

    @property
    def committable(self) -> int | None:
        """The end of what is settled without a gap."""
        if self.settled is None or not self.in_hand:
            return self.settled
        return min(self.settled, *self.in_hand)

    def settle(self, offsets: Sequence[int]) -> None:
        done = frozenset(offsets)
        if rest := [offset for offset in self.in_hand.pop(offsets[0]) if offset not in done]:
            self.in_hand[rest[0]] = rest
        self.settled = max(offsets[-1] + 1, self.settled or 0)


class OffsetTracker:
    """Follows the records of the partitions owned now; records of any other assignment count for nothing."""

    def __init__(self) -> None:
        self._owned: dict[int, _Progress] = {}

    @property
    def partitions(self) -> Collection[int]:
        return tuple(self._owned)

    def assign(self, partition: int, assignment: int, committed: int | None = None) -> None:
        """The partition is ours from now on; its records carry this assignment's number."""
        self._owned[partition] = _Progress(assignment, settled=committed, committed=committed)

    def revoke(self, partition: int) -> None:
        """The partition is no longer ours: what was not committed is its next owner's."""
        self._owned.pop(partition, None)

    def owns(self, record: Record) -> bool:
        """Safe from any thread."""
        progress = self._owned.get(record.partition)
        return progress is not None and progress.assignment == record.assignment

    def take(self, records: Iterable[Record]) -> None:
        """These are in hand: nothing from them on may be committed until they are settled."""
        for progress, offsets in self._offsets(records):
            progress.in_hand[offsets[0]] = offsets

    def settle(self, records: Iterable[Record]) -> None:
        """Each of these is stored or dead-lettered: a batch as it was taken, or the next part of one."""
        for progress, offsets in self._offsets(records):
            if offsets[0] in progress.in_hand:
                progress.settle(offsets)

    def reach(self, positions: Mapping[int, int]) -> None:
        """So far all was read, and each message of it taken: where none is in hand, no message is left before."""
        for partition, position in positions.items():
            progress = self._owned.get(partition)
            if progress is not None and not progress.in_hand:
                progress.settled = max(position, progress.settled or 0)

    def skip_to(self, partition: int, offset: int) -> None:
        """What lies before and was not taken is gone, and that was said: to be committed, so that it is said once."""
        progress = self._owned[partition]
        progress.settled, progress.committed = offset, None

    def position(self, partition: int) -> int | None:
        """The next offset to be settled; None while nothing is known of it."""
        progress = self._owned.get(partition)
        return None if progress is None else progress.committable

    def due(self, partitions: Collection[int] | None = None) -> dict[int, int]:
        """The offsets that may be committed and are not yet, of these partitions or of all."""
        return {
            partition: progress.committable
            for partition, progress in self._owned.items()
            if (partitions is None or partition in partitions)
            and progress.committable is not None
            and progress.committable != progress.committed
        }

    def confirm(self, offsets: Mapping[int, int]) -> None:
        """Kafka has these commits."""
        for partition, offset in offsets.items():
            if partition in self._owned:
                self._owned[partition].committed = offset

    def _offsets(self, records: Iterable[Record]) -> list[tuple[_Progress, list[int]]]:
        """Those of each partition that is still ours."""
        offsets: defaultdict[int, list[int]] = defaultdict(list)
        for record in records:
            if self.owns(record):
                offsets[record.partition].append(record.offset)
        return [(self._owned[partition], numbers) for partition, numbers in offsets.items()]
