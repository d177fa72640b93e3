"""The proof itself, on the embedded servers, and on containers where a Docker engine answers."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from local.plan import ROOT

ON_CONTAINERS = ("consumer-killed-before-commit", "kafka-killed", "mongodb-frozen", "mongodb-cut-in-mid-bulk")


def chaos(*arguments: str, report: Path) -> tuple[int, list[dict[str, Any]]]:
    """The exit status and the rows of a run that came to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "chaos", *arguments, "--report", str(report)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
    )
    assert sentence(done.stdout), done.stdout + done.stderr
    return done.returncode, json.loads(report.read_text())["rows"]


VERDICTS = ("PASS: ", "FAIL: ", "PROVED: ", "NOT PROVED: ", "NOTHING TRIED: ")


def sentence(output: str) -> bool:
    return any(line.startswith(VERDICTS) for line in output.splitlines())


def asked(names: Sequence[str]) -> list[str]:
    return [text for name in names for text in ("--only", name)]


def test_a_consumer_that_is_killed_loses_nothing_and_without_the_protection_it_would(tmp_path: Path) -> None:
    scenario = asked(["consumer-killed-in-mid-batch"])

    status, [row] = chaos(*scenario, "--messages", "2000", report=tmp_path / "with.json")
    proved, [without] = chaos(*scenario, "--messages", "2000", "--prove", report=tmp_path / "without.json")

    assert (status, row["verdict"], row["lost"], row["twice"]) == (0, "pass", 0, 0)
    assert (proved, without["verdict"]) == (0, "FAIL")
    assert without["lost"] > 0


def test_what_can_not_be_done_without_servers_is_not_here(tmp_path: Path) -> None:
    status, rows = chaos(*asked(["mongodb"]), report=tmp_path / "rows.json")

    assert status == 2
    assert {row["verdict"] for row in rows} == {"not here"}


@pytest.mark.docker
def test_on_containers_nothing_is_lost_and_nothing_is_stored_twice(tmp_path: Path) -> None:
    if subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no Docker engine answers here")

    status, rows = chaos("--on", "compose", "--quick", *asked(ON_CONTAINERS), report=tmp_path / "rows.json")

    assert [(row["scenario"], row["verdict"], row["notes"]) for row in rows if row["verdict"] != "pass"] == []
    assert len(rows) == len(ON_CONTAINERS)
    assert status == 0
