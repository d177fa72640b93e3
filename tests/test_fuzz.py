"""Random and mutated inputs, as `scripts/fuzz.sh` feeds them, and few; and that a broken promise is found."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from fuzz.options import Options, Task
from fuzz.run import run

SEED = 20_261_125


def test_random_messages_and_settings_break_no_promise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(Options(seed=SEED, messages=4000), tmp_path)

    said = capsys.readouterr().out
    assert (code, list(tmp_path.iterdir())) == (0, []), said
    assert "PASS: 6,300 inputs, 0 findings" in said
    assert all(outcome in said for outcome in (" stored\n", " not_json\n", " id_conflict\n", " refused\n", " kept\n"))


def test_a_process_that_dies_of_an_input_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def dying(_task: Task) -> Sequence[str]:
        return [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"]

    code = run(Options(seed=SEED, messages=8, only="producer.lines"), tmp_path, command=dying)

    assert code == 1
    assert "crash: SIGSEGV" in capsys.readouterr().out
    (kept, *_) = sorted(tmp_path.iterdir())
    assert json.loads(kept.read_text())["repeat"].startswith(
        f"scripts/fuzz.sh --seed {SEED} --only producer.lines --at "
    )


def test_a_process_that_ends_in_an_error_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def failing(_task: Task) -> Sequence[str]:
        return [sys.executable, "-c", "raise SystemExit(3)"]

    code = run(Options(seed=SEED, messages=8, only="producer.lines"), tmp_path, command=failing)

    assert code == 1
    assert "the process ended with 3" in capsys.readouterr().out
