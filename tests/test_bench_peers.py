"""The peers of the bench: pinned, apart from the bench, and skipped with a reason where they cannot be installed."""

import re
import sys
from pathlib import Path
from subprocess import run
from xml.etree import ElementTree

import pytest

from bench.contender import Contender, Job
from bench.parts.consumer import installed
from bench.peers import PEERS, kafka_connect, python
from bench.running import environment
from local.errors import CannotRun

JOB = Job("127.0.0.1:1", "topic", "group", "mongodb://user:secret@127.0.0.1:2/", "database", "collection", 5_000)
PROGRAMS = sorted(python.PEERS.glob("*/consumer.py"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.parent.name)
def test_a_peer_in_python_has_pinned_packages_and_starts_outside_the_bench(program: Path, tmp_path: Path) -> None:
    name = program.parent.name
    lines = (program.parent / "requirements.txt").read_text().splitlines()
    packages = [re.fullmatch(r"([\w-]+)==[\d.]+( +#.*)?", line) for line in lines]

    peer = python.peer(name, tmp_path, "none", "")

    assert all(packages)
    assert name in [package[1] for package in packages if package]
    assert [*peer.command(JOB, tmp_path)][-3:] == [str(tmp_path / name / "bin" / "python"), "-P", str(program)]


def test_a_peer_has_neither_the_modules_nor_the_allocator_settings_of_the_bench() -> None:
    show = [*python.OWN_ENVIRONMENT, sys.executable, "-c", "import os; print(sorted(os.environ))"]

    shown = run(show, env=environment(JOB.environment), capture_output=True, text=True, check=True).stdout

    assert "BENCH_TOPIC" in shown
    assert "PYTHONPATH" not in shown
    assert "MALLOC_ARENA_MAX" not in shown


def test_the_jars_of_kafka_connect_are_pinned() -> None:
    versions = [
        element.text or "" for element in ElementTree.parse(kafka_connect.POM).iter() if "version" in element.tag
    ]

    assert len(versions) == 5  # with those of the project itself and of the plugin
    assert all(re.fullmatch(r"[\d.]+", version) for version in versions)


def test_kafka_connect_gets_the_job_in_files_that_only_the_user_can_read(tmp_path: Path) -> None:
    command = [*kafka_connect.peer(tmp_path).command(JOB, tmp_path)]

    worker, sink = (Path(argument) for argument in command[-2:])
    assert "bootstrap.servers=127.0.0.1:1\n" in worker.read_text()
    assert {"topics=topic", "name=group", f"connection.uri={JOB.mongodb_uri}"} <= {*sink.read_text().splitlines()}
    assert [oct(path.stat().st_mode & 0o777) for path in (worker, sink)] == ["0o600", "0o600"]
    assert not any("secret" in argument for argument in command)


def test_kafka_connect_requires_java_and_maven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(CannotRun, match="Java 11 or newer and Maven are not installed"):
        kafka_connect.install(tmp_path / "jars")


def test_packages_that_cannot_be_installed_are_a_reason_to_skip_a_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requirements, venv = tmp_path / "requirements.txt", tmp_path / "venv"
    requirements.write_text("absent==1.0\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")

    with pytest.raises(CannotRun, match=rf"its packages cannot be installed; see {venv}/pip\.log"):
        python.install(requirements, venv)

    assert "absent==1.0" in (venv / "pip.log").read_text()


def test_packages_are_installed_once(tmp_path: Path) -> None:
    requirements, venv = tmp_path / "requirements.txt", tmp_path / "venv"
    requirements.write_text("absent==1.0\n")
    venv.mkdir()
    (venv / "complete.stamp").write_text("absent==1.0\n")

    python.install(requirements, venv)

    assert [path.name for path in venv.iterdir()] == ["complete.stamp"]


def _peer(name: str, reason: str | None = None, *, on_embedded: bool = True) -> Contender:
    def prepare() -> None:
        if reason:
            raise CannotRun(reason)

    return Contender(name, lambda _job, _folder: [], prepare=prepare, on_embedded=on_embedded)


def test_a_peer_that_cannot_run_has_a_row_with_the_reason() -> None:
    peers = [_peer("first"), _peer("second", "no Java"), _peer("third", on_embedded=False)]

    ready, skipped = installed(peers, lambda _text: None, embedded=True)
    ready_on_kafka, _ = installed(peers, lambda _text: None, embedded=False)

    assert [peer.name for peer in ready] == ["first"]
    assert [peer.name for peer in ready_on_kafka] == ["first", "third"]
    assert [(row.contender, row.note, row.failed) for row in skipped] == [
        ("second", "skipped: no Java", False),
        ("third", "skipped: it does not work with the embedded broker; use --kafka", False),
    ]


def test_every_program_is_a_peer() -> None:
    assert [peer.name for peer in PEERS] == ["pathway", "quixstreams", "faststream", "kafka-connect"]
    assert {path.parent.name for path in PROGRAMS} | {"kafka-connect"} == {peer.name for peer in PEERS}
