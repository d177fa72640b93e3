"""What the consumer counts. To add a metric: declare it here, set it where the loop settles a batch."""

import socket
from collections.abc import Collection, Iterable
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

BATCH_SIZES = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)
STORAGE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
END_TO_END_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

PAUSE_REASONS = ("storage", "dead_letters", "dead_letter_storm", "backpressure", "offset_gap")


class ConsumerMetrics:
    """Children are resolved once and incremented a batch at a time, not a message."""

    def __init__(self, registry: CollectorRegistry, *, version: str, dead_letter_reasons: Iterable[str]) -> None:
        messages = Counter(
            "consumer_messages", "Messages settled, by what became of them", ["result"], registry=registry
        )
        self.stored = messages.labels("stored")
        self.duplicates = messages.labels("duplicate")
        self.dead_lettered = messages.labels("dead_lettered")
        self.dead_letters = Counter(
            "consumer_dead_letters", "Messages parked, by reason", ["reason"], registry=registry
        )
        for reason in dead_letter_reasons:
            self.dead_letters.labels(reason)
        self.retries = Counter(
            "consumer_retries", "New tries of what did not work at first, by cause", ["cause"], registry=registry
        )
        self.batch_size = Histogram(
            "consumer_batch_size_messages", "Messages in a batch", buckets=BATCH_SIZES, registry=registry
        )
        self.storage_latency = Histogram(
            "consumer_storage_latency_seconds",
            "From handing a batch to the store to its verdicts",
            buckets=STORAGE_SECONDS,
            registry=registry,
        )
        self.end_to_end_latency = Histogram(
            "consumer_end_to_end_latency_seconds",
            "From a message's Kafka timestamp to stored",
            buckets=END_TO_END_SECONDS,
            registry=registry,
        )
        commits = Counter("consumer_offset_commits", "Offset commits, by their answer", ["result"], registry=registry)
        self.commits_confirmed = commits.labels("success")
        self.commits_refused = commits.labels("failure")
        self.lag = Gauge(
            "consumer_lag_messages",
            "Messages behind the end of the partition",
            ["topic", "partition"],
            registry=registry,
        )
        self.assigned_partitions = Gauge("consumer_assigned_partitions", "Partitions owned now", registry=registry)
        self._paused = Gauge(
            "consumer_paused", "1 while partitions are not read, by reason", ["reason"], registry=registry
        )
        self.show_paused(())
        rebalances = Counter("consumer_rebalances", "Changes of the assignment", ["event"], registry=registry)
        self.rebalances = {event: rebalances.labels(event) for event in ("assigned", "revoked", "lost")}
        self.skipped_offsets = Counter(
            "consumer_skipped_offsets", "Offsets that were gone before they could be read", registry=registry
        )
        self.last_progress = Gauge(
            "consumer_last_progress_timestamp_seconds", "When a batch was last settled", registry=registry
        )
        self.healthy = Gauge("consumer_healthy", "1 while the service is ready", registry=registry)
        Gauge("app_info", "The program behind these metrics", ["version", "hostname"], registry=registry).labels(
            version, socket.gethostname()
        ).set(1)
        ProcessCollector(registry=registry)  # CPU, memory, open files; a registry of one's own comes without it

    def show_paused(self, reasons: Collection[str]) -> None:
        for reason in PAUSE_REASONS:
            self._paused.labels(reason).set(reason in reasons)

    def forget_lag(self, topic: str, partition: int) -> None:
        """A partition that went to another member is that member's to show."""
        with suppress(KeyError):
            self.lag.remove(topic, str(partition))
