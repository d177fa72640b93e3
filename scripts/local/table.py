"""The output of a run: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from local.metrics import ConsumerMetrics

LINE_INTERVAL = 2.0  # seconds


@dataclass(frozen=True)
class ConsumerRow:
    name: str
    pid: int
    state: str
    partitions: tuple[int, ...]
    metrics: ConsumerMetrics


@dataclass(frozen=True)
class Snapshot:
    """The run at one time. Latencies are seconds from the creation of a message until it is stored."""

    elapsed: float
    produced: int
    stored: int
    dead_lettered: int
    lag: int
    rate: float
    p50: float | None
    p99: float | None
    producer: str
    consumers: Sequence[ConsumerRow]
    last: bool = False


class View(Protocol):
    def show(self, snapshot: Snapshot) -> None: ...

    def print(self, line: str) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...


class LiveTable:
    """A table that is redrawn in place; printed lines scroll above it."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def show(self, snapshot: Snapshot) -> None:
        self._live.update(Group(_run_table(snapshot), _consumer_table(snapshot)), refresh=True)

    def print(self, line: str) -> None:
        self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()


class PlainLines:
    """One line every few seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, write: Callable[[str], None] = print) -> None:
        self._clock = clock
        self.print = write
        self._next = 0.0

    def show(self, snapshot: Snapshot) -> None:
        if snapshot.last or self._clock() >= self._next:
            self._next = self._clock() + LINE_INTERVAL
            self.print(line(snapshot))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Nothing to restore."""


def line(snapshot: Snapshot) -> str:
    consumers = " | ".join(
        _numbers(row.partitions) if row.state == "running" else row.state for row in snapshot.consumers
    )
    totals = "  ".join(f"{name} {total}" for name, total in _totals(snapshot).items())
    return f"{snapshot.elapsed:5.1f} s  {totals}  partitions {consumers}"


def _totals(snapshot: Snapshot) -> dict[str, str]:
    return {
        "produced": f"{snapshot.produced:,}",
        "stored": f"{snapshot.stored:,}",
        "dead-lettered": f"{snapshot.dead_lettered:,}",
        "lag": f"{snapshot.lag:,}",
        "msg/s": f"{snapshot.rate:,.0f}",
        "p50": seconds(snapshot.p50),
        "p99": seconds(snapshot.p99),
    }


def seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def _run_table(snapshot: Snapshot) -> Table:
    cells = {"elapsed": f"{snapshot.elapsed:.0f} s", **_totals(snapshot), "producer": snapshot.producer}
    table = Table(*cells)
    table.add_row(*cells.values())
    return table


def _consumer_table(snapshot: Snapshot) -> Table:
    table = Table("consumer", "pid", "state", "partitions", "stored", "duplicates", "dead-lettered")
    for row in snapshot.consumers:
        counts = (row.metrics.stored, row.metrics.duplicates, row.metrics.dead_lettered)
        cells = (f"{count:,}" for count in counts)
        table.add_row(row.name, str(row.pid), row.state, _numbers(row.partitions), *cells)
    return table


def _numbers(partitions: tuple[int, ...]) -> str:
    return " ".join(map(str, partitions)) or "none"
