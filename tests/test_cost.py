"""What a message costs, in Python's instructions: a needless pass over the messages of a batch exceeds the limit.

Unlike CPU time they depend neither on the machine nor on its load, so the limits are close to what was measured.
`./scripts/bench.sh --only instructions` shows the current numbers.
"""

from collections.abc import Iterator

import pytest

from bench.options import Options
from bench.parts.instructions import PYTHON, per_message, programs
from bench.suite import workbench
from bench.workbench import Workbench

LIMITS = {"our consumer": 2_400, "our producer": 460}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    with workbench(Options(quiet=True), tmp_path_factory.mktemp("bench")) as found:
        yield found


@pytest.mark.parametrize("program", LIMITS)
def test_a_message_costs_no_more_python_instructions_than_it_has_to(bench: Workbench, program: str) -> None:
    _, count = programs(bench)[program]

    assert per_message(lambda messages: count(PYTHON, messages)) <= LIMITS[program]
