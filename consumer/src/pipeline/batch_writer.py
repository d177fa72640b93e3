"""Settles records batch by batch: each is stored, or written to the dead-letter topic."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from threading import Event
from typing import NamedTuple

from src.model.errors import DEAD_LETTER_STORM, StorageUnavailable, Unavailable
from src.model.position import TopicPartition
from src.model.record import Record, Rejection
from src.pipeline.circuit_breaker import WINDOW
from src.pipeline.dead_letter_writer import DeadLetters, DeadLetterWriter
from src.pipeline.ownership import Ownership
from src.pipeline.retry import Retrier
from src.pipeline.storage_writer import Batch, Processor, Storage, StorageWriter
from src.pipeline.storm_guard import StormGuard

PROBE_INTERVAL = 10.0  # seconds
MAX_BACKOFF = 5.0  # seconds


@dataclass(frozen=True)
class WriterOptions:
    """`max_retries` is for a message that fails for an unknown reason. Intervals are in seconds."""

    max_retries: int
    storm_percent: int = 100
    """A larger share of dead letters among the last `storm_window` messages of a partition is a storm; 100 allows any
    share."""
    storm_window: int = WINDOW
    probe_interval: float = PROBE_INTERVAL
    max_backoff: float = MAX_BACKOFF


class Result(NamedTuple):
    """`records` are the settled ones of a batch: all of them, but for those that a dead-letter storm holds back."""

    records: Sequence[Record]
    stored: Sequence[Record]
    duplicates: int
    skipped: int
    rejections: Sequence[Rejection]
    storage_seconds: float
    finished: float
    """Seconds since 1970."""


class BatchWriter:
    """Stores or dead-letters one batch at a time.

    While the store or the dead-letter topic is unavailable, `write` retries for as long as it takes. `blocked_by` says
    why it makes no progress, and `on_retry` is called with the cause of each retry. A message that is no
    longer owned is not dead-lettered: its new owner settles it.
    """

    guard: type[StormGuard] = StormGuard

    def __init__(
        self,
        processor: Processor,
        storage: Storage,
        dead_letters: DeadLetters,
        ownership: Ownership,
        options: WriterOptions,
        *,
        stop: Event,
        on_retry: Callable[[str], object] = str,
        clock: Callable[[], float] = time.time,
        monotonic_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._ownership = ownership
        self._clock = clock
        self._retrier = Retrier(stop, max_backoff=options.max_backoff, on_retry=on_retry)
        self._storage_writer = StorageWriter(
            processor,
            storage,
            self._retrier,
            max_retries=options.max_retries,
            ownership=ownership,
            clock=clock,
        )
        self.storm_guard = self.guard(
            ownership,
            limit=options.storm_percent,
            window=options.storm_window,
            probe_interval=options.probe_interval,
            clock=monotonic_clock,
        )
        self._dead_letter_writer = DeadLetterWriter(dead_letters, self._retrier, ownership)
        self.store_reached = False
        """Whether a call to the store has succeeded since the start. Safe to read from any thread."""

    @property
    def blocked_by(self) -> Unavailable | None:
        """Why the writer makes no progress; None while it does. Safe to read from any thread."""
        return self._retrier.unavailable

    @property
    def waiting(self) -> bool:
        """Whether the writer waits, perhaps for long, for a dependency to recover or for commits to be accepted."""
        return self._retrier.unavailable is not None or self._dead_letter_writer.holding

    @property
    def writing_dead_letters(self) -> bool:
        """Whether dead letters are being written for the first time, which ends within seconds."""
        return self._dead_letter_writer.writing and not self.waiting

    def prepare(self) -> None:
        """Wait until the store is available, and create its indexes. Raises WriterStopped."""
        self._retrier.retry_until_available(self._storage.ping)
        self.store_reached = True
        self._retrier.retry_until_available(self._storage.ensure_indexes)

    def ping(self) -> None:
        """Ping the store, so that an outage is detected before a message arrives."""
        try:
            self._storage.ping()
        except StorageUnavailable as error:
            self._retrier.mark_unavailable(error)
        else:
            self._retrier.mark_available()

    def write(self, records: Sequence[Record]) -> Iterator[Result]:
        """Settle the records, and what a storm has held back and may be tried now. Raises WriterStopped.

        Of a partition in a dead-letter storm only a few records are settled at a time; the guard keeps the others.
        """
        yield from self._write(records)
        for partition in self.storm_guard.due_partitions():
            self._retrier.on_retry(DEAD_LETTER_STORM)
            yield from self._probe(partition)

    def stop(self) -> None:
        """End all waits: a batch that would have to wait from now on is not settled."""
        self._retrier.stop()

    def _write(self, records: Sequence[Record], stored: Collection[int] = ()) -> Iterator[Result]:
        if records := self.storm_guard.hold_back(records):
            batch = self._storage_writer.write(records, stored)
            yield self._settle(batch, self.storm_guard.admit(batch))

    def _probe(self, partition: TopicPartition) -> Iterator[Result]:
        """Attempt a few messages as if for the first time: the cause may be fixed, or the storm may be over."""
        while (probe := self.storm_guard.next_probe(partition))[0]:
            batch = self._storage_writer.write(*probe)
            self.storm_guard.record_probe(partition, batch)
            yield self._settle(batch)
            if ended := self.storm_guard.ended(partition):
                for records in ended.held:
                    yield from self._write(records, ended.stored)

    def _settle(self, batch: Batch, held: Collection[int] = ()) -> Result:
        """Dead-letter the rejected ones of the records that are not held back."""
        rejections = [batch.rejections[index] for index in sorted(batch.rejections) if index not in held]
        return Result(
            records=_without(batch.records, held),
            stored=_without(batch.records, batch.duplicates.union(batch.skipped, batch.rejections, held)),
            duplicates=len(batch.duplicates.difference(held)),
            skipped=len(batch.skipped.difference(held)),
            rejections=self._dead_letter_writer.write(rejections),
            storage_seconds=batch.storage_seconds,
            finished=self._clock(),
        )


def _without(records: Sequence[Record], indexes: Collection[int]) -> Sequence[Record]:
    return [each for index, each in enumerate(records) if index not in indexes] if indexes else records
