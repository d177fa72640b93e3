"""The output of a run: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

LINE_INTERVAL = 2.0  # seconds


@dataclass(frozen=True)
class ConsumerRow:
    name: str
    pid: int
    state: str
    partitions: tuple[int, ...]
    stored: int
    duplicates: int
    dead_lettered: int


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
        self._live.update(Group(_totals(snapshot), _consumers(snapshot)), refresh=True)

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
    return (
        f"{snapshot.elapsed:5.1f} s  produced {snapshot.produced:,}  stored {snapshot.stored:,}"
        f"  dead-lettered {snapshot.dead_lettered:,}  lag {snapshot.lag:,}  {snapshot.rate:,.0f} msg/s"
        f"  p50 {seconds(snapshot.p50)}  p99 {seconds(snapshot.p99)}  partitions {consumers}"
    )


def seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def _totals(snapshot: Snapshot) -> Table:
    return _table(
        ("elapsed", "produced", "stored", "dead-lettered", "lag", "msg/s", "p50", "p99", "producer"),
        (
            f"{snapshot.elapsed:.0f} s",
            f"{snapshot.produced:,}",
            f"{snapshot.stored:,}",
            f"{snapshot.dead_lettered:,}",
            f"{snapshot.lag:,}",
            f"{snapshot.rate:,.0f}",
            seconds(snapshot.p50),
            seconds(snapshot.p99),
            snapshot.producer,
        ),
    )


def _consumers(snapshot: Snapshot) -> Table:
    return _table(
        ("consumer", "pid", "state", "partitions", "stored", "duplicates", "dead-lettered"),
        *(
            (
                row.name,
                str(row.pid),
                row.state,
                _numbers(row.partitions),
                f"{row.stored:,}",
                f"{row.duplicates:,}",
                f"{row.dead_lettered:,}",
            )
            for row in snapshot.consumers
        ),
    )


def _table(headings: Sequence[str], *rows: Sequence[str]) -> Table:
    table = Table(*headings)
    for row in rows:
        table.add_row(*row)
    return table


def _numbers(partitions: tuple[int, ...]) -> str:
    return " ".join(map(str, partitions)) or "none"
