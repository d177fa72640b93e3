"""The chaos suite on the embedded servers, and on containers if a Docker engine is available."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from chaos import plan, verdict
from chaos.clusters import cluster
from chaos.load import NOTHING
from chaos.options import Options
from chaos.trial import trial
from local.plan import ROOT
from tests.docker_engine import require_images

EMPTY_AUDIT = dict.fromkeys(("produced", "stored", "dead_lettered", "pending", "lost", "twice", "repeated"), 0)
ON_CONTAINERS = (
    "consumer-killed-before-commit",
    "kafka-killed",
    "mongodb-frozen",
    "mongodb-connection-lost-mid-bulk",
    "mongodb-shard-unavailable-merge",
    "mongodb-rolls-back-merge",
)


def chaos(*arguments: str, report: Path) -> tuple[int, list[dict[str, Any]]]:
    """The exit status and the rows of a completed run."""
    done = subprocess.run(
        [sys.executable, "-m", "chaos", *arguments, "--report", str(report)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
    )
    assert has_summary(done.stdout), done.stdout + done.stderr
    return done.returncode, json.loads(report.read_text())["rows"]


SUMMARIES = ("PASS: ", "FAIL: ", "PROVED: ", "NOT PROVED: ", "NOTHING RUN: ")


def has_summary(output: str) -> bool:
    return any(line.startswith(SUMMARIES) for line in output.splitlines())


def only(names: Sequence[str]) -> list[str]:
    return [text for name in names for text in ("--only", name)]


def test_a_killed_consumer_loses_nothing_and_without_the_protection_it_does(tmp_path: Path) -> None:
    scenario = only(["consumer-killed-mid-batch"])

    status, [row] = chaos(*scenario, "--messages", "2000", report=tmp_path / "with.json")
    proved, [without] = chaos(*scenario, "--messages", "2000", "--prove", report=tmp_path / "without.json")

    assert (status, row["verdict"], row["lost"], row["twice"]) == (0, "pass", 0, 0)
    assert (proved, without["verdict"]) == (0, "FAIL")
    assert without["lost"] > 0


def test_a_consumer_is_stopped_when_it_has_started_because_sigterm_kills_a_starting_python(tmp_path: Path) -> None:
    names = plan.names("now", "test", 1)

    with cluster(Options()) as servers, trial(servers, names, tmp_path / "t", Options(), seed=1, without=()) as current:
        current.stop(current.processes.start_consumer())

    assert current.all_failures(verdict.count(EMPTY_AUDIT, NOTHING)) == []


def test_scenarios_that_need_servers_are_skipped_without_them(tmp_path: Path) -> None:
    status, rows = chaos(*only(["mongodb"]), report=tmp_path / "rows.json")

    assert status == 2
    assert {row["verdict"] for row in rows} == {"skipped"}


@pytest.mark.docker
def test_on_containers_nothing_is_lost_and_nothing_is_stored_twice(tmp_path: Path) -> None:
    require_images("Kafka and MongoDB in containers", "ZOOKEEPER_IMAGE", "KAFKA_IMAGE", "MONGO_IMAGE")

    status, rows = chaos("--on", "compose", "--quick", *only(ON_CONTAINERS), report=tmp_path / "rows.json")

    assert [(row["scenario"], row["verdict"], row["notes"]) for row in rows if row["verdict"] != "pass"] == []
    assert len(rows) == len(ON_CONTAINERS)
    assert status == 0
