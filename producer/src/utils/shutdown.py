"""Signals: SIGTERM and SIGINT set the event that every wait in the program listens to, or end the process at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, current_thread, main_thread
from types import FrameType


@contextmanager
def stopping_on_signals(stop: Event) -> Iterator[None]:
    """While the block runs, SIGTERM and SIGINT set `stop` and do nothing else.

    Outside the main thread, where Python has no signal handlers, the caller sets `stop` itself.
    """
    if current_thread() is not main_thread():
        yield
        return

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """While the block runs, SIGINT ends the process immediately, even during a client call, as SIGTERM does.

    For programs that need no cleanup.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
