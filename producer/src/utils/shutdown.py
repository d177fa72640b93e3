"""Signals: those that ask a program to stop set the event that all its waits are on, or end the process at once."""

import _thread
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, current_thread, main_thread
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU)
"""From a supervisor, Ctrl-C, a terminal or SSH session that has ended, a CPU time limit. SIGQUIT ends at once."""

_MAY_BE_IGNORED = frozenset((signal.SIGHUP, signal.SIGXCPU))


@contextmanager
def stopping_on_signals(stop: Event) -> Iterator[None]:
    """While the block runs, STOP_SIGNALS set `stop` and do nothing else, however many arrive.

    SIGHUP and SIGXCPU stay ignored where they were, as under `nohup`. Outside the main thread, where Python has no
    signal handlers, the caller sets `stop` itself.
    """
    if current_thread() is not main_thread():
        yield
        return

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        # not here: the main thread may hold the event's lock, as in `wait`, or in `set` for a signal just before
        _thread.start_new_thread(stop.set, ())

    before = {number: signal.signal(number, ask_to_stop) for number in STOP_SIGNALS if not _stays_ignored(number)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stays_ignored(number: signal.Signals) -> bool:
    return number in _MAY_BE_IGNORED and signal.getsignal(number) is signal.SIG_IGN


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
