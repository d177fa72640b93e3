"""The progress of a program that may take long, on standard error."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO, TypeVar

TERMINAL_INTERVAL = 0.2  # seconds between updates of the line on a terminal …
LINE_INTERVAL = 10.0  # … and between lines elsewhere

_ERASE = "\r\x1b[K"

Item = TypeVar("Item")


class ProgressLine:
    """On a terminal one line, which is erased at the end; elsewhere a line every 10 s; nothing if `quiet`."""

    def __init__(
        self,
        program: str,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._program = program
        self._quiet = quiet
        self._stream = stream or sys.stderr
        self._clock = clock
        self._shown = False

    def track(self, task: str, items: Iterable[Item], total: int | None = None) -> Iterator[Item]:
        """The items, each of which is done when the next one is asked for."""
        with self.task(task, total) as add:
            for item in items:
                yield item
                add(1)

    def erase(self) -> None:
        """Before another line is printed on the same terminal. The next update shows the progress again."""
        if self._shown:
            self._shown = False
            self._stream.write(_ERASE)
            self._stream.flush()

    @contextmanager
    def task(self, task: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Yields a function to be called with the number of items that were done since the last call."""
        if self._quiet:
            yield lambda _count: None
            return
        on_terminal = self._stream.isatty()
        interval = TERMINAL_INTERVAL if on_terminal else LINE_INTERVAL
        start = self._clock()
        done, due = 0, start + interval

        def add(count: int) -> None:
            nonlocal done, due
            done += count
            now = self._clock()
            if now < due:
                return
            due = now + interval
            line = f"{self._program}: {task}: {describe(done, total, now - start)}"
            self._stream.write(f"{_ERASE}{line}" if on_terminal else f"{line}\n")
            self._stream.flush()
            self._shown = on_terminal

        try:
            yield add
        finally:
            self.erase()


def describe(done: int, total: int | None, elapsed: float) -> str:
    """`200 of 1,000 (20 %), 100/s, 8 s left`."""
    rate = done / elapsed if elapsed > 0 else 0.0
    if not total:
        return f"{done:,}, {rate:,.0f}/s"
    left = f", {_duration(max(0, total - done) / rate)} left" if rate else ""
    return f"{done:,} of {total:,} ({min(100, done * 100 // total)} %), {rate:,.0f}/s{left}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
