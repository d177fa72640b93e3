"""What the producer counts. To add a metric: declare it here, set it where a batch is settled."""

import socket
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

BATCH_SIZES = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)
SEND_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class ProducerMetrics:
    """Children are resolved once and incremented a batch at a time, not a message."""

    def __init__(self, registry: CollectorRegistry, *, version: str) -> None:
        messages = Counter(
            "producer_messages", "Messages settled, by what became of them", ["result"], registry=registry
        )
        self.delivered = messages.labels("delivered")
        self.failed = messages.labels("failed")
        self.retries = Counter("producer_retries", "Messages sent again", registry=registry)
        self.batch_size = Histogram(
            "producer_batch_size_messages", "Messages in a batch", buckets=BATCH_SIZES, registry=registry
        )
        self.send_latency = Histogram(
            "producer_send_latency_seconds",
            "From handing a batch to the client to the last of its delivery reports, retries included",
            buckets=SEND_SECONDS,
            registry=registry,
        )
        self._queue = Gauge("producer_queue_messages", "Messages on their way", registry=registry)
        self._undelivered = Gauge(
            "producer_undelivered_messages", "Messages in the undelivered folder", registry=registry
        )
        self._healthy = Gauge("producer_healthy", "1 while the service is ready", registry=registry)
        Gauge("app_info", "The program behind these metrics", ["version", "hostname"], registry=registry).labels(
            version, socket.gethostname()
        ).set(1)
        ProcessCollector(registry=registry)  # CPU, memory, open files; a registry of one's own comes without it

    def watch(
        self, *, queue: Callable[[], float], undelivered: Callable[[], float], healthy: Callable[[], float]
    ) -> None:
        """Gauges that are read when somebody asks."""
        self._queue.set_function(queue)
        self._undelivered.set_function(undelivered)
        self._healthy.set_function(healthy)
