"""`python -m local`: the program behind scripts/local.sh."""

import signal
import sys
from collections.abc import Callable, Sequence
from threading import Event
from types import FrameType

from local.errors import exit_code
from local.options import Options, parse
from local.run import run
from local.signals import stop_signals


def main(arguments: Sequence[str], run: Callable[[Options, Event], int] = run) -> int:
    """The exit code of a run with these arguments."""
    return exit_code("local.sh", lambda: _run_until_stopped(parse(arguments), run))


def _run_until_stopped(options: Options, run: Callable[[Options, Event], int]) -> int:
    """The first signal stops the run gracefully, the second at once, unless it is SIGHUP.

    A terminal that is closed may send SIGHUP twice.
    """
    stop = Event()

    def request_stop(number: int, _frame: FrameType | None) -> None:
        if stop.is_set() and number != signal.SIGHUP:
            raise KeyboardInterrupt
        stop.set()

    with stop_signals(request_stop):
        return run(options, stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
