"""setup.sh and teardown.sh against a `docker` of ours, which answers as a machine would and notes what it is asked."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PASSWORDS = ["consumer", "elasticsearch", "filebeat", "grafana", "kibana", "mongodb", "mongodb-exporter"]

FAKE_DOCKER = r"""#!/bin/sh
echo "$*${COMPOSE_PROFILES:+ with $COMPOSE_PROFILES}" >> "$ASKED"
case "$*" in
  "version --format"*) echo "$FAKE_ENGINE" ;;
  "compose version --short") echo "$FAKE_COMPOSE" ;;
  "compose config") printf 'name: kafka-pubsub\n' ;;
  "info --format {{.MemTotal}}") echo "$FAKE_MEMORY" ;;
  "info --format {{.DockerRootDir}}") echo / ;;
  "volume ls"*) printf '%s' "$FAKE_VOLUMES" ;;
  "compose port"*) echo 127.0.0.1:1 ;;
  "compose up"*) exit "$FAKE_UP" ;;
esac
"""


class Machine:
    """A checkout, and a Docker of which each test says what it is like."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "Kafka.PubSub (v1)"
        self.passwords = self.checkout / "secrets"
        self._asked = folder / "asked"
        shutil.copytree(ROOT / "scripts", self.checkout / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        self.passwords.mkdir()
        programs = folder / "bin"
        programs.mkdir()
        docker = programs / "docker"
        docker.write_text(FAKE_DOCKER)
        docker.chmod(0o755)
        self._environ = {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "ASKED": str(self._asked),
            "FAKE_ENGINE": "28.2.2",
            "FAKE_COMPOSE": "2.40.3-3",
            "FAKE_MEMORY": str(8 << 30),
            "FAKE_VOLUMES": "",
            "FAKE_UP": "0",
        }

    def run(self, script: str, *options: str, **differently: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.checkout / "scripts" / script, *options],
            env={**self._environ, **differently},
            stdin=subprocess.DEVNULL,
            text=True,
            capture_output=True,
        )

    @property
    def asked(self) -> str:
        return self._asked.read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_setup_starts_the_stack_and_says_where_to_look(machine: Machine) -> None:
    done = machine.run("setup.sh")

    assert done.returncode == 0
    assert "compose up --detach --build --wait" in machine.asked
    assert "Grafana        http://127.0.0.1:1" in done.stdout


@pytest.mark.parametrize(("already", "profiles"), [("", "elk"), ("mine", "mine,elk")])
def test_setup_starts_the_logs_too_when_asked_to(machine: Machine, already: str, profiles: str) -> None:
    done = machine.run("setup.sh", "--elk", COMPOSE_PROFILES=already)

    assert done.returncode == 0
    assert re.search(rf"compose up --detach --build --wait .* with {profiles}\n", machine.asked)
    assert "Kibana         http://127.0.0.1:1" in done.stdout


def test_setup_says_nothing_of_kibana_where_it_does_not_start_it(machine: Machine) -> None:
    assert "Kibana" not in machine.run("setup.sh").stdout
    assert "with" not in machine.asked


def test_setup_wants_more_memory_for_the_logs(machine: Machine) -> None:
    five_gib = str(5 << 30)

    assert "warn" not in machine.run("setup.sh", FAKE_MEMORY=five_gib).stdout
    assert "wants about 7 GiB" in machine.run("setup.sh", "--elk", FAKE_MEMORY=five_gib).stdout


def test_setup_fails_where_the_stack_does_not_come_up(machine: Machine) -> None:
    done = machine.run("setup.sh", FAKE_UP="1")

    assert done.returncode == 1
    assert "docker compose logs" in done.stderr


@pytest.mark.parametrize(
    "versions", [{"FAKE_ENGINE": "19.3.1"}, {"FAKE_COMPOSE": "2.23.9"}, {"FAKE_COMPOSE": "v1.29.2"}]
)
def test_setup_says_what_is_too_old_and_starts_nothing(machine: Machine, versions: dict[str, str]) -> None:
    done = machine.run("setup.sh", **versions)

    assert done.returncode == 2
    assert "or newer is needed" in done.stderr
    assert "compose up" not in machine.asked


@pytest.mark.parametrize(
    "versions", [{"FAKE_ENGINE": "20.10.24+dfsg1"}, {"FAKE_COMPOSE": "2.24.0"}, {"FAKE_COMPOSE": "v5.0.1"}]
)
def test_setup_takes_the_oldest_versions_and_newer_ones(machine: Machine, versions: dict[str, str]) -> None:
    assert machine.run("setup.sh", "--check", **versions).returncode == 0


def test_setup_warns_of_little_memory_and_goes_on(machine: Machine) -> None:
    done = machine.run("setup.sh", FAKE_MEMORY=str(2 << 30))

    assert done.returncode == 0
    assert "2048 MiB of memory" in done.stdout


def test_setup_only_checks_when_asked_to(machine: Machine) -> None:
    machine.run("setup.sh", "--check", "--random-passwords")

    assert "compose up" not in machine.asked
    assert list(machine.passwords.iterdir()) == []


def test_passwords_of_chance_are_long_different_and_for_the_owners_eyes(machine: Machine) -> None:
    machine.run("setup.sh", "--random-passwords")

    files = sorted(machine.passwords.iterdir())
    lines = [file.read_text() for file in files]
    assert sorted(file.stem for file in files) == PASSWORDS
    assert [line for line in lines if not re.fullmatch(r"[A-Z_]+=[A-Za-z0-9]{32}\n", line)] == []
    assert len({line.split("=")[1] for line in lines}) == len(PASSWORDS)
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


@pytest.mark.parametrize("name", PASSWORDS)
def test_a_password_of_chance_takes_the_place_of_the_one_in_env(machine: Machine, name: str) -> None:
    machine.run("setup.sh", "--random-passwords")

    default = (ROOT / "scripts" / "compose" / f"{name}.env").read_text()
    variable = (machine.passwords / f"{name}.env").read_text().split("=")[0]
    assert f"\n{variable}=" in default


def test_passwords_of_chance_are_refused_where_there_is_data(machine: Machine) -> None:
    done = machine.run("setup.sh", "--random-passwords", FAKE_VOLUMES="kafka-pubsub_mongodb-data\n")

    assert done.returncode == 2
    assert "lock out" in done.stderr
    assert list(machine.passwords.iterdir()) == []


def test_passwords_of_chance_are_refused_where_there_are_some(machine: Machine) -> None:
    (machine.passwords / "grafana.env").write_text("GF_SECURITY_ADMIN_PASSWORD=mine\n")

    done = machine.run("setup.sh", "--random-passwords")

    assert done.returncode == 2
    assert [file.name for file in machine.passwords.iterdir()] == ["grafana.env"]


def test_teardown_keeps_the_data(machine: Machine) -> None:
    assert machine.run("teardown.sh").returncode == 0

    assert "compose --profile * down --remove-orphans" in machine.asked
    assert "--volumes" not in machine.asked


def test_teardown_deletes_no_data_unasked(machine: Machine) -> None:
    assert machine.run("teardown.sh", "--volumes").returncode == 2

    assert "down" not in machine.asked


def test_teardown_deletes_the_data_when_told_to(machine: Machine) -> None:
    assert machine.run("teardown.sh", "--volumes", "--yes").returncode == 0

    assert "down --remove-orphans --volumes" in machine.asked


@pytest.mark.parametrize("script", ["setup.sh", "teardown.sh"])
def test_an_unknown_option_is_refused(machine: Machine, script: str) -> None:
    done = machine.run(script, "--bogus")

    assert done.returncode == 2
    assert "--bogus" in done.stderr
