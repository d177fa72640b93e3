"""The results of a bench: what was measured in each round, and the median with its spread."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from statistics import median
from typing import Any

from local.errors import CannotRun


@dataclass(frozen=True)
class Metric:
    """How a metric is shown."""

    title: str
    digits: int = 0


METRICS: Mapping[str, Metric] = {
    "messages_per_second": Metric("messages/s"),
    "cpu_us": Metric("CPU µs/message", 1),
    "sent_bytes": Metric("bytes/message"),
    "peak_mib": Metric("peak MiB"),
    "server_cpu_us": Metric("server's CPU µs/message", 1),
    "p50_ms": Metric("p50 ms", 1),
    "p99_ms": Metric("p99 ms", 1),
    "p999_ms": Metric("p99.9 ms", 1),
    "bytecodes": Metric("Python instructions/message"),
    "instructions": Metric("machine instructions/message"),
}


@dataclass
class Row:
    """One contender in one setting; each metric has a value for each round."""

    part: str
    contender: str
    setting: str = ""
    store: str = ""
    guarantee: str = ""
    note: str = ""
    metrics: dict[str, list[float]] = field(default_factory=dict)
    profile: dict[str, float] = field(default_factory=dict)
    """Python instructions per message of the functions that execute the most."""
    failed: bool = False

    @property
    def title(self) -> str:
        return ", ".join(text for text in (f"{self.part}: {self.contender}", self.setting, self.store) if text)

    def add(self, **values: float | None) -> None:
        """One round."""
        for name, value in values.items():
            if value is not None:
                self.metrics.setdefault(name, []).append(value)

    def median(self, metric: str) -> float | None:
        values = self.metrics.get(metric)
        return median(values) if values else None


@contextmanager
def failures_noted(*rows: Row) -> Iterator[None]:
    """A contender that fails does not end the bench; its rows say why."""
    try:
        yield
    except CannotRun as error:
        for row in rows:
            row.failed = True
            row.note = f"failed: {error}"


def summary(values: Sequence[float]) -> dict[str, Any]:
    return {"median": median(values), "min": min(values), "max": max(values), "rounds": list(values)}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def as_json(row: Row) -> dict[str, Any]:
    texts = {name: getattr(row, name) for name in ("part", "contender", "setting", "store", "guarantee", "note")}
    return {
        **{name: text for name, text in texts.items() if text},
        **({"profile": row.profile} if row.profile else {}),
        "metrics": {name: summary(values) for name, values in row.metrics.items()},
    }
