"""The fuzz command with few examples, and that it finds hangs and crashes."""

import os
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.progress import Progress

from fuzz import plugin
from fuzz.__main__ import follow, main, parse
from local.plan import ROOT

TEMPLATE = """
import os, signal
from hypothesis import given, strategies as st

@given(st.integers())
def test_property(number):
    if number > 10:
        {}
"""


def fuzzed(statement: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """A run of one property test that executes the statement for some examples."""
    (folder / "test_it.py").write_text(TEMPLATE.format(statement), encoding="utf-8")
    settings = {plugin.EXAMPLES: "100", plugin.TIMEOUT: "0.2", plugin.FOLDER: str(folder), plugin.MONGODB: ""}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--capture=sys", "-p", "fuzz.plugin", "--hypothesis-profile=fuzz", folder],
        env={**os.environ, **settings, "PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
    )


def test_every_property_holds(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--examples", "20", "-k", "fuzz"])

    output = capsys.readouterr().out
    assert status == 0, output
    assert output.count(" passed") == 2
    assert output.endswith("PASS: every property holds\n")


def test_an_unknown_expression_selects_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-k", "no_such_test"]) == 2
    assert "no test matches" in capsys.readouterr().err


def test_an_example_that_hangs_is_interrupted_and_shrunk(tmp_path: Path) -> None:
    done = fuzzed("while True: pass", tmp_path)

    assert done.returncode == 1
    assert "hang: the example takes more than 0.2 s" in done.stdout
    assert "number=11" in done.stdout


def test_a_hang_that_cannot_be_interrupted_ends_the_process_with_a_traceback(tmp_path: Path) -> None:
    done = fuzzed("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]); signal.pause()", tmp_path)

    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "test_it.py" in done.stderr
    assert (tmp_path / "last-example").read_text().startswith("test_it.test_property {'number': ")


def test_the_last_example_is_known_after_a_crash(tmp_path: Path) -> None:
    done = fuzzed("os.kill(os.getpid(), signal.SIGSEGV)", tmp_path)

    assert done.returncode == -signal.SIGSEGV
    assert (tmp_path / "last-example").read_text().startswith("test_it.test_property {'number': ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--examples", "0"], "is not a positive integer"),
        (["--examples", "5", "--seconds", "5"], "not allowed with argument"),
        (["--mongodb", "http://x"], "begins with mongodb://"),
    ],
)
def test_an_invalid_option_is_an_error_message(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parse(arguments)

    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_the_progress_of_the_tests_is_followed() -> None:
    progress = Progress(disable=True)

    follow(StringIO("4\n1\n1\n1\n"), progress, "consumer")

    (task,) = progress.tasks
    assert (task.description, task.completed, task.total) == ("consumer", 3, 4)


def test_the_plugin_reports_the_number_of_tests_and_each_that_has_ended(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    (tmp_path / "test_it.py").write_text("def test_a(): pass\ndef test_b(): pass\n")
    settings = {plugin.EXAMPLES: "1", plugin.TIMEOUT: "1", plugin.FOLDER: str(tmp_path), plugin.PROGRESS: str(writer)}

    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "fuzz.plugin", "test_it.py"],
        cwd=tmp_path,
        env={**os.environ, **settings, "PYTHONPATH": str(ROOT / "scripts")},
        pass_fds=[writer],
        check=True,
        capture_output=True,
    )

    os.close(writer)
    with open(reader) as lines:
        assert lines.read() == "2\n1\n1\n"
