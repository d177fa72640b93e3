"""Send attempts that wait for capacity in the client, for the due time of their retry, or to be sent alone."""

import heapq
import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from src.delivery.batch import Batch, SendAttempt
from src.delivery.retry_policy import RetryPolicy
from src.model.delivery_failure import DeliveryFailure
from src.model.message import ProducerRecord
from src.utils.metrics import ProducerMetrics

logger = logging.getLogger(__name__)


class SendQueue:
    def __init__(self, policy: RetryPolicy, metrics: ProducerMetrics, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._metrics = metrics
        self._clock = clock
        self._ready: deque[SendAttempt] = deque()
        self._isolated: deque[SendAttempt] = deque()
        self._retries: list[tuple[float, int, SendAttempt]] = []  # a heap: due time, order, attempt
        self._order = itertools.count()

    @property
    def backlogged(self) -> bool:
        """Whether attempts wait that could be sent now if the client had capacity, or nothing else in flight."""
        return bool(self._ready or self._isolated)

    def add(self, attempt: SendAttempt) -> None:
        self._ready.append(attempt)

    def put_back(self, attempt: SendAttempt) -> None:
        """It is the next to be sent."""
        self._ready.appendleft(attempt)

    def isolate(self, attempt: SendAttempt, records: Iterable[ProducerRecord]) -> None:
        """Each of these records is sent alone, while no other request is open."""
        self._isolated.extend(SendAttempt(attempt.batch, [record], attempt.retry, alone=True) for record in records)

    def schedule_retry(self, batch: Batch, failures: Sequence[DeliveryFailure], retry: int) -> None:
        self._metrics.retries.inc(len(failures))
        logger.warning("delivery failed, will be retried", extra={"reason": failures[0].reason, "retry": retry})
        due = self._clock() + self._policy.delay(retry)
        attempt = SendAttempt(batch, [failure.record for failure in failures], retry, failures=failures)
        heapq.heappush(self._retries, (due, next(self._order), attempt))

    def release_due_retries(self) -> None:
        now = self._clock()
        while self._retries and self._retries[0][0] <= now:
            self._ready.append(heapq.heappop(self._retries)[2])

    def next_ready(self) -> SendAttempt | None:
        return self._ready.popleft() if self._ready else None

    def next_isolated(self) -> SendAttempt | None:
        return self._isolated.popleft() if self._isolated else None

    def scheduled_failures(self, batch: Batch) -> list[DeliveryFailure]:
        """The failures of this batch whose retry is not due yet."""
        return [failure for _, _, attempt in self._retries if attempt.batch is batch for failure in attempt.failures]

    def cancel_retries(self, batch: Batch) -> None:
        self._retries = [entry for entry in self._retries if entry[2].batch is not batch]
        heapq.heapify(self._retries)

    def drain(self) -> list[SendAttempt]:
        """Remove and return everything that waits."""
        waiting = [*self._ready, *self._isolated, *(attempt for _, _, attempt in self._retries)]
        for queue in (self._ready, self._isolated, self._retries):
            queue.clear()
        return waiting
