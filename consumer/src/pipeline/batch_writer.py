"""Gives every message a home: the store, or the dead-letter topic."""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any, NamedTuple, Protocol

from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)

from src.model.errors import (
    ConsumerError,
    DeadLetterError,
    DeadLetterStorm,
    InvalidMessage,
    StorageUnavailable,
    Unavailable,
)
from src.model.record import Record, Rejection
from src.model.verdict import Outcome, Verdict
from src.pipeline.circuit_breaker import CircuitBreaker

logger = logging.getLogger(__name__)

PROCESSING_FAILED = "processing_failed"
LONGEST_WAIT = 5.0  # seconds between two tries at most
PROBE = 10  # messages that are tried at a time in a dead-letter storm
PROBE_INTERVAL = 10.0  # seconds between two probes, while they are no better

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
        """A verdict a document. Raises StorageUnavailable."""


class DeadLetters(Protocol):
    def send(self, rejections: Sequence[Rejection]) -> None:
        """Returns when all are confirmed. Raises DeadLetterError."""

    def close(self) -> None: ...


class Abandoned(ConsumerError):
    """Asked to stop while something outside did not answer; the batch is its next reader's."""


class Result(NamedTuple):
    """What became of a batch, or of the first part of one: `records` are settled, all of them."""

    records: Sequence[Record]
    stored: Sequence[Record]
    duplicates: int
    rejections: Sequence[Rejection]
    storage_seconds: float
    finished: float
    """Seconds since 1970."""
    rest: Sequence[Record] = ()
    """What has no home yet: to be written next."""


@dataclass(slots=True)
class _Item:
    """A record on its way to its home."""

    record: Record
    document: Document | None = None
    failures: int = 0
    first_failure: float = 0.0
    outcome: Outcome | None = None
    rejection: Rejection | None = None

    @property
    def rejected(self) -> bool:
        return self.rejection is not None


@dataclass(slots=True)
class _Batch:
    """What still waits for the store, and what failed on its own."""

    items: list[_Item]
    waiting: list[_Item] = field(default_factory=list)
    failed: deque[_Item] = field(default_factory=deque)
    storage_seconds: float = 0.0


def _any(_record: Record) -> bool:
    return True


class BatchWriter:
    """Stores or parks one batch at a time.

    A message's fault is parked. While something outside does not answer, `write` tries again for as long as it takes,
    and `obstacle` says why; `on_retry` hears the cause of each new try. In a dead-letter storm, while `breaker` is
    open, a few messages are let through at a time. A message that is no longer `still_ours` is its new owner's to park.
    """

    def __init__(
        self,
        processor: Processor,
        storage: Storage,
        dead_letters: DeadLetters,
        *,
        max_retries: int,
        stop: Event,
        breaker: CircuitBreaker | None = None,
        still_ours: Callable[[Record], bool] = _any,
        on_retry: Callable[[str], object] = str,
        clock: Callable[[], float] = time.time,
        longest_wait: float = LONGEST_WAIT,
        probe_interval: float = PROBE_INTERVAL,
    ) -> None:
        self._processor = processor
        self._storage = storage
        self._dead_letters = dead_letters
        self._max_retries = max_retries
        self._stop = stop
        self._breaker = breaker or CircuitBreaker(limit=100)
        self._still_ours = still_ours
        self._on_retry = on_retry
        self._clock = clock
        self._longest_wait = longest_wait
        self._probe_interval = probe_interval
        self._outage: Unavailable | None = None
        self._storm: DeadLetterStorm | None = None
        self._sitting_out = False
        self._retrying = Retrying(
            retry=retry_if_exception_type(Unavailable),
            wait=wait_random_exponential(multiplier=min(0.2, longest_wait), max=longest_wait),
            stop=stop_when_event_set(stop),
            sleep=sleep_using_event(stop),
            before_sleep=self._hindered_again,
        )

    @property
    def obstacle(self) -> Unavailable | None:
        """What is waited for; None while the writer gets on. Safe from any thread."""
        return self._outage or self._storm

    @property
    def held_up(self) -> bool:
        """Whether nothing is in the making: a probe in a storm is over soon, an outage and a pause may last."""
        return self._outage is not None or self._sitting_out

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
        """Give records a home: all of them, but in a dead-letter storm. Raises Abandoned.

        Then it is the first few, after a while; the others are the result's `rest`, and nothing is kept of them.
        """
        self._sit_out_the_storm()
        return self._probe(records) if self._breaker.open else self._write_up_to_a_storm(records)

    def give_up(self) -> None:
        """Wait for nothing any more: a batch that meets an obstacle from now on is abandoned."""
        self._stop.set()

    def _write_up_to_a_storm(self, records: Sequence[Record]) -> Result:
        batch = self._decide(records)
        admitted = self._breaker.admit([item.rejected for item in batch.items])
        if self._breaker.open:
            self._storm = self._describe_storm(batch.items[admitted:])
            logger.error("dead-letter storm", extra={"cause": self._storm.cause, "reason": str(self._storm)})
        return self._settle(batch, admitted)

    def _probe(self, records: Sequence[Record]) -> Result:
        """The first few are tried as if for the first time: the cause may be mended, or the storm have passed.

        What is still rejected is parked, so that what lies behind is reached. A probe with no larger a share of dead
        letters than is allowed is followed by the next at once.
        """
        ours = [record for record in records if self._still_ours(record)]
        batch = self._decide(ours[:PROBE])
        for item in batch.items:
            self._breaker.count(item.rejected)
        dead_letters = sum(item.rejected for item in batch.items)
        worse = self._breaker.open and self._breaker.exceeded_by(dead_letters, len(batch.items))
        self._storm = self._describe_storm(batch.items) if worse else None
        if not self._breaker.open:
            logger.info("dead-letter storm is over")
        return self._settle(batch, len(batch.items), ours[PROBE:])

    def _sit_out_the_storm(self) -> None:
        if self._storm is None:
            return
        self._on_retry(self._storm.cause)
        self._sitting_out = True
        asked_to_stop = self._stop.wait(self._probe_interval)
        self._sitting_out = False
        if asked_to_stop:
            raise Abandoned("asked to stop in a dead-letter storm")

    def _describe_storm(self, items: Sequence[_Item]) -> DeadLetterStorm:
        rejections = [item.rejection for item in items if item.rejection is not None]
        reasons = Counter(rejection.reason for rejection in rejections).most_common(1)
        example = "".join(f", now for {reason}" for reason, _ in reasons)
        breaker = self._breaker
        return DeadLetterStorm(
            f"{breaker.dead_letters:,} of the last {breaker.window:,} messages would be dead-lettered{example}"
            f" ({breaker.limit} % is allowed); set consumer.dead_letter_storm_percent to 100 to let them through"
        )

    def _settle(self, batch: _Batch, admitted: int, behind: Sequence[Record] = ()) -> Result:
        items, held = batch.items[:admitted], batch.items[admitted:]
        return Result(
            records=[item.record for item in items],
            stored=[item.record for item in items if item.outcome is Outcome.STORED],
            duplicates=sum(item.outcome is Outcome.DUPLICATE for item in items),
            rejections=self._park([item.rejection for item in items if item.rejection is not None]),
            storage_seconds=batch.storage_seconds,
            finished=self._clock(),
            rest=[*(item.record for item in held), *behind],
        )

    def _decide(self, records: Sequence[Record]) -> _Batch:
        """Store what can be, and reject the rest; what is not ours any more by then is left to its new owner."""
        batch = _Batch([_Item(record) for record in records])
        self._try(batch, batch.items)
        while batch.failed:
            item = batch.failed.popleft()
            if self._still_ours(item.record):
                self._try_alone(batch, item)
        batch.items = [item for item in batch.items if item.outcome is not None or self._still_ours(item.record)]
        return batch

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
            self._reject(item, error.reason, "process", error)
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
        match verdict.outcome:
            case Outcome.STORED | Outcome.DUPLICATE:
                item.outcome = verdict.outcome
            case Outcome.DEFERRED:
                batch.waiting.append(item)
            case Outcome.REFUSED:
                self._reject(item, verdict.reason, "store", _error_of(verdict))
            case Outcome.FAILED:
                self._failed(batch, item, verdict.reason, "store", _error_of(verdict))

    def _failed(self, batch: _Batch, item: _Item, reason: str, stage: str, error: Exception) -> None:
        item.first_failure = item.first_failure or self._clock()
        item.failures += 1
        if item.failures > self._max_retries:
            self._reject(item, reason, stage, error)
        else:
            self._on_retry(reason)
            batch.failed.append(item)

    def _reject(self, item: _Item, reason: str, stage: str, error: Exception) -> None:
        now = self._clock()
        attempts = max(item.failures, 1)
        item.rejection = Rejection(item.record, reason, stage, error, attempts, item.first_failure or now, now)

    def _park(self, rejections: Sequence[Rejection]) -> list[Rejection]:
        """Returns those that the dead-letter topic has, once it has all that are ours. Raises Abandoned.

        What it confirmed is not sent again, and what is no longer ours is not sent.
        """
        waiting = list(rejections)
        parked: list[Rejection] = []

        def send() -> None:
            nonlocal waiting
            waiting = [rejection for rejection in waiting if self._still_ours(rejection.record)]
            try:
                self._dead_letters.send(waiting)
            except DeadLetterError as error:
                unconfirmed = frozenset(error.unconfirmed)
                parked.extend(each for index, each in enumerate(waiting) if index not in unconfirmed)
                waiting = [waiting[index] for index in sorted(unconfirmed)]
                raise
            parked.extend(waiting)

        if waiting:
            self._patiently(send)
        return parked

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
        self._outage = error
        logger.warning("waiting for what does not answer", extra={"cause": error.cause, "reason": str(error)})

    def _unhindered(self) -> None:
        if self._outage is not None:
            logger.info("going on", extra={"after": self._outage.cause})
            self._outage = None


def _error_of(verdict: Verdict) -> Exception:
    return verdict.error or StorageUnavailable(verdict.reason, verdict.reason)
