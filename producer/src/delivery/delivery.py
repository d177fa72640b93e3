"""Delivery: every record it accepts is delivered to Kafka or written to the undelivered store.

Only `poll_once` blocks, for delivery reports and for a bounded time, so the caller keeps its rate.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from threading import Event
from typing import Protocol

from src.delivery.batch import Batch, SendAttempt
from src.delivery.ledger import DeliveryLedger
from src.delivery.retry_policy import RetryPolicy
from src.delivery.send_queue import SendQueue
from src.delivery.undelivered_buffer import UndeliveredBuffer, UndeliveredStore
from src.kafka.produce_request import ProduceRequest
from src.model.delivery_failure import DeliveryFailure, Fault
from src.model.errors import FatalClientError
from src.model.message import ProducerRecord, total_size
from src.utils.metrics import ProducerMetrics

logger = logging.getLogger(__name__)

POLL_TIMEOUT = 0.1  # seconds that one poll waits at most, so that a stop request is noticed
GRACE_PERIOD = 5.0  # seconds for open requests after a stop request
PURGE_TIMEOUT = 1.0  # seconds for the delivery reports of purged requests
REPORT_TIMEOUT = 30.0  # seconds with messages in flight and no delivery report, after which the service is not ready


class Publisher(Protocol):
    """Sends records to Kafka; KafkaPublisher implements it."""

    @property
    def unavailable_reason(self) -> str | None:
        """Why nothing can be sent; None while a broker is reachable."""

    @property
    def topic_failure(self) -> str | None:
        """Why messages wait although a broker is reachable; None once the topic has been found."""

    def send(self, records: Sequence[ProducerRecord]) -> ProduceRequest:
        """Hand over as many as the client has capacity for, in order; the request's `size` says how many."""

    def poll(self, timeout: float) -> Sequence[ProduceRequest]:
        """The requests completed since the last call, after up to `timeout` seconds. Raises FatalClientError."""

    def purge(self) -> None:
        """Stop sending; every record without a delivery report gets one."""

    def close(self) -> None: ...


class Delivery:
    """Used by one thread; any thread may read `ledger` and `readiness_failures()`."""

    def __init__(
        self,
        publisher: Publisher,
        undelivered: UndeliveredStore,
        policy: RetryPolicy,
        metrics: ProducerMetrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        stop: Event | None = None,
    ) -> None:
        self.ledger = DeliveryLedger(metrics, clock)
        self._publisher = publisher
        self._policy = policy
        self._clock = clock
        self._stop = stop or Event()
        self._queue = SendQueue(policy, metrics, clock)
        self._buffer = UndeliveredBuffer(undelivered, self.ledger, self._queue, clock)
        self._open: dict[ProduceRequest, SendAttempt] = {}
        self._last_failure: str | None = None

    @property
    def has_capacity(self) -> bool:
        """Whether new records should be sent now."""
        return self.has_resend_capacity and not self._buffer.blocked

    @property
    def has_resend_capacity(self) -> bool:
        """Whether records of the undelivered store may be sent now, which also helps while it cannot be written."""
        return not (self.ledger.full or self._queue.backlogged)

    @property
    def failing(self) -> bool:
        """Whether the latest delivery report was a transient failure."""
        return self._last_failure is not None

    @property
    def healthy(self) -> bool:
        return not (self.failing or self._publisher.unavailable_reason)

    def send(self, records: Sequence[ProducerRecord]) -> Batch:
        """Start sending; `poll_once` completes it. Permanent failures are written to the undelivered store."""
        return self._start(Batch(records, self._clock(), self._buffer.failures), records)

    def resend(self, records: Sequence[ProducerRecord]) -> Batch:
        """As `send`, for records that are in the undelivered store: permanent failures are left to the caller."""
        return self._start(Batch(records, self._clock(), [], counted=True), records)

    def send_and_wait(self, records: Sequence[ProducerRecord]) -> Batch:
        return self.wait_for(self.send(records))

    def wait_for(self, batch: Batch) -> Batch:
        """Poll until the batch is settled; after a stop request, finish instead."""
        try:
            while not (batch.settled or self._stop.is_set()):
                self.poll_once(POLL_TIMEOUT)
        except FatalClientError as error:
            logger.error("Kafka client failed", extra={"reason": str(error)})
        if not batch.settled:
            self.finish()
        return batch

    def poll_once(self, timeout: float) -> None:
        """Process delivery reports, waiting up to `timeout` seconds for the first; send what is due; write failures.

        Raises FatalClientError.
        """
        self._complete(self._publisher.poll(min(timeout, POLL_TIMEOUT)))
        self._queue.release_due_retries()
        self._send_queued()
        self._buffer.flush()

    def finish(self, grace_period: float = GRACE_PERIOD) -> None:
        """Wait for open requests while a broker is reachable; write what is not delivered to the undelivered store.

        Raises UndeliveredStoreError.
        """
        self._stop.set()
        self._fail_queued()
        with suppress(FatalClientError):
            self._await_reports(grace_period, lambda: not self._publisher.unavailable_reason)
        self._purge()
        self._buffer.flush_before_exit()

    def readiness_failures(self) -> list[str]:
        """Why messages are not being delivered; empty while they are."""
        silence = self.ledger.seconds_without_report
        overdue = f"no delivery report for {silence:.0f} s" if silence > REPORT_TIMEOUT else None
        publisher = self._publisher
        unavailable = publisher.unavailable_reason or publisher.topic_failure
        causes = (unavailable, self._buffer.write_error, self._last_failure, overdue)
        reasons = [cause for cause in causes if cause]
        if reasons and not self.has_capacity:
            reasons.append(f"not accepting new messages: {self.ledger.in_flight} in flight")
        return reasons

    # -- requests

    def _start(self, batch: Batch, records: Sequence[ProducerRecord]) -> Batch:
        self.ledger.add(batch)
        self._queue.add(SendAttempt(batch, records))
        self._send_queued()
        return batch

    def _send_queued(self) -> None:
        while attempt := self._queue.next_ready():
            rest = self._send(attempt)
            if rest:
                self._queue.put_back(SendAttempt(attempt.batch, rest, attempt.retry))
                return
        if not self._open and (attempt := self._queue.next_isolated()):
            self._send(attempt)

    def _send(self, attempt: SendAttempt) -> Sequence[ProducerRecord]:
        """Returns the records that the client has no capacity for."""
        request = self._publisher.send(attempt.records)
        self._open[request] = attempt
        return attempt.records[request.size :]

    # -- delivery reports

    def _complete(self, requests: Iterable[ProduceRequest]) -> None:
        known = len(self._buffer.failures)
        for request in requests:
            self._complete_one(self._open.pop(request), request)
        if failures := self._buffer.failures[known:]:
            for reason, count in Counter(failure.reason for failure in failures).items():
                logger.error("delivery failed permanently", extra={"reason": reason, "messages": count})

    def _complete_one(self, attempt: SendAttempt, request: ProduceRequest) -> None:
        if request.size:
            self.ledger.record_report()
        if request.delivered:
            self._last_failure = None
            size = attempt.size_of(request.size) - total_size(failure.record for failure in request.failures)
            self.ledger.settle(attempt.batch, size, delivered=request.delivered)
        if request.failures:
            self._handle_failures(attempt, [_blame(failure, attempt) for failure in request.failures])

    def _handle_failures(self, attempt: SendAttempt, failures: Sequence[DeliveryFailure]) -> None:
        self._last_failure = next(
            (failure.reason for failure in failures if failure.fault is Fault.TRANSIENT), self._last_failure
        )
        permanent = [failure for failure in failures if self._is_permanent(failure, attempt)]
        others = [failure for failure in failures if not self._is_permanent(failure, attempt)]
        self._queue.isolate(attempt, [failure.record for failure in others if failure.fault is Fault.BATCH])
        self._fail(attempt.batch, permanent)
        transient = [failure for failure in others if failure.fault is Fault.TRANSIENT]
        if transient:
            self._queue.schedule_retry(attempt.batch, transient, attempt.retry + 1)

    def _is_permanent(self, failure: DeliveryFailure, attempt: SendAttempt) -> bool:
        if self._stop.is_set() or failure.fault is Fault.PERMANENT:
            return True
        return failure.fault is Fault.TRANSIENT and not self._policy.allows(attempt.retry + 1)

    def _fail(self, batch: Batch, failures: Sequence[DeliveryFailure]) -> None:
        if failures:
            batch.failures += failures
            self.ledger.settle(batch, sum(each.record.size for each in failures), undelivered=len(failures))

    # -- shutdown

    def _fail_queued(self) -> None:
        for attempt in self._queue.drain():
            reason = "producer stopped before " + ("retrying" if attempt.retry or attempt.alone else "sending")
            self._fail(attempt.batch, [DeliveryFailure(record, Fault.TRANSIENT, reason) for record in attempt.records])

    def _await_reports(self, seconds: float, worthwhile: Callable[[], bool] = lambda: True) -> None:
        deadline = self._clock() + seconds
        while self._open and self._clock() < deadline and worthwhile():
            self._complete(self._publisher.poll(POLL_TIMEOUT))

    def _purge(self) -> None:
        """Close every open request; the delivery reports say what may be in the topic."""
        if not self._open:
            return
        self._publisher.purge()
        with suppress(FatalClientError):
            self._await_reports(PURGE_TIMEOUT)
        for request in self._open:
            request.fail_unreported("producer stopped without a delivery report; it may be in the topic")
        self._complete(list(self._open))


def _blame(failure: DeliveryFailure, attempt: SendAttempt) -> DeliveryFailure:
    """A record that is rejected although it was sent alone is the cause itself."""
    if failure.fault is Fault.BATCH and attempt.alone:
        return failure._replace(fault=Fault.PERMANENT)
    return failure
