"""Prometheus metrics of the consumer. To add one, declare it here and update it where the loop settles a batch."""

import math
import socket
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.utils import floatToGoString

BATCH_SIZES = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)
# A quantile is estimated within its bucket: with each bound at most 1.7 times the one before, it is shown as at most
# 1.7 times what it is.
SECONDS = tuple(float(f"{digits}e{power}") for power in range(-3, 4) for digits in (1, 1.5, 2, 3, 5, 7))
STORAGE_SECONDS = tuple(bound for bound in SECONDS if bound <= 10)
END_TO_END_SECONDS = tuple(bound for bound in SECONDS if 0.005 <= bound <= 3_000)

PAUSE_REASONS = ("storage", "schema_registry", "dead_letters", "dead_letter_storm", "backpressure", "offset_gap")

PausedPartition = tuple[tuple[str, int], str]
"""Topic and partition, and the reason."""


class BatchHistogram:
    """A histogram to which a whole batch is added at once, for a tenth of the time of `Histogram.observe`."""

    def __init__(self, name: str, documentation: str, *, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = (*buckets, math.inf)
        self._counts, self._sum = [0] * len(self._bounds), 0.0
        registry.register(self)

    def observe_all(self, values: Iterable[float]) -> None:
        ordered = sorted(values)
        self._counts = [n + bisect_right(ordered, bound) for n, bound in zip(self._counts, self._bounds, strict=True)]
        self._sum += sum(ordered)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Called by the registry. Bucket by bucket, the counts include those of all buckets below."""
        buckets = [(floatToGoString(bound), count) for bound, count in zip(self._bounds, self._counts, strict=True)]
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=self._sum)


class ConsumerMetrics:
    """Labeled children are resolved once and incremented per batch, not per message."""

    def __init__(self, registry: CollectorRegistry, *, version: str, dead_letter_reasons: Iterable[str]) -> None:
        messages = Counter("consumer_messages", "Messages settled, by result", ["result"], registry=registry)
        self.stored = messages.labels("stored")
        self.duplicates = messages.labels("duplicate")
        self.skipped = messages.labels("skipped")
        self.dead_lettered = messages.labels("dead_lettered")
        self.dead_letters = Counter(
            "consumer_dead_letters", "Messages dead-lettered, by reason", ["reason"], registry=registry
        )
        for reason in dead_letter_reasons:
            self.dead_letters.labels(reason)
        self.retries = Counter(
            "consumer_retries", "Retries of failed operations, by cause", ["cause"], registry=registry
        )
        self.batch_size = Histogram(
            "consumer_batch_size_messages", "Messages per batch", buckets=BATCH_SIZES, registry=registry
        )
        self.storage_latency = Histogram(
            "consumer_storage_latency_seconds",
            "Time to store a batch",
            buckets=STORAGE_SECONDS,
            registry=registry,
        )
        self.end_to_end_latency = BatchHistogram(
            "consumer_end_to_end_latency_seconds",
            "Time from a message's Kafka timestamp until it is stored",
            buckets=END_TO_END_SECONDS,
            registry=registry,
        )
        commits = Counter("consumer_offset_commits", "Offset commits, by result", ["result"], registry=registry)
        self.commits_confirmed = commits.labels("success")
        self.commits_rejected = commits.labels("failure")
        self.lag = Gauge(
            "consumer_lag_messages",
            "Messages between the next offset to commit and the high watermark",
            ["topic", "partition"],
            registry=registry,
        )
        self.assigned_partitions = Gauge(
            "consumer_assigned_partitions", "Partitions currently assigned", registry=registry
        )
        self._paused = Gauge(
            "consumer_paused", "1 while partitions are paused for this reason, else 0", ["reason"], registry=registry
        )
        self._partition_paused = Gauge(
            "consumer_partition_paused",
            "1 while this partition is paused for this reason, whatever happens to the others",
            ["topic", "partition", "reason"],
            registry=registry,
        )
        self._paused_partitions: frozenset[PausedPartition] = frozenset()
        self.show_paused((), frozenset())
        rebalances = Counter(
            "consumer_rebalances", "Changes of the partition assignment, by event", ["event"], registry=registry
        )
        self.rebalances = {event: rebalances.labels(event) for event in ("assigned", "revoked", "lost")}
        self.skipped_offsets = Counter(
            "consumer_skipped_offsets", "Offsets skipped because Kafka no longer had them", registry=registry
        )
        self.foreign_commits = Counter(
            "consumer_foreign_offset_commits",
            "Assigned partitions whose offset another program had committed",
            registry=registry,
        )
        self.last_progress = Gauge(
            "consumer_last_progress_timestamp_seconds", "Unix time at which a batch was last settled", registry=registry
        )
        self.healthy = Gauge("consumer_healthy", "1 if the service is ready, else 0", registry=registry)
        Gauge("app_info", "Version and host of the program", ["version", "hostname"], registry=registry).labels(
            version, socket.gethostname()
        ).set(1)
        ProcessCollector(registry=registry)  # CPU, memory, open files; a custom registry does not include it

    def show_paused(self, reasons: Collection[str], partitions: frozenset[PausedPartition]) -> None:
        """The reasons why any partitions are paused, and the partitions that are paused by themselves."""
        for reason in PAUSE_REASONS:
            self._paused.labels(reason).set(reason in reasons)
        for (topic, partition), reason in self._paused_partitions - partitions:
            self._partition_paused.remove(topic, str(partition), reason)
        for (topic, partition), reason in partitions:
            self._partition_paused.labels(topic, partition, reason).set(1)
        self._paused_partitions = partitions

    def forget_lag(self, topic: str, partition: int) -> None:
        """Remove the lag of a partition that this member no longer owns."""
        with suppress(KeyError):
            self.lag.remove(topic, str(partition))
