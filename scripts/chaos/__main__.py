"""`python -m chaos`: what scripts/chaos.sh starts."""

import signal
import sys
from collections.abc import Callable, Sequence

from chaos import scenarios
from chaos.options import Options, chosen, parse
from chaos.scenarios.scenario import Scenario
from chaos.suite import run
from local.errors import CannotRun

INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ended


def main(arguments: Sequence[str], run: Callable[[Options, Sequence[Scenario]], int] = run) -> int:
    """The exit status of a proof with these arguments."""
    known = (*scenarios.ALL, *scenarios.ON_REQUEST)
    names = [scenario.name for scenario in known]
    options = parse(arguments, names, scenarios.PROTECTIONS)
    wanted = chosen(options, names)
    selected = [scenario for scenario in known if scenario.name in wanted]
    if not options.only and not options.list:
        selected = list(scenarios.ALL)
    if options.list:
        for scenario in selected:
            print(f"{scenario.name}\n  {scenario.story}\n  without: {', '.join(scenario.protection)}")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends it, servers and processes end with it
    try:
        return run(options, selected)
    except CannotRun as error:
        print(f"chaos.sh: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Ended before its end.", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
