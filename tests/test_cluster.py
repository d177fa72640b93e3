"""docker-compose.cluster.yml: three brokers, of which any one may fail."""

import os
import socket
from collections.abc import Iterator
from threading import Event
from time import monotonic

import pytest

from tests.docker_engine import require_images
from tests.stack import Stack

SERVICES = ("producer", "consumer", "prometheus", "kafka-exporter")  # with what they depend on
BROKER = "kafka-2"
IN_BROKER = ("exec", "-T", BROKER, "bash", "-c")
TIMEOUT = 120.0  # seconds until a fault shows in Prometheus, or no longer

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def cluster() -> Iterator[Stack]:
    require_images("the cluster", "KAFKA_IMAGE", "KAFKA4_IMAGE", "MONGO_IMAGE", "PROMETHEUS_IMAGE")
    ports = dict(zip(("KAFKA", "KAFKA_2", "KAFKA_3"), map(str, _free_ports(3)), strict=True))
    settings = {
        **{f"{name}_HOST_PORT": port for name, port in ports.items()},
        "PROMETHEUS_HOST_PORT": "0",
        "PRODUCER_INTERVAL_MS": "5",
    }
    cluster = Stack(f"kafka-pubsub-cluster-{os.getpid()}", settings, "docker-compose.yml", "docker-compose.cluster.yml")
    try:
        cluster.up("--build", *SERVICES)
        yield cluster
    finally:
        cluster.compose("down", "--volumes", "--remove-orphans", "--rmi", "local")


def test_topics_are_replicated_three_times(cluster: Stack) -> None:
    wait_for(cluster, 'min(kafka_topic_partition_replicas{topic=~"data-topic.*"})', 3)


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (["kill", BROKER], ["start", BROKER]),
        ([*IN_BROKER, "kill -STOP -1"], [*IN_BROKER, "kill -CONT -1"]),
    ],
    ids=["killed", "frozen"],
)
def test_nothing_is_lost_if_a_broker_fails(cluster: Stack, begin: list[str], end: list[str]) -> None:
    cluster.compose(*begin)
    try:
        wait_for(cluster, "max(kafka_controller_kafkacontroller_fencedbrokercount)", 1)
        before = messages(cluster)
        wait_for(cluster, f"min(sum(consumer_messages_total) > bool {before + 1000})", 1)
    finally:
        cluster.compose(*end)

    wait_for(cluster, "max(kafka_controller_kafkacontroller_fencedbrokercount)", 0)
    audit = cluster.audit()
    assert (audit["lost"], audit["twice"]) == (0, 0)


def messages(cluster: Stack) -> int:
    return int(cluster.prometheus("sum(consumer_messages_total)") or 0)


def wait_for(cluster: Stack, query: str, expected: float) -> None:
    deadline = monotonic() + TIMEOUT
    while (value := cluster.prometheus(query)) != expected:
        assert monotonic() < deadline, f"{query} is {value}, not {expected}"
        Event().wait(1)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
