"""`python -m local`: the program behind scripts/local.sh."""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from types import FrameType

from local.errors import CannotRun
from local.options import Options, parse
from local.run import run

INTERRUPTED = 130  # the exit status of a program that Ctrl-C has ended


def main(arguments: Sequence[str], run: Callable[[Options, Event], int] = run) -> int:
    """The exit status of a run with these arguments."""
    options = parse(arguments)
    try:
        with _stopping_on_signals() as stop:
            return run(options, stop)
    except CannotRun as error:
        print(f"local.sh: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted: no audit was made.", file=sys.stderr)
        return INTERRUPTED


@contextmanager
def _stopping_on_signals() -> Iterator[Event]:
    """The first signal sets the event for a graceful stop; the second raises KeyboardInterrupt, unless it is SIGHUP.

    A terminal that is closed may send SIGHUP twice. It stays ignored where it was, as under `nohup`.
    """
    stop = Event()

    def request_stop(number: int, _frame: FrameType | None) -> None:
        if stop.is_set() and number != signal.SIGHUP:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, request_stop) for number in stop_signals()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_signals() -> list[signal.Signals]:
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
