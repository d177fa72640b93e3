"""The state of the assigned partitions, and the offsets that may be committed. Does not depend on Kafka.

The invariant: an offset is committed only when every message before it is stored or dead-lettered.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from src.model.position import TopicPartition
from src.model.record import Record

_ASSIGNED = attrgetter("topic", "partition", "assignment")
_OFFSET = attrgetter("offset")


class Start(NamedTuple):
    """The group's committed offset in a newly assigned partition, as far as it is known."""

    committed: int | None = None
    topic_id: str | None = None
    """The id of the topic for which the offset was committed."""


class OutOfRange(NamedTuple):
    """The client found no message at this offset; None if it had none to begin with."""

    offset: int | None


@dataclass
class PartitionState:
    """One assigned partition. Offsets name the next message, as in Kafka."""

    number: int | None
    """The number of the assignment, which its records carry; None once its records are ignored."""
    settled: int | None
    """The offset after the highest settled record."""
    committed: int | None
    topic_id: str | None
    in_flight: dict[int, list[int]] = field(default_factory=dict)
    """The unsettled offsets of each batch, keyed by the first of them."""
    eof_offset: int | None = None
    """The end of the partition when it was last reached."""
    out_of_range: OutOfRange | None = None
    """To be handled before the next fetch."""
    gap: str | None = None
    """Why the partition is stopped until an operator intervenes; None while it is read."""
    commit_rejected: bool = False
    """Whether Kafka rejected the last commit."""
    error: str | None = None
    """The error that Kafka returned in place of messages."""

    @property
    def committable(self) -> int | None:
        """The offset before which every record is settled."""
        if self.settled is None or not self.in_flight:
            return self.settled
        return min(self.settled, *self.in_flight)

    def settle(self, offsets: Sequence[int]) -> None:
        if offsets[0] not in self.in_flight:
            return
        in_flight = self.in_flight.pop(offsets[0])
        if in_flight != offsets:
            done = frozenset(offsets)
            if rest := [offset for offset in in_flight if offset not in done]:
                self.in_flight[rest[0]] = rest
        self.settled = max(offsets[-1] + 1, self.settled or 0)


class Assignment:
    """The partitions assigned now. Records of an earlier assignment of the same partition are ignored.

    Changed by the thread that polls; `owns`, `commits_rejected`, `gaps` and `errors` are safe from any thread.
    """

    def __init__(self) -> None:
        self._states: dict[TopicPartition, PartitionState] = {}
        self._number = 0
        self.topic_ids: dict[str, str] = {}
        """By topic, the id of the topic that is read; also while no partition of it is assigned."""

    def __contains__(self, partition: TopicPartition) -> bool:
        return partition in self._states

    def __getitem__(self, partition: TopicPartition) -> PartitionState:
        return self._states[partition]

    @property
    def partitions(self) -> Sequence[TopicPartition]:
        return tuple(self._states)

    @property
    def readable(self) -> Mapping[TopicPartition, int]:
        """The partitions that are not stopped at a gap, each with the number for its records; 0 is never owned."""
        return {partition: state.number or 0 for partition, state in self._states.items() if state.gap is None}

    @property
    def gaps(self) -> Mapping[TopicPartition, str]:
        """The stopped partitions, each with the reason."""
        return {partition: state.gap for partition, state in tuple(self._states.items()) if state.gap is not None}

    @property
    def errors(self) -> Mapping[TopicPartition, str]:
        """What Kafka returned in place of messages."""
        return {partition: state.error for partition, state in tuple(self._states.items()) if state.error is not None}

    def clear_errors(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            self._states[partition].error = None

    # -- assigned and revoked partitions

    def assign(self, starts: Mapping[TopicPartition, Start]) -> None:
        """Add partitions, or replace their state. Their records get a new number; older ones are ignored."""
        self._number += 1
        for partition, start in starts.items():
            self._states[partition] = PartitionState(self._number, start.committed, start.committed, start.topic_id)

    def revoke(self, partitions: Iterable[TopicPartition]) -> None:
        """Remove partitions. Their new owner reads again what was not committed."""
        for partition in partitions:
            self._states.pop(partition, None)

    def owns(self, record: Record) -> bool:
        state = self._states.get(record.topic_partition)
        return state is not None and state.number == record.assignment

    # -- records in flight

    def track(self, records: Sequence[Record]) -> Sequence[Record]:
        """Mark records as in flight: no offset after the first of them may be committed. Returns those still owned."""
        owned = 0
        for state, offsets in self._owned_offsets(records):
            state.in_flight[offsets[0]] = offsets
            owned += len(offsets)
        return records if owned == len(records) else [record for record in records if self.owns(record)]

    def settle(self, records: Iterable[Record]) -> None:
        """Mark records as stored or dead-lettered. They are a batch as it was tracked, or the next part of one."""
        for state, offsets in self._owned_offsets(records):
            state.settle(offsets)

    def advance_to_eof(self) -> None:
        """While nothing is in flight, advance over offsets without a message, such as transaction markers."""
        for state in self._states.values():
            if state.eof_offset is not None and state.number is not None and not state.in_flight:
                state.settled = max(state.eof_offset, state.settled or 0)

    def skip_to(self, partition: TopicPartition, offset: int) -> None:
        """Continue at this offset, after a gap that has been logged. It is due, so that the gap is logged only once."""
        state = self._states[partition]
        state.settled, state.committed = offset, None

    def discard(self, partitions: Iterable[TopicPartition]) -> None:
        """Forget the offsets of these partitions: they must not be committed for the recreated topic."""
        for partition in partitions:
            state = self._states[partition]
            state.number = state.settled = state.committed = None
            state.in_flight.clear()

    # -- offsets to commit

    def position(self, partition: TopicPartition) -> int | None:
        """The next offset to be settled; None while it is unknown."""
        state = self._states.get(partition)
        return None if state is None else state.committable

    def due(self, partitions: Collection[TopicPartition] | None = None) -> dict[TopicPartition, int]:
        """The offsets that may be committed and are not committed yet, for these partitions or for all."""
        return {
            partition: state.committable
            for partition, state in self._states.items()
            if (partitions is None or partition in partitions)
            and state.committable is not None
            and state.committable != state.committed
        }

    def confirm(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Record that Kafka has committed these offsets."""
        for partition, offset in offsets.items():
            if partition in self._states:
                self._states[partition].committed = offset
                self._states[partition].commit_rejected = False

    def reject(self, partitions: Iterable[TopicPartition]) -> None:
        """Kafka has rejected a commit for these, which stays due."""
        for partition in partitions:
            if partition in self._states:
                self._states[partition].commit_rejected = True

    def commits_rejected(self, record: Record) -> bool:
        state = self._states.get(record.topic_partition)
        return state is not None and state.commit_rejected

    def _owned_offsets(self, records: Iterable[Record]) -> Iterator[tuple[PartitionState, list[int]]]:
        """Per partition, and without a call per record, because this runs twice for every message."""
        offsets: defaultdict[tuple[str, int, int], list[int]] = defaultdict(list)
        for assigned, run in groupby(records, _ASSIGNED):
            offsets[assigned].extend(map(_OFFSET, run))
        for (topic, partition, number), numbers in offsets.items():
            state = self._states.get(TopicPartition(topic, partition))
            if state is not None and state.number == number:
                yield state, numbers
