"""What the processes say of themselves: their /metrics, read and summed up."""

import http.client
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

ANSWER_WITHIN = 0.5  # seconds
LOOKING_BACK = 5.0  # seconds over which rates and latencies are taken

Buckets = Mapping[float, float]  # upper bound in seconds to how many took at most so long


@dataclass(frozen=True)
class ConsumerSample:
    """One consumer's counters at one moment."""

    stored: int = 0
    duplicates: int = 0
    dead_lettered: int = 0
    latency: Buckets = field(default_factory=dict)


def scrape(port: int | None) -> str | None:
    """The text of /metrics; None where nobody answers in time."""
    if port is None:
        return None
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_WITHIN)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def consumer_sample(metrics: str) -> ConsumerSample:
    """What a consumer's /metrics say."""
    results = {"stored": 0, "duplicate": 0, "dead_lettered": 0}
    latency = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == "consumer_messages_total":
                results[sample.labels["result"]] = int(sample.value)
            elif sample.name == "consumer_end_to_end_latency_seconds_bucket":
                latency[float(sample.labels["le"])] = sample.value
    return ConsumerSample(results["stored"], results["duplicate"], results["dead_lettered"], latency)


def together(histograms: Iterable[Buckets]) -> dict[float, float]:
    """Several processes' buckets as one histogram."""
    sums: dict[float, float] = {}
    for buckets in histograms:
        for bound, count in buckets.items():
            sums[bound] = sums.get(bound, 0) + count
    return sums


def since(now: Buckets, before: Buckets) -> dict[float, float]:
    return {bound: count - before.get(bound, 0) for bound, count in now.items()}


def quantile(share: float, buckets: Buckets) -> float | None:
    """The seconds that this share of the messages took at most, as Prometheus estimates it; None without messages.

    Beyond the last finite bound all that is known is that bound.
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


class Moment(NamedTuple):
    instant: float
    settled: int
    latency: Buckets


class Recent:
    """The last few seconds, for what is said a second."""

    def __init__(self, span: float = LOOKING_BACK) -> None:
        self._span = span
        self._moments: deque[Moment] = deque()

    def add(self, moment: Moment) -> None:
        self._moments.append(moment)
        while len(self._moments) > 2 and self._moments[1].instant <= moment.instant - self._span:
            self._moments.popleft()

    @property
    def rate(self) -> float:
        """Messages settled a second."""
        if len(self._moments) < 2:
            return 0.0
        first, last = self._moments[0], self._moments[-1]
        return (last.settled - first.settled) / max(last.instant - first.instant, 1e-9)

    def quantile(self, share: float) -> float | None:
        if not self._moments:
            return None
        return quantile(share, since(self._moments[-1].latency, self._moments[0].latency))
