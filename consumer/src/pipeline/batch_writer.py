"""Settles records batch by batch: each is stored, or written to the dead-letter topic."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import NamedTuple

from src.model.errors import StorageUnavailable, Unavailable
from src.model.record import Record, Rejection
from src.pipeline.circuit_breaker import WINDOW, CircuitBreaker
from src.pipeline.dead_letter_writer import DeadLetters, DeadLetterWriter
from src.pipeline.ownership import Ownership
from src.pipeline.retry import Retrier
from src.pipeline.storage_writer import Batch, Processor, Storage, StorageWriter
from src.pipeline.storm_guard import StormGuard

PROBE_SIZE = 10  # messages that are attempted at a time in a dead-letter storm
PROBE_INTERVAL = 10.0  # seconds
MAX_BACKOFF = 5.0  # seconds


@dataclass(frozen=True)
class WriterOptions:
    """`max_retries` is for a message that fails for an unknown reason. Intervals are in seconds."""

    max_retries: int
    storm_percent: int = 100
    """A larger share of dead letters among the last `storm_window` messages is a storm; 100 allows any share."""
    storm_window: int = WINDOW
    probe_interval: float = PROBE_INTERVAL
    max_backoff: float = MAX_BACKOFF


class Result(NamedTuple):
    """`records` are the settled ones of a batch: all of them, or in a dead-letter storm the first few."""

    records: Sequence[Record]
    stored: Sequence[Record]
    duplicates: int
    skipped: int
    rejections: Sequence[Rejection]
    storage_seconds: float
    finished: float
    """Seconds since 1970."""
    unsettled: Sequence[Record] = ()
    """The rest of the batch, to be written next."""


class BatchWriter:
    """Stores or dead-letters one batch at a time.

    While the store or the dead-letter topic is unavailable, `write` retries for as long as it takes. `blocked_by` says
    why it makes no progress, and `on_retry` is called with the cause of each retry. A message that is no
    longer owned is not dead-lettered: its new owner settles it.
    """

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
        self._storm_guard = StormGuard(
            CircuitBreaker(options.storm_percent, options.storm_window),
            self._retrier,
            probe_interval=options.probe_interval,
        )
        self._dead_letter_writer = DeadLetterWriter(dead_letters, self._retrier, ownership)
        self.store_reached = False
        """Whether a call to the store has succeeded since the start. Safe to read from any thread."""

    @property
    def blocked_by(self) -> Unavailable | None:
        """Why the writer makes no progress; None while it does. Safe to read from any thread."""
        return self._retrier.unavailable or self._storm_guard.storm

    @property
    def waiting(self) -> bool:
        """Whether the writer waits, perhaps for long: for a dependency to recover, or for the next probe of a storm."""
        return self._retrier.unavailable is not None or self._storm_guard.waiting or self._dead_letter_writer.holding

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

    def write(self, records: Sequence[Record]) -> Result:
        """Settle the records. Raises WriterStopped.

        In a dead-letter storm only the first few are settled, after a wait; no state is kept for the `unsettled` ones.
        """
        self._storm_guard.wait_for_next_probe()
        return self._write_probe(records) if self._storm_guard.probing else self._write_batch(records)

    def stop(self) -> None:
        """End all waits: a batch that would have to wait from now on is not settled."""
        self._retrier.stop()

    def _write_batch(self, records: Sequence[Record]) -> Result:
        batch = self._storage_writer.write(records)
        admitted = self._storm_guard.admit(batch.rejections, len(batch.records))
        return self._settle(batch, admitted)

    def _write_probe(self, records: Sequence[Record]) -> Result:
        """Attempt the first few as if for the first time: the cause may be fixed, or the storm may be over."""
        assigned = [record for record in records if self._ownership.owns(record)]
        batch = self._storage_writer.write(assigned[:PROBE_SIZE])
        self._storm_guard.record_probe(batch.rejections, len(batch.records))
        return self._settle(batch, len(batch.records), assigned[PROBE_SIZE:])

    def _settle(self, batch: Batch, admitted: int, not_tried: Sequence[Record] = ()) -> Result:
        """Dead-letter the rejected ones of the admitted records."""
        settled = batch.records[:admitted]
        rejections = [batch.rejections[index] for index in sorted(batch.rejections) if index < admitted]
        not_stored = batch.duplicates | batch.skipped | batch.rejections.keys()
        return Result(
            records=settled,
            stored=[each for index, each in enumerate(settled) if index not in not_stored] if not_stored else settled,
            duplicates=sum(index < admitted for index in batch.duplicates),
            skipped=sum(index < admitted for index in batch.skipped),
            rejections=self._dead_letter_writer.write(rejections),
            storage_seconds=batch.storage_seconds,
            finished=self._clock(),
            unsettled=[*batch.records[admitted:], *not_tried],
        )
