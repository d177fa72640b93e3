"""`python -m chaos`: the program behind scripts/chaos.sh."""

import sys
from collections.abc import Callable, Sequence

from chaos import scenarios
from chaos.options import Options, parse, selected
from chaos.scenarios.scenario import Scenario
from chaos.suite import run
from local.errors import exit_code
from local.signals import interrupt, stop_signals


def main(arguments: Sequence[str], run: Callable[[Options, Sequence[Scenario]], int] = run) -> int:
    """The exit code of a run with these arguments."""
    return exit_code("chaos.sh", lambda: _main(arguments, run))


def _main(arguments: Sequence[str], run: Callable[[Options, Sequence[Scenario]], int]) -> int:
    known = (*scenarios.ALL, *scenarios.ON_REQUEST)
    names = [scenario.name for scenario in known]
    options = parse(arguments, names, scenarios.PROTECTIONS)
    chosen = [scenario for scenario in known if scenario.name in selected(options, names)]
    if options.list:
        for scenario in chosen:
            print(f"{scenario.name}\n  {scenario.description}\n  protections: {', '.join(scenario.protections)}")
        return 0

    with stop_signals(interrupt):
        return run(options, chosen if options.only else scenarios.ALL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
