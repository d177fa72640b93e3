"""The metrics of the processes over HTTP, and the rates and latencies derived from them."""

import http.client
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

HTTP_TIMEOUT = 1.0  # seconds
RATE_WINDOW = 5.0  # seconds

Buckets = Mapping[float, float]  # upper bound in seconds to the number of observations up to it


@dataclass(frozen=True)
class ConsumerMetrics:
    """One consumer's counters at one time."""

    stored: int = 0
    duplicates: int = 0
    dead_lettered: int = 0
    latency: Buckets = field(default_factory=dict)


def http_get(port: int | None, path: str) -> str | None:
    """The response of a process on this machine; None if there is none in time."""
    if port is None:
        return None
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HTTP_TIMEOUT)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def parse_consumer_metrics(text: str) -> ConsumerMetrics:
    results = {"stored": 0, "duplicate": 0, "dead_lettered": 0}
    latency = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "consumer_messages_total":
                results[sample.labels["result"]] = int(sample.value)
            elif sample.name == "consumer_end_to_end_latency_seconds_bucket":
                latency[float(sample.labels["le"])] = sample.value
    return ConsumerMetrics(results["stored"], results["duplicate"], results["dead_lettered"], latency)


def merged(histograms: Iterable[Buckets]) -> dict[float, float]:
    """The buckets of several processes as one histogram."""
    sums: dict[float, float] = {}
    for buckets in histograms:
        for bound, count in buckets.items():
            sums[bound] = sums.get(bound, 0) + count
    return sums


def increase(now: Buckets, before: Buckets) -> dict[float, float]:
    return {bound: count - before.get(bound, 0) for bound, count in now.items()}


def quantile(share: float, buckets: Buckets) -> float | None:
    """The quantile in seconds as Prometheus estimates it; None without observations.

    A quantile above the last finite bound is reported as that bound.
    """
    total = max(buckets.values(), default=0)
    if total <= 0:
        return None
    lower, below = 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= share * total:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (share * total - below) / max(count - below, 1e-9)
        lower, below = bound, count
    return lower


class Measurement(NamedTuple):
    time: float
    settled: int
    latency: Buckets


class RecentMeasurements:
    """The measurements of the last seconds."""

    def __init__(self, window: float = RATE_WINDOW) -> None:
        self._window = window
        self._measurements: deque[Measurement] = deque()

    def add(self, measurement: Measurement) -> None:
        self._measurements.append(measurement)
        while len(self._measurements) > 2 and self._measurements[1].time <= measurement.time - self._window:
            self._measurements.popleft()

    @property
    def rate(self) -> float:
        """Messages settled per second."""
        if len(self._measurements) < 2:
            return 0.0
        first, last = self._measurements[0], self._measurements[-1]
        return (last.settled - first.settled) / max(last.time - first.time, 1e-9)

    def quantile(self, share: float) -> float | None:
        if not self._measurements:
            return None
        return quantile(share, increase(self._measurements[-1].latency, self._measurements[0].latency))
