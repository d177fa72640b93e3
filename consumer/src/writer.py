"""Gives every message a home, the store or the dead-letter topic, in a thread of its own: polling goes on meanwhile."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Event
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)

from src.errors import ConsumerError, DeadLetterError, InvalidMessage, StorageUnavailable, Unavailable
from src.record import Record, Rejection
from src.verdict import Outcome, Verdict

logger = logging.getLogger(__name__)

PROCESSING_FAILED = "processing_failed"
SLOTS = 2  # batches in flight: one being written, one behind it
GLANCE = 0.05  # seconds between two looks at an obstacle
LONGEST_WAIT = 5.0  # seconds between two tries at most

Document = Mapping[str, Any]
T = TypeVar("T")


class Processor(Protocol):
    def process(self, record: Record) -> Document:
        """The document of a record. Raises InvalidMessage."""


class Storage(Protocol):
    def ensure_indexes(self) -> None:
        """Raises StorageUnavailable."""

    def ping(self) -> None:
        """Raises StorageUnavailable."""

    def save_many(self, documents: Sequence[Document]) -> Sequence[Verdict]:
        """A verdict a document. Raises StorageUnavailable."""


class DeadLetters(Protocol):
    def send(self, rejections: Sequence[Rejection]) -> None:
        """Returns when all are confirmed. Raises DeadLetterError."""

    def close(self) -> None: ...


class Abandoned(ConsumerError):
    """Asked to stop while something outside did not answer; the batch is its next reader's."""


class Result(NamedTuple):
    """What became of a batch: `records` are settled, all of them."""

    records: Sequence[Record]
    stored: Sequence[Record]
    duplicates: int
    rejections: Sequence[Rejection]
    storage_seconds: float
    finished: float
    """Seconds since 1970."""


@dataclass(slots=True)
class _Item:
    """A record on its way to its home."""

    record: Record
    document: Document | None = None
    failures: int = 0
    first_failure: float = 0.0


@dataclass(slots=True)
class _Batch:
    """What still waits for the store, what failed on its own, and what is decided."""

    waiting: list[_Item] = field(default_factory=list)
    failed: deque[_Item] = field(default_factory=deque)
    stored: list[Record] = field(default_factory=list)
    duplicates: int = 0
    rejections: list[Rejection] = field(default_factory=list)
    storage_seconds: float = 0.0


class Writer:
    """Stores or parks one batch at a time.

    A message's fault is parked. While something outside does not answer, `write` tries again for as long as it takes,
    and `obstacle` says why; `on_retry` hears the cause of each new try.
    """

    def __init__(
        self,
        processor: Processor,
        storage: Storage,
        dead_letters: DeadLetters,
        *,
        max_retries: int,
        stop: Event,
        on_retry: Callable[[str], object] = str,
        clock: Callable[[], float] = time.time,
        longest_wait: float = LONGEST_WAIT,
    ) -> None:
        self.obstacle: Unavailable | None = None
        self._processor = processor
        self._storage = storage
        self._dead_letters = dead_letters
        self._max_retries = max_retries
        self._stop = stop
        self._on_retry = on_retry
        self._clock = clock
        self._longest_wait = longest_wait
        self._retrying = Retrying(
            retry=retry_if_exception_type(Unavailable),
            wait=wait_random_exponential(multiplier=min(0.2, longest_wait), max=longest_wait),
            stop=stop_when_event_set(stop),
            sleep=sleep_using_event(stop),
            before_sleep=self._hindered_again,
        )

    def prepare(self) -> None:
        """Wait until the store is there, and make its indexes. Raises Abandoned."""
        self._patiently(self._storage.ensure_indexes)

    def look(self) -> None:
        """Ask an idle store whether it is there, so that its absence is known before a message needs it."""
        try:
            self._storage.ping()
        except StorageUnavailable as error:
            self._hindered(error)
        else:
            self._unhindered()

    def write(self, records: Sequence[Record]) -> Result:
        """Give each record a home; returns when all are settled. Raises Abandoned."""
        batch = _Batch()
        self._try(batch, [_Item(record) for record in records])
        while batch.failed:
            self._try_alone(batch, batch.failed.popleft())
        self._park(batch.rejections)
        return Result(records, batch.stored, batch.duplicates, batch.rejections, batch.storage_seconds, self._clock())

    def give_up(self) -> None:
        """Wait for nothing any more: a batch that meets an obstacle from now on is abandoned."""
        self._stop.set()

    def _try(self, batch: _Batch, items: Sequence[_Item]) -> None:
        for item in items:
            self._process(batch, item)
        began = time.monotonic()
        self._patiently(lambda: self._store_waiting(batch))
        batch.storage_seconds += time.monotonic() - began

    def _try_alone(self, batch: _Batch, item: _Item) -> None:
        """What failed for a reason nobody foresaw is tried by itself, a little later each time."""
        if self._stop.wait(min(self._longest_wait, 0.1 * 2**item.failures)):
            raise Abandoned("asked to stop between two tries of a message")
        self._try(batch, [item])

    def _process(self, batch: _Batch, item: _Item) -> None:
        try:
            item.document = item.document or self._processor.process(item.record)
        except InvalidMessage as error:
            self._reject(batch, item, error.reason, "process", error)
        except Exception as error:
            logger.exception("processing failed", extra={"reason": type(error).__name__})
            self._failed(batch, item, PROCESSING_FAILED, "process", error)
        else:
            batch.waiting.append(item)

    def _store_waiting(self, batch: _Batch) -> None:
        """One call for all that wait; what the store puts off goes on waiting. Raises StorageUnavailable."""
        if not batch.waiting:
            return
        verdicts = self._storage.save_many([item.document for item in batch.waiting if item.document is not None])
        items, batch.waiting = batch.waiting, []
        for item, verdict in zip(items, verdicts, strict=True):
            self._sort(batch, item, verdict)
        if batch.waiting:
            put_off = next(verdict for verdict in verdicts if verdict.outcome is Outcome.DEFERRED)
            raise StorageUnavailable(
                put_off.reason, f"the store puts off {len(batch.waiting)} documents: {put_off.error}"
            )

    def _sort(self, batch: _Batch, item: _Item, verdict: Verdict) -> None:
        error = verdict.error or StorageUnavailable(verdict.reason, verdict.reason)
        match verdict.outcome:
            case Outcome.STORED:
                batch.stored.append(item.record)
            case Outcome.DUPLICATE:
                batch.duplicates += 1
            case Outcome.DEFERRED:
                batch.waiting.append(item)
            case Outcome.REFUSED:
                self._reject(batch, item, verdict.reason, "store", error)
            case Outcome.FAILED:
                self._failed(batch, item, verdict.reason, "store", error)

    def _failed(self, batch: _Batch, item: _Item, reason: str, stage: str, error: Exception) -> None:
        item.first_failure = item.first_failure or self._clock()
        item.failures += 1
        if item.failures > self._max_retries:
            self._reject(batch, item, reason, stage, error)
        else:
            self._on_retry(reason)
            batch.failed.append(item)

    def _reject(self, batch: _Batch, item: _Item, reason: str, stage: str, error: Exception) -> None:
        now = self._clock()
        attempts = max(item.failures, 1)
        batch.rejections.append(
            Rejection(item.record, reason, stage, error, attempts, item.first_failure or now, now),
        )

    def _park(self, rejections: Sequence[Rejection]) -> None:
        """Returns when the dead-letter topic has them all; what it confirmed is not sent again. Raises Abandoned."""
        waiting = list(rejections)

        def send() -> None:
            nonlocal waiting
            try:
                self._dead_letters.send(waiting)
            except DeadLetterError as error:
                waiting = [waiting[index] for index in error.unconfirmed]
                raise

        if waiting:
            self._patiently(send)

    def _patiently(self, attempt: Callable[[], None]) -> None:
        """Try until it works; the world's fault is waited out. Raises Abandoned when asked to stop meanwhile."""
        try:
            self._retrying(attempt)
        except RetryError as error:
            raise Abandoned(f"asked to stop while waiting: {error.last_attempt.exception()}") from error
        self._unhindered()

    def _hindered_again(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Unavailable):
            self._hindered(error)
            self._on_retry(error.cause)

    def _hindered(self, error: Unavailable) -> None:
        self.obstacle = error
        logger.warning("waiting for what does not answer", extra={"cause": error.cause, "reason": str(error)})

    def _unhindered(self) -> None:
        if self.obstacle is not None:
            logger.info("going on", extra={"after": self.obstacle.cause})
            self.obstacle = None


class WriterThread:
    """Runs a Writer beside the loop: batches go in, results come out in the same order.

    Whatever ends a batch with an error is raised by `results`.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._prepared: Future[None] | None = None
        self._in_flight: deque[Future[Result]] = deque()
        self._looking: Future[None] | None = None

    @property
    def obstacle(self) -> Unavailable | None:
        """What the writer waits for; None while it gets on."""
        return self._writer.obstacle

    @property
    def full(self) -> bool:
        return len(self._in_flight) >= SLOTS

    @property
    def idle(self) -> bool:
        return not self._in_flight and (self._looking is None or self._looking.done())

    def submit(self, records: Sequence[Record]) -> None:
        self._in_flight.append(self._executor.submit(self._writer.write, records))

    def look(self) -> None:
        """Have the store asked whether it is there; the answer shows in `obstacle`."""
        self._looking = self._executor.submit(self._writer.look)

    def results(self, timeout: float = 0.0) -> list[Result]:
        """What is done, in order; waits up to `timeout` seconds for the first. Raises what ended a batch."""
        if self._prepared is not None and self._prepared.done():
            _outcome(self._prepared)
        if self._in_flight:
            wait([self._in_flight[0]], timeout)
        results: list[Result] = []
        while self._in_flight and self._in_flight[0].done():
            if results and self._in_flight[0].exception():
                break  # what is done is settled first; the error is raised by the next call
            result = _outcome(self._in_flight.popleft())
            results += [] if result is None else [result]
        return results

    def settle_all(self, timeout: float) -> list[Result]:
        """What is done once nothing is in flight, the time is over, or the writer waits for what does not answer."""
        deadline = time.monotonic() + timeout
        results = self.results()
        while self._in_flight and self.obstacle is None and time.monotonic() < deadline:
            results += self.results(GLANCE)
        return results

    def __enter__(self) -> Self:
        self._prepared = self._executor.submit(self._writer.prepare)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._writer.give_up()
        self._executor.shutdown(wait=False, cancel_futures=True)


def _outcome(future: Future[T]) -> T | None:
    """What the writer returned; None where it gave up because the program stops."""
    try:
        return future.result()
    except Abandoned:
        return None
