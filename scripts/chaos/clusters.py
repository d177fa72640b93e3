"""Provides the servers: embedded ones, those of docker-compose.yml, or the user's own."""

import os
import shlex
import socket
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

from chaos.options import BROKER, Options
from chaos.proxy import kafka_proxy
from chaos.servers import Action, Cluster, Server, kafka_server, mongodb_server
from local.broker import EmbeddedBroker
from local.connectivity import host_port, kafka_addresses, require_kafka_reachable, require_mongodb_reachable
from local.errors import CannotRun
from local.plan import ROOT

PAUSE_ATTEMPTS = 5
COMMAND_TIMEOUT = 600.0  # seconds; the first `up` builds images
REBALANCE_DELAY_MS = 1000  # consumers that start together join the embedded broker's group at once
PORT_VARIABLES = ("MONGODB_HOST_PORT", "KAFKA_HOST_PORT", "KAFKA_2_HOST_PORT", "KAFKA_3_HOST_PORT")


@contextmanager
def cluster(options: Options) -> Iterator[Cluster]:
    """The servers that the options ask for. Raises CannotRun."""
    with SERVERS[options.on](options) as found:
        yield found


@contextmanager
def _embedded(_: Options) -> Iterator[Cluster]:
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
    addresses = kafka.split(",")
    numbers = range(1, len(addresses) + 1)
    yield Cluster(
        kafka,
        kafka_server(kafka, commands(options, "kafka", numbers)),
        mongodb,
        mongodb_server(mongodb, commands(options, "mongodb")),
        brokers=_brokers(addresses, [broker_commands(options, number) for number in numbers]),
        group_protocol=options.group_protocol,
    )


def commands(options: Options, server: str, brokers: Collection[int] = (1,)) -> dict[str, Action]:
    """The user's commands, run by the shell; one with {broker} is run for each of these brokers at the same time."""
    return {
        action: partial(_run_together, {command.replace(BROKER, str(number)) for number in brokers})
        for (name, action), command in options.commands.items()
        if name == server
    }


def broker_commands(options: Options, broker: int) -> dict[str, Action]:
    """Those that do nothing to other brokers, and those that start or resume all that are down."""
    single = {action for (_, action), command in options.commands.items() if BROKER in command}
    actions = commands(options, "kafka", [broker])
    return {action: run for action, run in actions.items() if action in {*single, "start", "resume"}}


def _run_together(lines: Collection[str]) -> None:
    """Raises CannotRun."""
    with ThreadPoolExecutor(len(lines)) as pool:
        list(pool.map(lambda line: _run(["sh", "-c", line]), lines))


def _brokers(addresses: Sequence[str], actions: Sequence[Mapping[str, Action]]) -> list[Server]:
    return [kafka_server(*each, name=f"broker {each[0]}") for each in zip(addresses, actions, strict=True)]


@contextmanager
def _in_containers(brokers: Sequence[str], *more_files: str) -> Iterator[Cluster]:
    """`brokers` are services of docker-compose.yml and the other files."""
    ports = dict(zip(PORT_VARIABLES, (_free_port() for _ in (*brokers, "mongodb")), strict=False))
    environment = {
        **os.environ,
        **{name: str(port) for name, port in ports.items()},
        "COMPOSE_PROJECT_NAME": f"kafka-pubsub-chaos-{os.getpid()}",
    }
    compose = partial(_compose, environment, more_files)
    try:
        compose("up", "--detach", "--wait", "--wait-timeout", "240", *brokers, "mongodb")
        password = compose("exec", "-T", "mongodb", "printenv", "MONGO_INITDB_ROOT_PASSWORD").rstrip("\n")
        mongodb, *kafka = [f"127.0.0.1:{port}" for port in ports.values()]
        uri = f"mongodb://root:{quote(password, safe='')}@{mongodb}/?directConnection=true"
        yield Cluster(
            ",".join(kafka),
            kafka_server(",".join(kafka), _container_actions(compose, *brokers)),
            uri,
            mongodb_server(uri, _container_actions(compose, "mongodb")),
            brokers=_brokers(kafka, [_container_actions(compose, broker) for broker in brokers]),
        )
    finally:
        compose("down", "--volumes", "--remove-orphans", "--rmi", "local", "--timeout", "1")


def _container_actions(compose: "partial[str]", *services: str) -> dict[str, Action]:
    commands = {"kill": "kill", "stop": "stop", "start": "start", "resume": "unpause"}
    actions: dict[str, Action] = {action: partial(compose, command, *services) for action, command in commands.items()}
    return {**actions, "pause": partial(pause, partial(compose, "pause", *services))}


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


def _compose(environment: Mapping[str, str], more_files: Sequence[str], *arguments: str) -> str:
    names = ("docker-compose.yml", *more_files, "scripts/chaos/compose.yml")
    files = [text for name in names for text in ("--file", name)]
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


SERVERS: Mapping[str, Callable[[Options], AbstractContextManager[Cluster]]] = {
    "embedded": _embedded,
    "compose": lambda _: _in_containers(["kafka"]),
    "cluster": lambda _: _in_containers(["kafka-1", "kafka-2", "kafka-3"], "docker-compose.cluster.yml"),
    "commands": _controlled_by_commands,
}
