"""Processes records and stores their documents. Each record ends up stored, or rejected with a reason."""

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import NamedTuple, Protocol

from src.model.errors import InvalidMessage, StorageUnavailable, Unavailable
from src.model.record import Record, Rejection
from src.model.verdict import STORED, Outcome, Verdict
from src.pipeline.ownership import Ownership
from src.pipeline.retry import Retrier
from src.stores.document import Document, DocumentBatch, ValidDocument

logger = logging.getLogger(__name__)

PROCESSING_FAILED = "processing_failed"
TIMEOUT = "timeout"
"""The cause of an outage in which the store may only have had too much to do in one call."""


class Processor(Protocol):
    def process_ordinary(self, records: Sequence[Record]) -> list[ValidDocument | None]:
        """The valid documents of ordinary messages; None for each record that is left to `process`."""

    def process(self, record: Record) -> Document | None:
        """The document of a record; None if it is to be skipped. Raises InvalidMessage, or Unavailable."""


class Storage(Protocol):
    def validated(self, document: Document) -> ValidDocument:
        """A copy that `save_valid` accepts. Raises InvalidMessage."""

    def ensure_indexes(self) -> None:
        """Raises StorageUnavailable."""

    def ping(self) -> None:
        """Raises StorageUnavailable."""

    def save_valid(self, batch: DocumentBatch) -> Sequence[Verdict]:
        """One verdict per document. Raises StorageUnavailable."""


class Failures(NamedTuple):
    """The attempts of a record that failed for an unknown reason, and when the first did, in seconds since 1970."""

    number: int
    first: float


@dataclass(slots=True)
class Batch:
    """Records, and what became of each by its index. Those that are not mentioned are stored, once `write` returns."""

    records: Sequence[Record]
    documents: list[ValidDocument | None]
    received_at: int
    """In milliseconds since 1970."""
    pending: list[int] = field(default_factory=list)
    """To be stored in the next call."""
    failed: deque[int] = field(default_factory=deque)
    """To be retried one at a time."""
    failures: dict[int, Failures] = field(default_factory=dict)
    duplicates: set[int] = field(default_factory=set)
    skipped: set[int] = field(default_factory=set)
    rejections: dict[int, Rejection] = field(default_factory=dict)
    storage_seconds: float = 0.0

    def without(self, indexes: set[int]) -> "Batch":
        """A batch without these records, whose other records have new indexes."""
        kept = [index not in indexes for index in range(len(self.records))]
        new_index = dict(zip(compress(range(len(kept)), kept), range(len(kept)), strict=False))
        return Batch(
            list(compress(self.records, kept)),
            list(compress(self.documents, kept)),
            self.received_at,
            duplicates={new_index[index] for index in self.duplicates if kept[index]},
            skipped={new_index[index] for index in self.skipped if kept[index]},
            rejections={new_index[index]: each for index, each in self.rejections.items() if kept[index]},
            storage_seconds=self.storage_seconds,
        )


class StorageWriter:
    """Retries while the store is unavailable: with half the documents after a call that timed out, and again with more
    after one that did not.

    A message that fails for an unknown reason is retried alone, `max_retries` times, and then rejected.
    """

    def __init__(
        self,
        processor: Processor,
        storage: Storage,
        retrier: Retrier,
        *,
        max_retries: int,
        ownership: Ownership,
        clock: Callable[[], float],
    ) -> None:
        self._processor = processor
        self._storage = storage
        self._retrier = retrier
        self._max_retries = max_retries
        self._ownership = ownership
        self._clock = clock
        self._at_once = sys.maxsize
        """The number of documents in a call, at most."""

    def write(self, records: Sequence[Record], stored: Collection[int] = ()) -> Batch:
        """Store what can be stored and reject the rest. Raises WriterStopped.

        Those at the offsets `stored` are stored already. Omits records that are neither stored nor still assigned to
        this consumer: their new owner settles them.
        """
        batch = Batch(records, self._process_ordinary(records), int(self._clock() * 1000))
        self._process_and_store(batch, _except(records, stored) if stored else range(len(records)))
        omitted = set()
        while batch.failed:
            index = batch.failed.popleft()
            if self._ownership.owns(records[index]):
                self._retry_alone(batch, index)
            else:
                omitted.add(index)
        omitted |= {index for index in batch.rejections if not self._ownership.owns(records[index])}
        return batch.without(omitted) if omitted else batch

    def _process_ordinary(self, records: Sequence[Record]) -> list[ValidDocument | None]:
        try:
            return self._processor.process_ordinary(records)
        except Exception as error:  # one message must not stop the batch: each is processed separately
            logger.exception("processing failed", extra={"reason": type(error).__name__})
            return [None] * len(records)

    def _process_and_store(self, batch: Batch, indexes: Sequence[int]) -> None:
        batch.pending = [
            index for index in indexes if batch.documents[index] is not None or self._process(batch, index)
        ]
        started = time.monotonic()
        while batch.pending:
            self._retrier.retry_until_available(lambda: self._store_pending(batch))
        batch.storage_seconds += time.monotonic() - started

    def _retry_alone(self, batch: Batch, index: int) -> None:
        """Retry a message that failed for an unknown reason, with exponential backoff."""
        delay = 0.1 * 2 ** batch.failures[index].number
        self._retrier.wait(min(self._retrier.max_backoff, delay), "the retries of a message")
        self._process_and_store(batch, [index])

    def _process(self, batch: Batch, index: int) -> bool:
        """Whether the record has a document now that a store can hold. Waits while the processing lacks a schema."""
        try:
            return self._process_now(batch, index)
        except Unavailable as error:
            self._retrier.mark_unavailable(error)
            return self._retrier.retry_until_available(lambda: self._process_now(batch, index))

    def _process_now(self, batch: Batch, index: int) -> bool:
        stage = "process"
        try:
            document = self._processor.process(batch.records[index])
            if document is None:
                batch.skipped.add(index)
                return False
            stage = "store"
            batch.documents[index] = self._storage.validated(document)
        except InvalidMessage as error:
            self._reject(batch, index, error.reason, stage, error)
        except Unavailable:
            raise
        except Exception as error:
            logger.exception("processing failed", extra={"reason": type(error).__name__})
            self._record_failure(batch, index, PROCESSING_FAILED, stage, error)
        else:
            return True
        return False

    def _store_pending(self, batch: Batch) -> None:
        """One call; deferred documents stay pending. Raises StorageUnavailable."""
        indexes, rest = batch.pending[: self._at_once], batch.pending[self._at_once :]
        documents = [document for index in indexes if (document := batch.documents[index]) is not None]
        records = [batch.records[index] for index in indexes]
        verdicts = self._save(DocumentBatch(documents, records, batch.received_at))
        batch.pending = []
        if verdicts.count(STORED) < len(verdicts):
            for index, verdict in zip(indexes, verdicts, strict=True):
                self._apply(verdict, batch, index)
        number = len(batch.pending)
        batch.pending += rest
        if number:
            deferred = next(verdict for verdict in verdicts if verdict.outcome is Outcome.DEFERRED)
            text = f"the store deferred {number} documents: {deferred.error}"
            raise StorageUnavailable(deferred.reason, text)

    def _save(self, documents: DocumentBatch) -> Sequence[Verdict]:
        try:
            verdicts = self._storage.save_valid(documents)
        except StorageUnavailable as error:
            if error.cause == TIMEOUT:
                self._at_once = max(1, len(documents.documents) // 2)
            raise
        self._at_once = min(sys.maxsize, self._at_once + self._at_once // 8 + 1)
        return verdicts

    def _apply(self, verdict: Verdict, batch: Batch, index: int) -> None:
        match verdict.outcome:
            case Outcome.DUPLICATE:
                batch.duplicates.add(index)
            case Outcome.DEFERRED:
                batch.pending.append(index)
            case Outcome.REJECTED:
                self._reject(batch, index, verdict.reason, "store", _error_of(verdict))
            case Outcome.FAILED:
                self._record_failure(batch, index, verdict.reason, "store", _error_of(verdict))

    def _record_failure(self, batch: Batch, index: int, reason: str, stage: str, error: Exception) -> None:
        before = batch.failures.get(index) or Failures(0, self._clock())
        batch.failures[index] = Failures(before.number + 1, before.first)
        if before.number == self._max_retries:
            self._reject(batch, index, reason, stage, error)
        else:
            self._retrier.on_retry(reason)
            retry = batch.failed.appendleft if before.number else batch.failed.append
            retry(index)  # until it is settled: no later message with its id overtakes it

    def _reject(self, batch: Batch, index: int, reason: str, stage: str, error: Exception) -> None:
        now = self._clock()
        attempts, first_failure = batch.failures.get(index) or Failures(1, now)
        batch.rejections[index] = Rejection(batch.records[index], reason, stage, error, attempts, first_failure, now)


def _error_of(verdict: Verdict) -> Exception:
    return verdict.error or StorageUnavailable(verdict.reason, verdict.reason)


def _except(records: Sequence[Record], offsets: Collection[int]) -> Sequence[int]:
    """The indexes of the others."""
    return [index for index, record in enumerate(records) if record.offset not in offsets]
