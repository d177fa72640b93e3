"""The live table; plain lines where the output is no terminal."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

LINE_EVERY = 2.0  # seconds, where there is no terminal


@dataclass(frozen=True)
class Row:
    """One consumer."""

    name: str
    process: int
    state: str
    partitions: tuple[int, ...]
    stored: int
    duplicates: int
    dead_lettered: int


@dataclass(frozen=True)
class Picture:
    """The run at one moment. Latencies are in seconds, from a message's creation to its being stored."""

    elapsed: float
    produced: int
    stored: int
    dead_lettered: int
    lag: int
    rate: float
    p50: float | None
    p99: float | None
    producer: str
    consumers: Sequence[Row]
    last: bool = False


class View(Protocol):
    """How a run is shown."""

    def show(self, picture: Picture) -> None: ...

    def say(self, line: str) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...


class LiveTable:
    """A table that is drawn again in place; what is said scrolls away above it."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def show(self, picture: Picture) -> None:
        self._live.update(Group(_totals(picture), _consumers(picture)), refresh=True)

    def say(self, line: str) -> None:
        self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()


class PlainLines:
    """A line now and then."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, write: Callable[[str], None] = print) -> None:
        self._clock = clock
        self._write = write
        self._due = 0.0

    def show(self, picture: Picture) -> None:
        if picture.last or self._clock() >= self._due:
            self._due = self._clock() + LINE_EVERY
            self.say(line(picture))

    def say(self, line: str) -> None:
        self._write(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Nothing to put back in order."""


def line(picture: Picture) -> str:
    consumers = " | ".join(
        _numbers(row.partitions) if row.state == "running" else row.state for row in picture.consumers
    )
    return (
        f"{picture.elapsed:5.1f} s  produced {picture.produced:,}  stored {picture.stored:,}"
        f"  dead-lettered {picture.dead_lettered:,}  lag {picture.lag:,}  {picture.rate:,.0f} msg/s"
        f"  p50 {seconds(picture.p50)}  p99 {seconds(picture.p99)}  partitions {consumers}"
    )


def seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def _totals(picture: Picture) -> Table:
    headings = ("elapsed", "produced", "stored", "dead-lettered", "lag", "msg/s", "p50", "p99", "producer")
    table = Table(*headings, expand=False)
    table.add_row(
        f"{picture.elapsed:.0f} s",
        f"{picture.produced:,}",
        f"{picture.stored:,}",
        f"{picture.dead_lettered:,}",
        f"{picture.lag:,}",
        f"{picture.rate:,.0f}",
        seconds(picture.p50),
        seconds(picture.p99),
        picture.producer,
    )
    return table


def _consumers(picture: Picture) -> Table:
    table = Table(
        "consumer", "process", "state", "partitions", "stored", "there already", "dead-lettered", expand=False
    )
    for row in picture.consumers:
        table.add_row(
            row.name,
            str(row.process),
            row.state,
            _numbers(row.partitions),
            f"{row.stored:,}",
            f"{row.duplicates:,}",
            f"{row.dead_lettered:,}",
        )
    return table


def _numbers(partitions: tuple[int, ...]) -> str:
    return " ".join(map(str, partitions)) or "none"
