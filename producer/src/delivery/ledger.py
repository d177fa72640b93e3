"""Counts the messages in flight and their outcomes."""

from collections.abc import Callable

from src.delivery.batch import Batch
from src.utils.metrics import ProducerMetrics

MAX_MESSAGES = 50_000  # in flight; no new ones are accepted until some of these are settled
MAX_BYTES = 64 * 1024 * 1024  # likewise


class DeliveryLedger:
    """A message is in flight from its acceptance until it is delivered or has failed permanently, retries included."""

    def __init__(self, metrics: ProducerMetrics, clock: Callable[[], float]) -> None:
        self.delivered = 0
        self.undelivered = 0
        self.in_flight = 0
        self.in_flight_bytes = 0
        self._metrics = metrics
        self._clock = clock
        self._last_report = clock()

    @property
    def full(self) -> bool:
        return self.in_flight >= MAX_MESSAGES or self.in_flight_bytes >= MAX_BYTES

    @property
    def seconds_without_report(self) -> float:
        """How long messages have been in flight without any delivery report."""
        return self._clock() - self._last_report if self.in_flight else 0.0

    def add(self, batch: Batch) -> None:
        if not self.in_flight:
            self._last_report = batch.started  # no report was due until now
        self.in_flight += batch.size
        self.in_flight_bytes += batch.bytes
        self._metrics.batch_size.observe(batch.size)

    def record_report(self) -> None:
        self._last_report = self._clock()

    def settle(self, batch: Batch, size: int, *, delivered: int = 0, undelivered: int = 0) -> None:
        """These numbers of messages of the batch, `size` bytes in total, are no longer in flight."""
        batch.delivered += delivered
        batch.undelivered += undelivered
        self.in_flight -= delivered + undelivered
        self.in_flight_bytes -= size
        self._metrics.delivered.inc(delivered)
        if not batch.counted:
            self.delivered += delivered
            self.undelivered += undelivered
            self._metrics.failed.inc(undelivered)
        if batch.settled:
            self._metrics.send_latency.observe(self._clock() - batch.started)
