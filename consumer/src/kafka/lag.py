"""The consumer lag of the assigned partitions."""

import time
from collections.abc import Callable, Iterable

from confluent_kafka import Consumer

from src.kafka.assignment import Assignment
from src.kafka.offset_lookup import OffsetLookup
from src.kafka.statistics import ClusterStatistics
from src.model.position import TopicPartition
from src.utils.metrics import ConsumerMetrics

LOOKUP_INTERVAL = 10.0  # seconds between two look-ups of the high watermarks while nothing is fetched


class LagMonitor:
    """Shows the lag from the next offset to be settled to the high watermark, and nothing where it is unknown."""

    def __init__(
        self,
        client: Consumer,
        assignment: Assignment,
        statistics: ClusterStatistics,
        metrics: ConsumerMetrics,
        *,
        lookup_interval: float = LOOKUP_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._assignment = assignment
        self._statistics = statistics
        self._metrics = metrics
        self._lookup = OffsetLookup(client)
        self._lookup_interval = lookup_interval
        self._clock = clock
        self._last_lookup = 0.0

    def look_up_latest_if_due(self) -> None:
        """Call it while fetching is paused: the statistics receive high watermarks only with fetched messages."""
        now = self._clock()
        if not self._assignment.partitions or now - self._last_lookup < self._lookup_interval:
            return
        self._last_lookup = now
        if latest := self._lookup.latest(self._assignment.partitions):
            self._statistics.set_latest(latest)

    def show(self) -> None:
        for partition in self._assignment.partitions:
            lag = self._lag(partition)
            if lag is None:
                self._metrics.forget_lag(*partition)
            else:
                self._metrics.lag.labels(*partition).set(lag)

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            self._metrics.forget_lag(*partition)

    def _lag(self, partition: TopicPartition) -> int | None:
        low, high = self._statistics.watermarks(partition)
        position = self._assignment.position(partition)
        reached = low if position is None else position
        if high is None or reached is None or self._assignment[partition].gap is not None:
            return None
        return max(0, high - reached)
