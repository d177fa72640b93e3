"""`python -m bench`: the program behind scripts/bench.sh."""

import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from bench.options import Options, parse
from bench.suite import run
from local.errors import exit_code
from local.signals import stop_signals


def main(arguments: Sequence[str], run: Callable[[Options, Sequence[str]], int] = run) -> int:
    """The exit code of a run with these arguments."""
    return exit_code("bench.sh", lambda: _main(arguments, run))


def _main(arguments: Sequence[str], run: Callable[[Options, Sequence[str]], int]) -> int:
    options = parse(arguments)
    with stop_signals(_interrupt):
        return run(options, arguments)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    """So that servers and processes are stopped. For SIGHUP once: a terminal that is closed may send it twice."""
    if number == signal.SIGHUP:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
