"""`python -m chaos`: the program behind scripts/chaos.sh."""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from chaos import scenarios
from chaos.options import Options, parse, selected
from chaos.scenarios.scenario import Scenario
from chaos.suite import run
from local.__main__ import INTERRUPTED, stop_signals
from local.errors import CannotRun


def main(arguments: Sequence[str], run: Callable[[Options, Sequence[Scenario]], int] = run) -> int:
    """The exit status of a run with these arguments."""
    known = (*scenarios.ALL, *scenarios.ON_REQUEST)
    names = [scenario.name for scenario in known]
    options = parse(arguments, names, scenarios.PROTECTIONS)
    chosen = [scenario for scenario in known if scenario.name in selected(options, names)]
    if options.list:
        for scenario in chosen:
            print(f"{scenario.name}\n  {scenario.description}\n  tests: {', '.join(scenario.protections)}")
        return 0
    try:
        with _interrupted_by_signals():
            return run(options, chosen if options.only else scenarios.ALL)
    except CannotRun as error:
        print(f"chaos.sh: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """KeyboardInterrupt, so that servers and processes are stopped; for SIGHUP once: a closed terminal may send two."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
