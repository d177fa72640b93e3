"""What a message costs, in Python's instructions: a needless pass over the messages of a batch exceeds the limit.

Unlike CPU time they depend neither on the machine nor on its load, so a limit is a few instructions above what was
measured, and the shortest pass takes five. Functions that run once per batch are left out.
`./scripts/bench.sh --only instructions` shows the current numbers.
"""

import sys
from collections.abc import Iterator

import pytest

from bench.options import Options
from bench.parts.instructions import PYTHON, per_message, programs
from bench.suite import workbench
from bench.workbench import Workbench

LIMITS = {"our consumer": 279, "our producer": 111}
PER_MESSAGE = 1.0  # instructions; less than that is executed per batch


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    with workbench(Options(quiet=True), tmp_path_factory.mktemp("bench")) as found:
        yield found


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the limits are for the instructions of Python 3.11")
@pytest.mark.parametrize("program", LIMITS)
def test_a_message_costs_no_more_python_instructions_than_it_has_to(bench: Workbench, program: str) -> None:
    _, count = programs(bench)[program]

    functions = per_message(lambda messages: count(PYTHON, messages))

    found = {name: number for name, number in functions.items() if number >= PER_MESSAGE}
    assert sum(found.values()) <= LIMITS[program], found
