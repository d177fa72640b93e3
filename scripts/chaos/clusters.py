"""Provides the servers: embedded ones, those of docker-compose.yml, or the user's own."""

import os
import shlex
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

from chaos.options import ACTIONS, Options
from chaos.proxy import kafka_proxy
from chaos.servers import Action, Cluster, Server, kafka_server, mongodb_server
from local.broker import EmbeddedBroker
from local.connectivity import host_port, kafka_addresses, require_kafka_reachable, require_mongodb_reachable
from local.errors import CannotRun
from local.plan import ROOT

PAUSE_ATTEMPTS = 5
COMMAND_TIMEOUT = 600.0  # seconds; the first `up` builds images
REBALANCE_DELAY_MS = 1000  # consumers that start together join the embedded broker's group at once
COMPOSE_FILES = ("docker-compose.yml", "scripts/chaos/compose.yml")
COMPOSE_SERVICES = ("zookeeper", "kafka", "mongodb")


@contextmanager
def cluster(options: Options) -> Iterator[Cluster]:
    """The servers that the options ask for. Raises CannotRun."""
    if options.on == "commands":
        opening = _controlled_by_commands(options)
    else:
        opening = _in_containers() if options.on == "compose" else _embedded()
    with opening as found:
        yield found


@contextmanager
def _embedded() -> Iterator[Cluster]:
    """The broker can close its connections and refuse new ones, which looks to clients like a killed broker."""
    with (
        EmbeddedBroker({}, rebalance_delay_ms=REBALANCE_DELAY_MS) as broker,
        kafka_proxy(kafka_addresses(broker.address)[0]) as proxy,
    ):
        actions: Mapping[str, Action] = {
            "kill": broker.go_down,
            "stop": broker.go_down,
            "start": broker.come_up,
            "pause": proxy.freeze,
            "resume": proxy.heal,
        }
        address = host_port(proxy.address)
        yield Cluster(address, kafka_server(address, actions), None, Server("SQLite", {}, lambda: None), broker)


@contextmanager
def _controlled_by_commands(options: Options) -> Iterator[Cluster]:
    kafka, mongodb = options.kafka or "", options.mongodb or ""
    require_kafka_reachable(kafka)
    require_mongodb_reachable(mongodb)
    yield Cluster(
        kafka,
        kafka_server(kafka, _commands(options, "kafka")),
        mongodb,
        mongodb_server(mongodb, _commands(options, "mongodb")),
    )


def _commands(options: Options, server: str) -> dict[str, Action]:
    """The user's commands, run by the shell."""
    return {
        action: partial(_run, ["sh", "-c", options.commands[server, action]])
        for action in ACTIONS
        if (server, action) in options.commands
    }


@contextmanager
def _in_containers() -> Iterator[Cluster]:
    kafka_port, mongodb_port = _free_port(), _free_port()
    environment = {
        **os.environ,
        "COMPOSE_PROJECT_NAME": f"kafka-pubsub-chaos-{os.getpid()}",
        "KAFKA_HOST_PORT": str(kafka_port),
        "MONGODB_HOST_PORT": str(mongodb_port),
    }
    compose = partial(_compose, environment)
    try:
        compose("up", "--detach", "--wait", "--wait-timeout", "240", *COMPOSE_SERVICES)
        password = compose("exec", "-T", "mongodb", "printenv", "MONGO_INITDB_ROOT_PASSWORD").rstrip("\n")
        uri = f"mongodb://root:{quote(password, safe='')}@127.0.0.1:{mongodb_port}/?directConnection=true"
        kafka = f"127.0.0.1:{kafka_port}"
        yield Cluster(
            kafka,
            kafka_server(kafka, _container_actions(compose, "kafka")),
            uri,
            mongodb_server(uri, _container_actions(compose, "mongodb")),
        )
    finally:
        compose("down", "--volumes", "--remove-orphans", "--rmi", "local", "--timeout", "1")


def _container_actions(compose: "partial[str]", service: str) -> dict[str, Action]:
    commands = {"kill": "kill", "stop": "stop", "start": "start", "resume": "unpause"}
    actions: dict[str, Action] = {action: partial(compose, command, service) for action, command in commands.items()}
    return {**actions, "pause": partial(pause, partial(compose, "pause", service))}


def pause(once: Action) -> None:
    """Docker cannot freeze a container in which a process is just starting, such as that of a health check."""
    for attempt in range(1, PAUSE_ATTEMPTS + 1):
        try:
            once()
        except CannotRun as error:
            if "unable to freeze" not in str(error) or attempt == PAUSE_ATTEMPTS:
                raise
        else:
            return


def _compose(environment: Mapping[str, str], *arguments: str) -> str:
    files = [text for name in COMPOSE_FILES for text in ("--file", name)]
    return _run(["docker", "compose", *files, *arguments], folder=ROOT, environment=environment)


def _run(command: Sequence[str], *, folder: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    """The command's output. Raises CannotRun."""
    try:
        done = subprocess.run(
            command,
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT,
        )
    except FileNotFoundError as error:
        raise CannotRun(f"{error.filename} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise CannotRun(f"{shlex.join(command)}: timed out after {COMMAND_TIMEOUT:.0f} s") from error
    if done.returncode:
        output = (done.stderr or done.stdout).strip()[-500:]
        raise CannotRun(f"{shlex.join(command)}: exit status {done.returncode}: {output}")
    return done.stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
