"""The stack of docker-compose.yml, started once for all tests, in a project of its own beside one that may run here."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 240.0  # seconds until what was started is healthy, or what was broken is whole again
ODD_PASSWORD = "p@ss/w%41$x #\"':\\z"
SET_UPS = {"topics", "mongodb-users"}


class Stack:
    """What an operator does and sees, by `docker compose`."""

    def __init__(self, project: str, settings: Mapping[str, str]) -> None:
        self.project = project
        self._environ = {**os.environ, "COMPOSE_PROJECT_NAME": project, **settings}

    def compose(self, *arguments: str, given: str = "", **settings: str) -> str:
        done = subprocess.run(
            ["docker", "compose", *arguments],
            cwd=ROOT,
            env={**self._environ, **settings},
            input=given,
            text=True,
            capture_output=True,
        )
        assert done.returncode == 0, f"docker compose {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def up(self, *options: str, **settings: str) -> None:
        self.compose("up", "--detach", "--wait", "--wait-timeout", f"{PATIENCE:.0f}", *options, **settings)

    def python(self, service: str, *arguments: str, index: int = 1, given: str = "") -> str:
        return self.compose("exec", "-T", f"--index={index}", service, "python", *arguments, given=given)

    def containers(self, *services: str) -> list[dict[str, Any]]:
        """Everything that Docker knows of them, finished ones too."""
        ids = self.compose("ps", "--all", "--quiet", *services).split()
        told = subprocess.run(["docker", "inspect", *ids], check=True, text=True, capture_output=True).stdout
        return list(json.loads(told))

    def crash(self, service: str) -> None:
        """SIGKILL from inside: after `docker kill` the restart policy would not act. Returns once it has acted."""
        before, deadline = self.restarts(service), monotonic() + PATIENCE
        command = ["docker", "compose", "exec", "-T", service, "sh", "-c", "kill -9 -1"]
        subprocess.run(command, cwd=ROOT, env=self._environ, capture_output=True)
        while self.restarts(service) == before:
            assert monotonic() < deadline, f"{service} was not started again"
            Event().wait(0.2)

    def restarts(self, service: str) -> int:
        """By the restart policy."""
        return sum(int(container["RestartCount"]) for container in self.containers(service))

    def wait_until_healthy(self) -> None:
        deadline = monotonic() + PATIENCE
        while ailing := [container["Name"] for container in self.containers() if not is_well(container)]:
            assert monotonic() < deadline, f"not healthy after {PATIENCE:.0f} s: {ailing}"
            Event().wait(1)

    def audit(self, *environ: str) -> dict[str, Any]:
        """Hold the producer until everything is settled, and count."""
        self.compose("pause", "producer")
        try:
            audit = ["python", "-m", "src.audit", "--json", "--wait", "60"]
            return dict(json.loads(self.compose("exec", "-T", *environ, "consumer", *audit)))
        finally:
            self.compose("unpause", "producer")
            self.wait_until_healthy()

    def send(self, *messages: str) -> None:
        """By a producer beside the one that runs."""
        lines = "".join(f"{message}\n" for message in messages)
        self.python("producer", "-m", "src.producer", "--input", "-", given=lines)


def service_of(container: Mapping[str, Any]) -> str:
    return str(container["Config"]["Labels"]["com.docker.compose.service"])


def is_well(container: Mapping[str, Any]) -> bool:
    state = container["State"]
    if service_of(container) in SET_UPS:
        return bool(state["Status"] == "exited" and state["ExitCode"] == 0)
    return bool(state["Status"] == "running" and state.get("Health", {"Status": "healthy"})["Status"] == "healthy")


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    passwords = ("MONGODB_ROOT", "MONGODB_CONSUMER", "MONGODB_EXPORTER", "GRAFANA_ADMIN")
    ports = ("KAFKA", "GRAFANA", "PROMETHEUS", "ALERTMANAGER")
    settings = {
        **{f"{name}_PASSWORD": ODD_PASSWORD for name in passwords},
        **{f"{name}_HOST_PORT": "0" for name in ports},
        "PRODUCER_INTERVAL_MS": "5",
    }
    stack = Stack(f"kafka-pubsub-test-{os.getpid()}", settings)
    try:
        stack.up("--build")
        yield stack
    finally:
        stack.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--rmi", "local")
