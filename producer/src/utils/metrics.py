"""Prometheus metrics of the producer. To add one, declare it here and update it where delivery reports are handled."""

import socket
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

BATCH_SIZES = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)
# A quantile is estimated within its bucket: with each bound at most 1.7 times the one before, it is shown as at most
# 1.7 times what it is.
SEND_SECONDS = tuple(float(f"{digits}e{power}") for power in range(-3, 3) for digits in (1, 1.5, 2, 3, 5, 7))


class ProducerMetrics:
    """Labeled children are resolved once and incremented per batch, not per message."""

    def __init__(self, registry: CollectorRegistry, *, version: str) -> None:
        messages = Counter(
            "producer_messages",
            "Messages by result: delivered, or failed after all retries",
            ["result"],
            registry=registry,
        )
        self.delivered = messages.labels("delivered")
        self.failed = messages.labels("failed")
        self.retries = Counter("producer_retries", "Messages resent", registry=registry)
        self.batch_size = Histogram(
            "producer_batch_size_messages", "Messages per batch", buckets=BATCH_SIZES, registry=registry
        )
        self.send_latency = Histogram(
            "producer_send_latency_seconds",
            "Time from handing a batch to the Kafka client until its last delivery report, retries included",
            buckets=SEND_SECONDS,
            registry=registry,
        )
        self._queue = Gauge(
            "producer_queue_messages",
            "Messages in flight: handed to the Kafka client, without a delivery report",
            registry=registry,
        )
        self._undelivered = Gauge(
            "producer_undelivered_messages", "Messages in the undelivered folder", registry=registry
        )
        self._healthy = Gauge("producer_healthy", "1 if the service is ready, else 0", registry=registry)
        Gauge("app_info", "Version and host of the program", ["version", "hostname"], registry=registry).labels(
            version, socket.gethostname()
        ).set(1)
        ProcessCollector(registry=registry)  # CPU, memory, open files; a custom registry does not include it

    def watch(
        self, *, queue: Callable[[], float], undelivered: Callable[[], float], healthy: Callable[[], float]
    ) -> None:
        """Set the gauges whose values are computed at each scrape."""
        self._queue.set_function(queue)
        self._undelivered.set_function(undelivered)
        self._healthy.set_function(healthy)
