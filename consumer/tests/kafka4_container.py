"""Kafka 4 in a container of Apache's own image, for tests."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from time import monotonic

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.docker_engine import image

START_TIMEOUT = 180  # seconds, on a loaded machine
SETTINGS = {
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
}


@contextmanager
def kafka4() -> Iterator[str]:
    """The address of a broker, which has to know the port that it advertises before it starts."""
    from testcontainers.core.container import DockerContainer

    port = _free_port()
    advertised = {"KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://localhost:{port}"}
    with DockerContainer(image("KAFKA4_IMAGE")).with_envs(**SETTINGS, **advertised).with_bind_ports(9092, port):
        address = f"localhost:{port}"
        _wait_until_up(address)
        yield address


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_until_up(address: str) -> None:
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    tick, deadline = Event(), monotonic() + START_TIMEOUT
    while True:
        try:
            admin.list_topics(timeout=5)
        except KafkaException:
            assert monotonic() < deadline, "the broker does not start"
            tick.wait(0.5)
        else:
            return
