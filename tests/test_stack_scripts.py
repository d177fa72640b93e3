"""setup.sh and teardown.sh against a fake `docker` command that records its arguments."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PASSWORDS = ["consumer", "elasticsearch", "filebeat", "grafana", "kibana", "mongodb", "mongodb-exporter"]

FAKE_DOCKER = r"""#!/bin/sh
echo "$*${COMPOSE_PROFILES:+ with $COMPOSE_PROFILES}" >> "$CALLS"
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
    """A copy of the scripts and a fake Docker, configured by each test."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "Kafka.PubSub (v1)"
        self.passwords = self.checkout / "secrets"
        self._calls = folder / "calls"
        shutil.copytree(ROOT / "scripts", self.checkout / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        self.passwords.mkdir()
        programs = folder / "bin"
        programs.mkdir()
        docker = programs / "docker"
        docker.write_text(FAKE_DOCKER)
        docker.chmod(0o755)
        self._environ = {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "CALLS": str(self._calls),
            "FAKE_ENGINE": "28.2.2",
            "FAKE_COMPOSE": "2.40.3-3",
            "FAKE_MEMORY": str(8 << 30),
            "FAKE_VOLUMES": "",
            "FAKE_UP": "0",
        }

    def run(self, script: str, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.checkout / "scripts" / script, *options],
            env={**self._environ, **environ},
            stdin=subprocess.DEVNULL,
            text=True,
            capture_output=True,
        )

    @property
    def calls(self) -> str:
        return self._calls.read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_setup_starts_the_stack_and_prints_the_urls(machine: Machine) -> None:
    done = machine.run("setup.sh")

    assert done.returncode == 0
    assert "compose up --detach --build --wait" in machine.calls
    assert "Grafana        http://127.0.0.1:1" in done.stdout


@pytest.mark.parametrize(("existing", "profiles"), [("", "elk"), ("mine", "mine,elk")])
def test_setup_with_elk_enables_the_profile(machine: Machine, existing: str, profiles: str) -> None:
    done = machine.run("setup.sh", "--elk", COMPOSE_PROFILES=existing)

    assert done.returncode == 0
    assert re.search(rf"compose up --detach --build --wait .* with {profiles}\n", machine.calls)
    assert "Kibana         http://127.0.0.1:1" in done.stdout


def test_setup_without_elk_does_not_mention_kibana(machine: Machine) -> None:
    assert "Kibana" not in machine.run("setup.sh").stdout
    assert "with" not in machine.calls


def test_setup_with_elk_requires_more_memory(machine: Machine) -> None:
    five_gib = str(5 << 30)

    assert "warn" not in machine.run("setup.sh", FAKE_MEMORY=five_gib).stdout
    assert "needs about 7 GiB" in machine.run("setup.sh", "--elk", FAKE_MEMORY=five_gib).stdout


def test_setup_fails_if_the_stack_does_not_start(machine: Machine) -> None:
    done = machine.run("setup.sh", FAKE_UP="1")

    assert done.returncode == 1
    assert "docker compose logs" in done.stderr


@pytest.mark.parametrize(
    "versions", [{"FAKE_ENGINE": "19.3.1"}, {"FAKE_COMPOSE": "2.23.9"}, {"FAKE_COMPOSE": "v1.29.2"}]
)
def test_setup_reports_outdated_versions_and_starts_nothing(machine: Machine, versions: dict[str, str]) -> None:
    done = machine.run("setup.sh", **versions)

    assert done.returncode == 2
    assert "or newer is required" in done.stderr
    assert "compose up" not in machine.calls


@pytest.mark.parametrize(
    "versions", [{"FAKE_ENGINE": "20.10.24+dfsg1"}, {"FAKE_COMPOSE": "2.24.0"}, {"FAKE_COMPOSE": "v5.0.1"}]
)
def test_setup_accepts_the_minimum_versions_and_newer_ones(machine: Machine, versions: dict[str, str]) -> None:
    assert machine.run("setup.sh", "--check", **versions).returncode == 0


def test_setup_warns_about_low_memory_and_continues(machine: Machine) -> None:
    done = machine.run("setup.sh", FAKE_MEMORY=str(2 << 30))

    assert done.returncode == 0
    assert "2048 MiB of memory" in done.stdout


def test_setup_check_starts_and_writes_nothing(machine: Machine) -> None:
    machine.run("setup.sh", "--check", "--random-passwords")

    assert "compose up" not in machine.calls
    assert list(machine.passwords.iterdir()) == []


def test_random_passwords_are_long_unique_and_readable_by_the_owner_only(machine: Machine) -> None:
    machine.run("setup.sh", "--random-passwords")

    files = sorted(machine.passwords.iterdir())
    lines = [file.read_text() for file in files]
    assert sorted(file.stem for file in files) == PASSWORDS
    assert [line for line in lines if not re.fullmatch(r"[A-Z_]+=[A-Za-z0-9]{32}\n", line)] == []
    assert len({line.split("=")[1] for line in lines}) == len(PASSWORDS)
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


@pytest.mark.parametrize("name", PASSWORDS)
def test_a_random_password_overrides_the_one_in_env(machine: Machine, name: str) -> None:
    machine.run("setup.sh", "--random-passwords")

    default = (ROOT / "scripts" / "compose" / f"{name}.env").read_text()
    variable = (machine.passwords / f"{name}.env").read_text().split("=")[0]
    assert f"\n{variable}=" in default


def test_random_passwords_are_rejected_if_data_exists(machine: Machine) -> None:
    done = machine.run("setup.sh", "--random-passwords", FAKE_VOLUMES="kafka-pubsub_mongodb-data\n")

    assert done.returncode == 2
    assert "already has data" in done.stderr
    assert list(machine.passwords.iterdir()) == []


def test_random_passwords_are_rejected_if_passwords_exist(machine: Machine) -> None:
    (machine.passwords / "grafana.env").write_text("GF_SECURITY_ADMIN_PASSWORD=mine\n")

    done = machine.run("setup.sh", "--random-passwords")

    assert done.returncode == 2
    assert [file.name for file in machine.passwords.iterdir()] == ["grafana.env"]


def test_teardown_keeps_the_data(machine: Machine) -> None:
    assert machine.run("teardown.sh").returncode == 0

    assert "compose --profile * down --remove-orphans" in machine.calls
    assert "--volumes" not in machine.calls


def test_teardown_requires_confirmation_to_delete_data(machine: Machine) -> None:
    assert machine.run("teardown.sh", "--volumes").returncode == 2

    assert "down" not in machine.calls


def test_teardown_with_volumes_and_yes_deletes_the_data(machine: Machine) -> None:
    assert machine.run("teardown.sh", "--volumes", "--yes").returncode == 0

    assert "down --remove-orphans --volumes" in machine.calls


@pytest.mark.parametrize("script", ["setup.sh", "teardown.sh"])
def test_an_unknown_option_is_rejected(machine: Machine, script: str) -> None:
    done = machine.run(script, "--bogus")

    assert done.returncode == 2
    assert "--bogus" in done.stderr
