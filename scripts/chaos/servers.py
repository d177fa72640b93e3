"""The two servers of a trial, and what can be done to them."""

import resource
import socket
import time
from collections.abc import Callable, Mapping
from threading import Event
from typing import Any, NamedTuple

import confluent_kafka.admin
import pymongo
from confluent_kafka import KafkaException
from pymongo.errors import PyMongoError

from chaos.wires import Address
from local.broker import EmbeddedBroker
from local.errors import CannotRun

BACK_WITHIN = 180.0  # seconds from a start to an answer; a killed broker waits for its ZooKeeper session to end
LOOK_EVERY = 0.2
ANSWER_WITHIN = 10.0
GONE_WITHIN = 15.0  # seconds from the end of a command that takes it away

_admin: Any = confluent_kafka.admin  # the library does not declare its own re-exports, so to mypy they aren't there

Lever = Callable[[], object]


class Server(NamedTuple):
    """`levers` are the acts that are possible here; `asked` returns once the server has answered a question.

    That a fault happened is looked at where the server has one `address`: a fault that is none proves nothing.
    """

    name: str
    levers: Mapping[str, Lever]
    asked: Callable[[], object]
    address: Address | None = None
    gone_within: float = GONE_WITHIN

    def kill(self) -> None:
        """Returns when its connections have ended: it may be back at once. Raises CannotRun where they go on."""
        if self.address is None:
            self.levers["kill"]()
            return
        with socket.create_connection(self.address, ANSWER_WITHIN) as connection:
            self.levers["kill"]()
            if not _ends(connection, self.gone_within):
                raise CannotRun(
                    f"{self.name} keeps its connections, {self.gone_within:.0f} s after the command to kill it"
                )

    def stop(self) -> None:
        self._silence_by("stop")

    def start(self) -> None:
        """Returns when it answers."""
        self.levers["start"]()
        self.wait()

    def pause(self) -> None:
        self._silence_by("pause")

    def resume(self) -> None:
        self.levers["resume"]()
        self.wait()

    def wait(self, timeout: float = BACK_WITHIN) -> None:
        """Raises CannotRun where it does not answer in time."""
        deadline = time.monotonic() + timeout
        while (error := self._silence()) is not None:
            if time.monotonic() > deadline:
                raise CannotRun(f"{self.name} does not answer {timeout:.0f} s after its start: {error}")
            Event().wait(LOOK_EVERY)

    def _silence_by(self, act: str) -> None:
        """Returns when it does not answer. Raises CannotRun where it does."""
        self.levers[act]()
        deadline = time.monotonic() + self.gone_within
        while self.address and self._silence() is None:
            if time.monotonic() > deadline:
                raise CannotRun(f"{self.name} still answers {self.gone_within:.0f} s after the command to {act} it")
            Event().wait(LOOK_EVERY)

    def _silence(self) -> Exception | None:
        try:
            self.asked()
        except (KafkaException, PyMongoError) as error:
            return error
        return None


class Cluster(NamedTuple):
    """Where a trial runs. Without a MongoDB, `mongodb_uri` is None and each trial has a SQLite file.

    `embedded` is the broker in this process, where there is one.
    """

    kafka_address: str
    kafka: Server
    mongodb_uri: str | None
    mongodb: Server
    embedded: EmbeddedBroker | None = None

    def lacks(self, need: str) -> str | None:
        """Why a scenario that needs this can't run here; None where it can. A need is one of NEEDS."""
        return NEEDS[need](self)


def _ends(connection: socket.socket, within: float) -> bool:
    connection.settimeout(within)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def kafka_asked(address: str) -> Lever:
    def ask() -> None:
        _admin.AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=2)

    return ask


def mongodb_asked(uri: str) -> Lever:
    def ask() -> None:
        with pymongo.MongoClient[dict[str, Any]](uri, timeoutMS=2000) as client:
            client.admin.command("ping")

    return ask


def _lever(name: str, act: str) -> Callable[[Cluster], str | None]:
    def lack(cluster: Cluster) -> str | None:
        server: Server = getattr(cluster, name)
        if act in server.levers:
            return None
        return f"nothing here can {act} {server.name}"

    return lack


def _makes_topics(cluster: Cluster) -> str | None:
    admin = _admin.AdminClient({"bootstrap.servers": cluster.kafka_address, "log_level": 0})
    broker = next(iter(admin.list_topics(timeout=ANSWER_WITHIN).brokers))
    asked = _admin.ConfigResource("broker", str(broker))
    settings = admin.describe_configs([asked], request_timeout=ANSWER_WITHIN)[asked].result(ANSWER_WITHIN)
    automatic = settings["auto.create.topics.enable"].value == "true"
    return "this Kafka makes missing topics by itself (auto.create.topics.enable)" if automatic else None


NEEDS: Mapping[str, Callable[[Cluster], str | None]] = {
    **{f"{server}.{act}": _lever(server, act) for server in ("kafka", "mongodb") for act in ("kill", "stop", "pause")},
    "mongodb": lambda cluster: None if cluster.mongodb_uri else "the store is a SQLite file, no MongoDB",
    "sqlite": lambda cluster: "the store is a MongoDB, no SQLite file" if cluster.mongodb_uri else None,
    "real kafka": lambda cluster: "the embedded broker can't do it" if cluster.embedded else None,
    "topics made by hand": lambda cluster: None if cluster.embedded else _makes_topics(cluster),
    "file limits": lambda _: None if hasattr(resource, "prlimit") else "only Linux lets a running process be limited",
    "embedded broker": lambda cluster: None if cluster.embedded else "only the embedded broker can be told to refuse",
}
