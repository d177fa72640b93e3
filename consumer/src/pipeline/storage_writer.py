"""Processes records and stores their documents. Each record ends up stored, or rejected with a reason."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from src.model.errors import InvalidMessage, StorageUnavailable
from src.model.record import Record, Rejection
from src.model.verdict import Outcome, Verdict
from src.pipeline.ownership import Ownership
from src.pipeline.retry import Retrier

logger = logging.getLogger(__name__)

PROCESSING_FAILED = "processing_failed"

Document = Mapping[str, Any]


class Processor(Protocol):
    def process(self, record: Record) -> Document:
        """The document of a record. Raises InvalidMessage."""


class Storage(Protocol):
    def ensure_indexes(self) -> None:
        """Raises StorageUnavailable."""

    def ping(self) -> None:
        """Raises StorageUnavailable."""

    def save_many(self, documents: Sequence[Document]) -> Sequence[Verdict]:
        """One verdict per document. Raises StorageUnavailable."""


@dataclass(slots=True)
class Item:
    """A record and its state. `outcome` is set once it is stored, `rejection` once it is rejected.

    `failures` counts the attempts that failed for an unknown reason.
    """

    record: Record
    document: Document | None = None
    failures: int = 0
    first_failure: float = 0.0
    outcome: Outcome | None = None
    rejection: Rejection | None = None


@dataclass(slots=True)
class Batch:
    """`pending` are to be stored in the next call, `failed` are to be retried one at a time."""

    items: list[Item]
    pending: list[Item] = field(default_factory=list)
    failed: deque[Item] = field(default_factory=deque)
    storage_seconds: float = 0.0

    @property
    def rejections(self) -> list[Rejection | None]:
        return [item.rejection for item in self.items]


class StorageWriter:
    """Retries while the store is unavailable.

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

    def write(self, records: Sequence[Record]) -> Batch:
        """Store what can be stored and reject the rest. Raises WriterStopped.

        Omits records that are neither stored nor still assigned to this consumer: their new owner settles them.
        """
        batch = Batch([Item(record) for record in records])
        self._process_and_store(batch, batch.items)
        while batch.failed:
            item = batch.failed.popleft()
            if self._ownership.owns(item.record):
                self._retry_alone(batch, item)
        batch.items = [item for item in batch.items if item.outcome is not None or self._ownership.owns(item.record)]
        return batch

    def _process_and_store(self, batch: Batch, items: Sequence[Item]) -> None:
        for item in items:
            self._process(batch, item)
        started = time.monotonic()
        self._retrier.retry_until_available(lambda: self._store_pending(batch))
        batch.storage_seconds += time.monotonic() - started

    def _retry_alone(self, batch: Batch, item: Item) -> None:
        """Retry a message that failed for an unknown reason, with exponential backoff."""
        self._retrier.wait(min(self._retrier.max_backoff, 0.1 * 2**item.failures), "the retries of a message")
        self._process_and_store(batch, [item])

    def _process(self, batch: Batch, item: Item) -> None:
        try:
            item.document = item.document or self._processor.process(item.record)
        except InvalidMessage as error:
            self._reject(item, error.reason, "process", error)
        except Exception as error:
            logger.exception("processing failed", extra={"reason": type(error).__name__})
            self._record_failure(batch, item, PROCESSING_FAILED, "process", error)
        else:
            batch.pending.append(item)

    def _store_pending(self, batch: Batch) -> None:
        """One call for all that are pending; deferred documents stay pending. Raises StorageUnavailable."""
        if not batch.pending:
            return
        verdicts = self._storage.save_many([item.document for item in batch.pending if item.document is not None])
        items, batch.pending = batch.pending, []
        for item, verdict in zip(items, verdicts, strict=True):
            self._apply(verdict, item, batch)
        if batch.pending:
            deferred = next(verdict for verdict in verdicts if verdict.outcome is Outcome.DEFERRED)
            text = f"the store deferred {len(batch.pending)} documents: {deferred.error}"
            raise StorageUnavailable(deferred.reason, text)

    def _apply(self, verdict: Verdict, item: Item, batch: Batch) -> None:
        match verdict.outcome:
            case Outcome.STORED | Outcome.DUPLICATE:
                item.outcome = verdict.outcome
            case Outcome.DEFERRED:
                batch.pending.append(item)
            case Outcome.REJECTED:
                self._reject(item, verdict.reason, "store", _error_of(verdict))
            case Outcome.FAILED:
                self._record_failure(batch, item, verdict.reason, "store", _error_of(verdict))

    def _record_failure(self, batch: Batch, item: Item, reason: str, stage: str, error: Exception) -> None:
        item.first_failure = item.first_failure or self._clock()
        item.failures += 1
        if item.failures > self._max_retries:
            self._reject(item, reason, stage, error)
        else:
            self._retrier.on_retry(reason)
            batch.failed.append(item)

    def _reject(self, item: Item, reason: str, stage: str, error: Exception) -> None:
        now = self._clock()
        attempts = max(item.failures, 1)
        item.rejection = Rejection(item.record, reason, stage, error, attempts, item.first_failure or now, now)


def _error_of(verdict: Verdict) -> Exception:
    return verdict.error or StorageUnavailable(verdict.reason, verdict.reason)
