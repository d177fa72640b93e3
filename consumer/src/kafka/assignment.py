"""What is known of the assigned partitions, and what may be committed. No Kafka here: the law can be tested by itself.

The law: an offset is committed only when every message before it is stored or dead-lettered.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from src.model.record import Record


class Start(NamedTuple):
    """Where the group stands in a partition that is assigned, as far as it is known."""

    committed: int | None = None
    topic_id: str | None = None
    """The topic whose messages the committed offset counts."""


class OutOfRange(NamedTuple):
    """The client found no message at this offset; None if it had none to begin with."""

    offset: int | None


@dataclass
class PartitionState:
    """One assigned partition. Offsets name the next message, as in Kafka."""

    number: int | None
    """The assignment's, which its records carry; None once no record of it counts any more."""
    settled: int | None
    """The end of what was settled last."""
    committed: int | None
    topic_id: str | None
    in_flight: dict[int, list[int]] = field(default_factory=dict)
    """The unsettled offsets of each batch, by the first of them."""
    eof_offset: int | None = None
    """Where the partition ended when all of it had been read."""
    out_of_range: OutOfRange | None = None
    """To be handled before the next fetch."""
    gap: str | None = None
    """Why it is stopped until an operator decides; None while it is read."""
    commit_rejected: bool = False
    """Whether Kafka rejected the last commit."""
    error: str | None = None
    """What Kafka returned in place of its messages."""

    @property
    def committable(self) -> int | None:
        """The end of what is settled without a gap."""
        if self.settled is None or not self.in_flight:
            return self.settled
        return min(self.settled, *self.in_flight)

    def settle(self, offsets: Sequence[int]) -> None:
        if offsets[0] not in self.in_flight:
            return
        done = frozenset(offsets)
        if rest := [offset for offset in self.in_flight.pop(offsets[0]) if offset not in done]:
            self.in_flight[rest[0]] = rest
        self.settled = max(offsets[-1] + 1, self.settled or 0)


class Assignment:
    """The partitions assigned now. Records of an earlier assignment of the same partition are ignored.

    Changed by the thread that polls; `owns`, `commits_rejected`, `gaps` and `errors` are safe from any thread.
    """

    def __init__(self) -> None:
        self._states: dict[int, PartitionState] = {}
        self._number = 0

    def __contains__(self, partition: int) -> bool:
        return partition in self._states

    def __getitem__(self, partition: int) -> PartitionState:
        return self._states[partition]

    @property
    def partitions(self) -> Sequence[int]:
        return tuple(self._states)

    @property
    def readable(self) -> Sequence[int]:
        """Those that are not stopped at a gap."""
        return [partition for partition, state in self._states.items() if state.gap is None]

    @property
    def gaps(self) -> Mapping[int, str]:
        """The partitions that are stopped, each with its reason."""
        return {partition: state.gap for partition, state in tuple(self._states.items()) if state.gap is not None}

    @property
    def errors(self) -> Sequence[str]:
        return [state.error for state in tuple(self._states.values()) if state.error is not None]

    def clear_errors(self) -> None:
        for state in self._states.values():
            state.error = None

    # -- what the group decides

    def assign(self, starts: Mapping[int, Start]) -> None:
        """These are assigned, or assigned anew: their records carry a new number, and those of an older one do not
        count any more."""
        self._number += 1
        for partition, start in starts.items():
            self._states[partition] = PartitionState(self._number, start.committed, start.committed, start.topic_id)

    def revoke(self, partitions: Iterable[int]) -> None:
        """These belong to another member: what was not committed is read again there."""
        for partition in partitions:
            self._states.pop(partition, None)

    def owns(self, record: Record) -> bool:
        state = self._states.get(record.partition)
        return state is not None and state.number == record.assignment

    # -- what becomes of the records

    def track(self, records: Sequence[Record]) -> list[Record]:
        """Returns those that are still owned. They are in flight: no offset from them on may be committed."""
        owned = [record for record in records if self.owns(record)]
        for state, offsets in self._offsets_by_partition(owned):
            state.in_flight[offsets[0]] = offsets
        return owned

    def settle(self, records: Iterable[Record]) -> None:
        """Each of these is stored or dead-lettered: a batch as it was tracked, or the next part of one."""
        for state, offsets in self._offsets_by_partition(filter(self.owns, records)):
            state.settle(offsets)

    def advance_to_eof(self) -> None:
        """Pass what was read and is no message, as a transaction's marker: with nothing in flight, all is settled."""
        for state in self._states.values():
            if state.eof_offset is not None and state.number is not None and not state.in_flight:
                state.settled = max(state.eof_offset, state.settled or 0)

    def skip_to(self, partition: int, offset: int) -> None:
        """What lies before and was not tracked is gone, as the log says: due, so that it is reported once."""
        state = self._states[partition]
        state.settled, state.committed = offset, None

    def discard(self, partitions: Iterable[int]) -> None:
        """The topic was recreated: what was read of these partitions must not be committed for the new one."""
        for partition in partitions:
            state = self._states[partition]
            state.number = state.settled = state.committed = None
            state.in_flight.clear()

    # -- what may be committed

    def position(self, partition: int) -> int | None:
        """The next offset to be settled; None while it is unknown."""
        state = self._states.get(partition)
        return None if state is None else state.committable

    def due(self, partitions: Collection[int] | None = None) -> dict[int, int]:
        """The offsets that may be committed and are not yet, of these partitions or of all."""
        return {
            partition: state.committable
            for partition, state in self._states.items()
            if (partitions is None or partition in partitions)
            and state.committable is not None
            and state.committable != state.committed
        }

    def confirm(self, offsets: Mapping[int, int]) -> None:
        """Kafka has committed these."""
        for partition, offset in offsets.items():
            if partition in self._states:
                self._states[partition].committed = offset
                self._states[partition].commit_rejected = False

    def reject(self, partitions: Iterable[int]) -> None:
        """Kafka has rejected a commit for these, which stays due."""
        for partition in partitions:
            if partition in self._states:
                self._states[partition].commit_rejected = True

    def commits_rejected(self, record: Record) -> bool:
        state = self._states.get(record.partition)
        return state is not None and state.commit_rejected

    def _offsets_by_partition(self, records: Iterable[Record]) -> list[tuple[PartitionState, list[int]]]:
        offsets: defaultdict[int, list[int]] = defaultdict(list)
        for record in records:
            offsets[record.partition].append(record.offset)
        return [(self._states[partition], numbers) for partition, numbers in offsets.items()]
