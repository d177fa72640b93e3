"""`python -m bench`: the program behind scripts/bench.sh."""

import sys
from collections.abc import Callable, Sequence

from bench.options import Options, parse
from bench.suite import run
from local.errors import exit_code
from local.signals import interrupt, stop_signals


def main(arguments: Sequence[str], run: Callable[[Options, Sequence[str]], int] = run) -> int:
    """The exit code of a run with these arguments."""
    return exit_code("bench.sh", lambda: _main(arguments, run))


def _main(arguments: Sequence[str], run: Callable[[Options, Sequence[str]], int]) -> int:
    options = parse(arguments)
    with stop_signals(interrupt):
        return run(options, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
