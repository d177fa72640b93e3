"""The Compose stack, started once for all tests, under a project name of its own."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any
from urllib.parse import quote

import pytest

from tests.docker_engine import require_images

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 240.0  # seconds until started or restarted containers are healthy
SPECIAL_PASSWORD = "p@ss/w%41$x #\"':\\z"
IMAGES = (
    *("ZOOKEEPER_IMAGE", "KAFKA_IMAGE", "MONGO_IMAGE", "PROMETHEUS_IMAGE", "ALERTMANAGER_IMAGE", "GRAFANA_IMAGE"),
    *("KAFKA_EXPORTER_IMAGE", "MONGODB_EXPORTER_IMAGE", "NODE_EXPORTER_IMAGE", "CADVISOR_IMAGE"),
)
SETUP_JOBS = {"topics", "mongodb-users", "jmx-agent"}


class Stack:
    """Runs docker compose commands against the stack."""

    def __init__(self, project: str, settings: Mapping[str, str], *files: str) -> None:
        self.project = project
        self._files = [argument for name in files for argument in ("--file", name)]
        self._environ = {**os.environ, "COMPOSE_PROJECT_NAME": project, **settings}

    def compose(self, *arguments: str, stdin: str = "", **settings: str) -> str:
        done = subprocess.run(
            ["docker", "compose", *self._files, *arguments],
            cwd=ROOT,
            env={**self._environ, **settings},
            input=stdin,
            text=True,
            capture_output=True,
        )
        assert done.returncode == 0, f"docker compose {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def up(self, *options: str, **settings: str) -> None:
        self.compose("up", "--detach", "--wait", "--wait-timeout", f"{TIMEOUT:.0f}", *options, **settings)

    def python(self, service: str, *arguments: str, index: int = 1, stdin: str = "") -> str:
        return self.compose("exec", "-T", f"--index={index}", service, "python", *arguments, stdin=stdin)

    def containers(self, *services: str) -> list[dict[str, Any]]:
        """The output of docker inspect for the containers of these services, including exited ones."""
        ids = self.compose("ps", "--all", "--quiet", *services).split()
        output = subprocess.run(["docker", "inspect", *ids], check=True, text=True, capture_output=True).stdout
        return list(json.loads(output))

    def crash(self, service: str) -> None:
        """Send SIGKILL from inside, because the restart policy ignores `docker kill`, and wait for the restart."""
        before, deadline = self.restarts(service), monotonic() + TIMEOUT
        command = ["docker", "compose", *self._files, "exec", "-T", service, "sh", "-c", "kill -9 -1"]
        subprocess.run(command, cwd=ROOT, env=self._environ, capture_output=True)
        while self.restarts(service) == before:
            assert monotonic() < deadline, f"{service} was not restarted"
            Event().wait(0.2)

    def restarts(self, service: str) -> int:
        """The number of restarts by the restart policy."""
        return sum(int(container["RestartCount"]) for container in self.containers(service))

    def wait_until_healthy(self) -> None:
        deadline = monotonic() + TIMEOUT
        while unhealthy := [container["Name"] for container in self.containers() if not is_healthy(container)]:
            assert monotonic() < deadline, f"unhealthy after {TIMEOUT:.0f} s: {unhealthy}"
            Event().wait(1)

    def audit(self, *environ: str) -> dict[str, Any]:
        """Run the audit with the producer paused until every message is settled."""
        self.compose("pause", "producer")
        try:
            audit = ["python", "-m", "src.audit", "--json", "--wait", "60"]
            return dict(json.loads(self.compose("exec", "-T", *environ, "consumer", *audit)))
        finally:
            self.compose("unpause", "producer")
            self.wait_until_healthy()

    def prometheus(self, query: str) -> float | None:
        """The value of a query with a single result."""
        url = f"http://127.0.0.1:9090/api/v1/query?query={quote(query)}"
        result = json.loads(self.compose("exec", "-T", "prometheus", "wget", "-qO-", url))["data"]["result"]
        return float(result[0]["value"][1]) if result else None

    def send(self, *messages: str) -> None:
        """Send messages with an additional producer process."""
        lines = "".join(f"{message}\n" for message in messages)
        self.python("producer", "-m", "src.producer", "--input", "-", stdin=lines)


def service_of(container: Mapping[str, Any]) -> str:
    return str(container["Config"]["Labels"]["com.docker.compose.service"])


def is_healthy(container: Mapping[str, Any]) -> bool:
    state = container["State"]
    if service_of(container) in SETUP_JOBS:
        return bool(state["Status"] == "exited" and state["ExitCode"] == 0)
    return bool(state["Status"] == "running" and state.get("Health", {"Status": "healthy"})["Status"] == "healthy")


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    passwords = ("MONGODB_ROOT", "MONGODB_CONSUMER", "MONGODB_EXPORTER", "GRAFANA_ADMIN")
    ports = ("KAFKA", "GRAFANA", "PROMETHEUS", "ALERTMANAGER")
    settings = {
        **{f"{name}_PASSWORD": SPECIAL_PASSWORD for name in passwords},
        **{f"{name}_HOST_PORT": "0" for name in ports},
        "PRODUCER_INTERVAL_MS": "5",
    }
    require_images("the stack", *IMAGES)
    stack = Stack(f"kafka-pubsub-test-{os.getpid()}", settings)
    try:
        stack.up("--build")
        yield stack
    finally:
        stack.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--rmi", "local")
