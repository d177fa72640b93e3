"""The two servers of a trial, and the actions on them."""

import resource
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from threading import Event
from typing import Any, NamedTuple

import pymongo
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource
from pymongo.errors import PyMongoError

from local.broker import EmbeddedBroker
from local.connectivity import Address, kafka_addresses, mongodb_addresses
from local.errors import CannotRun
from local.offsets import KAFKA_TIMEOUT

UP_TIMEOUT = 180.0  # seconds from a start to a response; a killed broker waits for its ZooKeeper session to end
DOWN_TIMEOUT = 15.0  # seconds from the end of a command that takes it down
POLL_INTERVAL = 0.2

Action = Callable[[], object]


class Server(NamedTuple):
    """`actions` are those supported here; `ping` returns once the server has responded.

    If its `addresses` are known, each fault is verified: a fault that did not happen proves nothing.
    """

    name: str
    actions: Mapping[str, Action]
    ping: Callable[[], object]
    addresses: Sequence[Address] = ()
    down_timeout: float = DOWN_TIMEOUT

    def kill(self) -> None:
        """Returns when its connections are closed: it may restart at once. Raises CannotRun if they stay open."""
        with ExitStack() as stack:
            connections = [
                stack.enter_context(socket.create_connection(address, KAFKA_TIMEOUT)) for address in self.addresses
            ]
            self.actions["kill"]()
            if not all(_is_closed(connection, self.down_timeout) for connection in connections):
                raise CannotRun(
                    f"{self.name} is still connected {self.down_timeout:.0f} s after the command to kill it"
                )

    def stop(self) -> None:
        self._take_down("stop")

    def start(self) -> None:
        """Returns when it responds. Raises CannotRun."""
        self._bring_up("start")

    def pause(self) -> None:
        self._take_down("pause")

    def resume(self) -> None:
        """Returns when it responds. Raises CannotRun."""
        self._bring_up("resume")

    def _bring_up(self, action: str) -> None:
        self.actions[action]()
        deadline = time.monotonic() + UP_TIMEOUT
        while (error := self._error()) is not None:
            if time.monotonic() > deadline:
                raise CannotRun(f"{self.name} does not respond {UP_TIMEOUT:.0f} s after its start: {error}")
            Event().wait(POLL_INTERVAL)

    def _take_down(self, action: str) -> None:
        """Returns when it no longer responds. Raises CannotRun."""
        self.actions[action]()
        deadline = time.monotonic() + self.down_timeout
        while self.addresses and self._error() is None:
            if time.monotonic() > deadline:
                raise CannotRun(
                    f"{self.name} still responds {self.down_timeout:.0f} s after the command to {action} it"
                )
            Event().wait(POLL_INTERVAL)

    def _error(self) -> Exception | None:
        try:
            self.ping()
        except (KafkaException, PyMongoError) as error:
            return error
        return None


class Cluster(NamedTuple):
    """Without a MongoDB, `mongodb_uri` is None and each trial has a SQLite file.

    `embedded` is the broker in this process, if there is one. `kafka` are all brokers, `brokers` each of several.
    """

    kafka_address: str
    kafka: Server
    mongodb_uri: str | None
    mongodb: Server
    embedded: EmbeddedBroker | None = None
    brokers: Sequence[Server] = ()
    group_protocol: str = "classic"

    def missing(self, requirement: str) -> str | None:
        """Why this requirement of a scenario is not met; None if it is."""
        return REQUIREMENTS[requirement](self)


def kafka_server(address: str, actions: Mapping[str, Action], name: str = "Kafka") -> Server:
    def ping() -> None:
        AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=2)

    return Server(name, actions, ping, kafka_addresses(address))


def mongodb_server(uri: str, actions: Mapping[str, Action]) -> Server:
    def ping() -> None:
        with pymongo.MongoClient[dict[str, Any]](uri, timeoutMS=2000) as client:
            client.admin.command("ping")

    addresses = mongodb_addresses(uri)
    return Server("MongoDB", actions, ping, addresses if len(addresses) == 1 else ())


def _is_closed(connection: socket.socket, timeout: float) -> bool:
    connection.settimeout(timeout)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def _action(name: str, action: str) -> Callable[[Cluster], str | None]:
    def missing(cluster: Cluster) -> str | None:
        server: Server = getattr(cluster, name)
        return None if action in server.actions else f"no command to {action} {server.name}"

    return missing


def _broker_action(action: str) -> Callable[[Cluster], str | None]:
    def missing(cluster: Cluster) -> str | None:
        if len(cluster.brokers) < 3:
            return "requires three brokers"
        return None if action in cluster.brokers[0].actions else f"no command with {{broker}} to {action} one broker"

    return missing


def _no_automatic_topics(cluster: Cluster) -> str | None:
    if cluster.embedded:
        return None
    admin = AdminClient({"bootstrap.servers": cluster.kafka_address, "log_level": 0})
    broker = next(iter(admin.list_topics(timeout=KAFKA_TIMEOUT).brokers))
    resource = ConfigResource("broker", str(broker))
    config = admin.describe_configs([resource], request_timeout=KAFKA_TIMEOUT)[resource].result(KAFKA_TIMEOUT)
    automatic = config["auto.create.topics.enable"].value == "true"
    return "this Kafka creates missing topics itself (auto.create.topics.enable)" if automatic else None


REQUIREMENTS: Mapping[str, Callable[[Cluster], str | None]] = {
    **{f"{server}.{act}": _action(server, act) for server in ("kafka", "mongodb") for act in ("kill", "stop", "pause")},
    **{f"broker.{act}": _broker_action(act) for act in ("kill", "stop", "pause")},
    "mongodb": lambda cluster: None if cluster.mongodb_uri else "requires MongoDB, not SQLite",
    "sqlite": lambda cluster: "requires SQLite, not MongoDB" if cluster.mongodb_uri else None,
    "real kafka": lambda cluster: "the embedded broker does not support it" if cluster.embedded else None,
    "embedded broker": lambda cluster: None if cluster.embedded else "only the embedded broker can inject errors",
    "no automatic topics": _no_automatic_topics,
    "file limits": lambda _: None if hasattr(resource, "prlimit") else "file limits of a running process require Linux",
}
