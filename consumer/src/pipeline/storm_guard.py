"""Holds a partition's messages back during a dead-letter storm, and lets a few through at intervals to see whether it
has ended. The other partitions are not affected."""

import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Protocol

from src.model.errors import DeadLetterStorm
from src.model.position import TopicPartition
from src.model.record import Record, Rejection, total_bytes
from src.pipeline.circuit_breaker import CircuitBreaker
from src.pipeline.ownership import Ownership

logger = logging.getLogger(__name__)

PROBE_SIZE = 10  # messages that are attempted at a time
MAX_HELD_BYTES = 64 * 1024 * 1024  # of messages in memory; with more, no partition is fetched
RECORD_BYTES = 1024  # of memory for a record beside its value


class Batch(Protocol):
    """Records that were attempted, and what became of each by its index: those that are not mentioned are stored."""

    @property
    def records(self) -> Sequence[Record]: ...

    @property
    def duplicates(self) -> AbstractSet[int]: ...

    @property
    def skipped(self) -> AbstractSet[int]: ...

    @property
    def rejections(self) -> Mapping[int, Rejection]: ...


@dataclass
class Storm:
    """The storm in one partition, under one assignment of it."""

    error: DeadLetterStorm
    next_probe: float
    latest: Record
    """Of the partition: it tells whether the partition is still assigned."""
    held: deque[Sequence[Record]] = field(default_factory=deque)
    """What is left of each batch, in order."""
    stored: frozenset[int] = frozenset()
    """The offsets of held messages that are stored already: they came behind the dead letter that began the storm."""
    held_bytes: int = 0

    def hold(self, records: Sequence[Record]) -> None:
        self.held.append(records)
        self.held_bytes += _size(records)
        self.latest = records[-1]

    def take(self, limit: int) -> Sequence[Record]:
        """The next messages, all of them from one batch."""
        if not self.held:
            return []
        batch = self.held.popleft()
        if rest := batch[limit:]:
            self.held.appendleft(rest)
        taken = batch[:limit]
        self.held_bytes -= _size(taken)
        return taken


class StormGuard:
    """A storm begins when the circuit breaker of a partition opens, and ends when it closes or nothing is held back.

    Meanwhile the partition's messages are settled in probes, in order: after a probe with too many dead letters the
    next one waits for `probe_interval` seconds, after any other it follows at once. A breaker exists while there are
    dead letters in its window, so that an ordinary message is not counted at all.

    Used by the writer; `failures`, `held`, `due` and `full` are safe to read from any thread.
    """

    def __init__(
        self,
        ownership: Ownership,
        *,
        limit: int,
        window: int,
        probe_interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ownership = ownership
        self._limit = limit
        self._window = window
        self._probe_interval = probe_interval
        self._clock = clock
        self._breakers: dict[TopicPartition, CircuitBreaker] = {}
        self._storms: dict[TopicPartition, Storm] = {}

    # -- for the loop

    @property
    def failures(self) -> Mapping[TopicPartition, DeadLetterStorm]:
        """The partitions in a storm, each with the reason."""
        return {partition: storm.error for partition, storm in tuple(self._storms.items())}

    @property
    def held(self) -> frozenset[TopicPartition]:
        """The partitions of which messages are held back: no more should be fetched."""
        return frozenset(partition for partition, storm in tuple(self._storms.items()) if storm.held)

    @property
    def due(self) -> bool:
        """Whether a probe is due, or a partition in a storm has been revoked."""
        return any(self._is_due(storm) or not self._owns(storm) for storm in tuple(self._storms.values()))

    @property
    def full(self) -> bool:
        """Whether so much is held back that no more may be fetched of any partition."""
        return sum(storm.held_bytes for storm in tuple(self._storms.values())) > MAX_HELD_BYTES

    # -- for ordinary batches

    def hold_back(self, records: Sequence[Record]) -> Sequence[Record]:
        """Returns those that may be attempted now. The others wait behind what is held back of their partition."""
        stormy = {partition for partition, breaker in self._breakers.items() if breaker.open}
        if not stormy:
            return records
        behind: defaultdict[TopicPartition, list[Record]] = defaultdict(list)
        others: list[Record] = []
        for record in records:
            partition = self._partition(record)
            (behind[partition] if partition in stormy else others).append(record)
        for partition, held in behind.items():
            self._hold(partition, held)
        return others

    def admit(self, batch: Batch) -> Collection[int]:
        """Count the messages of a batch. Returns the indexes of those that are held back from now on: a dead letter
        that begins a storm in its partition, and what is behind it."""
        if not batch.rejections and not self._breakers:
            return ()
        held: set[int] = set()
        for partition, indexes in self._counted(batch).items():
            breaker = self._breakers.setdefault(partition, CircuitBreaker(self._limit, self._window))
            admitted = breaker.admit([index in batch.rejections for index in indexes])
            if breaker.open:
                self._begin(partition, batch, indexes, admitted)
                held.update(indexes[admitted:])
            self._forget_if_without_dead_letters(partition)
        return held

    # -- for probes

    def due_partitions(self) -> list[TopicPartition]:
        """The partitions to be probed now. Forgets those that were revoked, and those of which nothing is held back."""
        for partition, storm in tuple(self._storms.items()):
            if not self._owns(storm) or (self._is_due(storm) and not storm.held):
                del self._storms[partition]
        return [partition for partition, storm in self._storms.items() if self._is_due(storm)]

    def next_probe(self, partition: TopicPartition) -> tuple[Sequence[Record], frozenset[int]]:
        """No messages if it must wait, else those of the next probe; and the offsets of those stored already."""
        storm = self._storms.get(partition)
        if storm is None or not self._is_due(storm):
            return (), frozenset()
        return storm.take(PROBE_SIZE), storm.stored

    def record_probe(self, partition: TopicPartition, batch: Batch) -> None:
        """Count the messages of a probe. All of them are settled, so that those behind them are reached."""
        breaker, storm = self._breakers[partition], self._storms[partition]
        for index in range(len(batch.records)):
            breaker.count(index in batch.rejections)
        if breaker.open and breaker.exceeded_by(len(batch.rejections), len(batch.records)):
            storm.error = self._error(partition, batch.rejections.values())
            storm.next_probe = self._clock() + self._probe_interval

    def ended(self, partition: TopicPartition) -> Storm | None:
        """The storm with what is still held back, if it has ended."""
        if partition not in self._storms or self._breakers[partition].open:
            return None
        logger.info("dead-letter storm ended", extra=_fields(partition))
        self._forget_if_without_dead_letters(partition)
        return self._storms.pop(partition)

    def _partition(self, record: Record) -> TopicPartition:
        return record.topic_partition

    def _counted(self, batch: Batch) -> Mapping[TopicPartition, list[int]]:
        """The indexes of the messages by partition, where any of the latest is a dead letter."""
        counted = self._breakers.keys() | {self._partition(each.record) for each in batch.rejections.values()}
        indexes: defaultdict[TopicPartition, list[int]] = defaultdict(list)
        for index, record in enumerate(batch.records):
            if (partition := self._partition(record)) in counted:
                indexes[partition].append(index)
        return indexes

    def _begin(self, partition: TopicPartition, batch: Batch, indexes: Sequence[int], admitted: int) -> None:
        behind = indexes[admitted:]
        error = self._error(partition, [batch.rejections[index] for index in behind if index in batch.rejections])
        logger.error("dead-letter storm", extra={**_fields(partition), "cause": error.cause, "reason": str(error)})
        storm = Storm(error, self._clock() + self._probe_interval, batch.records[indexes[-1]])
        if behind:
            not_stored = batch.duplicates | batch.skipped | batch.rejections.keys()
            storm.stored = frozenset(batch.records[index].offset for index in behind if index not in not_stored)
            storm.hold([batch.records[index] for index in behind])
        self._storms[partition] = storm

    def _hold(self, partition: TopicPartition, records: Sequence[Record]) -> None:
        """Where the breaker is open, but nothing was held back under this assignment, a probe is due at once."""
        storm = self._storms.get(partition)
        if storm is None or storm.latest.assignment != records[0].assignment:
            storm = Storm(self._error(partition, ()), self._clock(), records[0])
        storm.hold(records)
        self._storms[partition] = storm

    def _forget_if_without_dead_letters(self, partition: TopicPartition) -> None:
        if not self._breakers[partition].dead_letters:
            del self._breakers[partition]

    def _is_due(self, storm: Storm) -> bool:
        return self._clock() >= storm.next_probe

    def _owns(self, storm: Storm) -> bool:
        return self._ownership.owns(storm.latest)

    def _error(self, partition: TopicPartition, rejections: Iterable[Rejection]) -> DeadLetterStorm:
        reasons = Counter(rejection.reason for rejection in rejections).most_common(1)
        most_common = "".join(f", currently mostly for {reason}" for reason, _ in reasons)
        breaker = self._breakers[partition]
        return DeadLetterStorm(
            f"{breaker.dead_letters:,} of the last {breaker.window:,} messages of {partition} would be dead-lettered"
            f"{most_common} ({breaker.limit} % is allowed); set consumer.dead_letter_storm_percent to 100 to let them"
            " through"
        )


def _fields(partition: TopicPartition) -> Mapping[str, object]:
    return {"topic": partition.topic, "partition": partition.partition}


def _size(records: Sequence[Record]) -> int:
    return total_bytes(records) + RECORD_BYTES * len(records)
