"""The two servers of a trial, and what can be done to them."""

import resource
import time
from collections.abc import Callable, Mapping
from threading import Event
from typing import Any, NamedTuple

import confluent_kafka.admin
import pymongo
from confluent_kafka import KafkaException
from pymongo.errors import PyMongoError

from local.broker import EmbeddedBroker
from local.errors import CannotRun

BACK_WITHIN = 180.0  # seconds from a start to an answer; a killed broker waits for its ZooKeeper session to end
LOOK_EVERY = 0.2
ANSWER_WITHIN = 10.0

_admin: Any = confluent_kafka.admin  # the library does not declare its own re-exports, so to mypy they aren't there

Lever = Callable[[], object]


class Server(NamedTuple):
    """`levers` are the acts that are possible here; `asked` returns once the server has answered a question."""

    name: str
    levers: Mapping[str, Lever]
    asked: Callable[[], object]

    def kill(self) -> None:
        self.levers["kill"]()

    def stop(self) -> None:
        self.levers["stop"]()

    def start(self) -> None:
        """Returns when it answers."""
        self.levers["start"]()
        self.wait()

    def pause(self) -> None:
        self.levers["pause"]()

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


def kafka_asked(address: str) -> Lever:
    def ask() -> None:
        _admin.AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=5)

    return ask


def mongodb_asked(uri: str) -> Lever:
    def ask() -> None:
        with pymongo.MongoClient[dict[str, Any]](uri, timeoutMS=3000) as client:
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
