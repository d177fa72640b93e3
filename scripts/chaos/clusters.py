"""How the servers are had: embedded ones, those of docker-compose.yml, or the user's own."""

import os
import shlex
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

from chaos.options import ACTS, Options
from chaos.proxy import kafka_proxy
from chaos.servers import Cluster, Lever, Server, kafka_asked, mongodb_asked
from chaos.wires import Address
from local.broker import EmbeddedBroker
from local.errors import CannotRun
from local.plan import ROOT
from local.reach import in_kafka, in_mongodb, reach_one_of

COMMAND_WITHIN = 600.0  # seconds; the first `up` builds images
JOIN_WITHIN_MS = 1000  # consumers that start together become one group of the embedded broker at once
COMPOSE_FILES = ("docker-compose.yml", "scripts/chaos/compose.yml")
COMPOSE_SERVICES = ("zookeeper", "kafka", "mongodb")


@contextmanager
def cluster(options: Options) -> Iterator[Cluster]:
    """The servers that the options ask for. Raises CannotRun."""
    if options.on == "commands":
        opening = _commanded(options)
    else:
        opening = _composed() if options.on == "compose" else _embedded()
    with opening as found:
        yield found


@contextmanager
def _embedded() -> Iterator[Cluster]:
    """The broker can close its connections and accept none, which to clients is a broker that was killed."""
    with (
        EmbeddedBroker({}, rebalance_delay_ms=JOIN_WITHIN_MS) as broker,
        kafka_proxy(in_kafka(broker.address)[0]) as proxy,
    ):
        address = f"127.0.0.1:{proxy.address[1]}"
        levers: Mapping[str, Lever] = {
            "kill": broker.go_down,
            "stop": broker.go_down,
            "start": broker.come_up,
            "pause": proxy.freeze,
            "resume": proxy.mend,
        }
        nothing = Server("SQLite", {}, lambda: None)
        yield Cluster(address, Server("Kafka", levers, kafka_asked(address), proxy.address), None, nothing, broker)


@contextmanager
def _commanded(options: Options) -> Iterator[Cluster]:
    kafka, mongodb = options.kafka or "", options.mongodb or ""
    brokers = in_kafka(kafka)
    reach_one_of("Kafka", kafka, brokers)
    addresses = in_mongodb(mongodb)
    reach_one_of("MongoDB", ", ".join(f"{host}:{port}" for host, port in addresses), addresses)
    yield Cluster(
        kafka,
        Server("Kafka", _commands(options, "kafka"), kafka_asked(kafka), _only(brokers)),
        mongodb,
        Server("MongoDB", _commands(options, "mongodb"), mongodb_asked(mongodb), _only(addresses)),
    )


def _only(addresses: Sequence[Address]) -> Address | None:
    return addresses[0] if len(addresses) == 1 else None


def _commands(options: Options, server: str) -> dict[str, Lever]:
    """The user's own, by the shell, as they were typed."""
    return {
        act: partial(_run, ["sh", "-c", options.commands[server, act]])
        for act in ACTS
        if (server, act) in options.commands
    }


@contextmanager
def _composed() -> Iterator[Cluster]:
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
            Server("Kafka", _containers(compose, "kafka"), kafka_asked(kafka), ("127.0.0.1", kafka_port)),
            uri,
            Server("MongoDB", _containers(compose, "mongodb"), mongodb_asked(uri), ("127.0.0.1", mongodb_port)),
        )
    finally:
        compose("down", "--volumes", "--remove-orphans", "--rmi", "local", "--timeout", "1")


def _containers(compose: "partial[str]", service: str) -> dict[str, Lever]:
    arguments = {"kill": "kill", "stop": "stop", "start": "start", "pause": "pause", "resume": "unpause"}
    return {act: partial(compose, argument, service) for act, argument in arguments.items()}


def _compose(environment: Mapping[str, str], *arguments: str) -> str:
    files = [text for name in COMPOSE_FILES for text in ("--file", name)]
    return _run(["docker", "compose", *files, *arguments], folder=ROOT, environment=environment)


def _run(command: list[str], *, folder: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    """What it prints. Raises CannotRun."""
    try:
        done = subprocess.run(
            command,
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_WITHIN,
        )
    except FileNotFoundError as error:
        raise CannotRun(f"there is no {error.filename} here") from error
    except subprocess.TimeoutExpired as error:
        raise CannotRun(f"{shlex.join(command)}: has not ended within {COMMAND_WITHIN:.0f} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-500:]
        raise CannotRun(f"{shlex.join(command)}: exit status {done.returncode}: {said}")
    return done.stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
