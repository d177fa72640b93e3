"""Kafka 3 and 4 for tests: TEST_KAFKA_SERVERS where it is set, else containers, else the tests are skipped."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from time import monotonic

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.docker_engine import image, require_containers

START_TIMEOUT = 180  # seconds, on a loaded machine
SINGLE_BROKER = {
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",  # as in the stack
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
}
KAFKA4 = {
    **SINGLE_BROKER,
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    "KAFKA_GROUP_CONSUMER_SESSION_TIMEOUT_MS": "6000",
    "KAFKA_GROUP_CONSUMER_MIN_SESSION_TIMEOUT_MS": "6000",
    "KAFKA_GROUP_CONSUMER_HEARTBEAT_INTERVAL_MS": "500",
    "KAFKA_GROUP_CONSUMER_MIN_HEARTBEAT_INTERVAL_MS": "500",
}


@pytest.fixture(scope="session")
def kafka3_servers() -> Iterator[str]:
    given = os.environ.get("TEST_KAFKA_SERVERS", "")
    if given:
        yield given
        return
    require_containers("Kafka, at TEST_KAFKA_SERVERS or in a container", "KAFKA_IMAGE")
    from testcontainers.community.kafka import KafkaContainer

    server = KafkaContainer(image("KAFKA_IMAGE")).with_kraft().with_envs(**SINGLE_BROKER)
    try:
        yield server.start(timeout=START_TIMEOUT).get_bootstrap_server()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def kafka4_servers() -> Iterator[str]:
    if os.environ.get("TEST_KAFKA_SERVERS"):
        pytest.skip("TEST_KAFKA_SERVERS is the Kafka of all tests")
    require_containers("Kafka 4 in a container", "KAFKA4_IMAGE")
    with _kafka4() as servers:
        yield servers


@pytest.fixture(scope="session", params=["kafka3_servers", "kafka4_servers"])
def kafka_servers(request: pytest.FixtureRequest) -> str:
    servers: str = request.getfixturevalue(request.param)
    return servers


@contextmanager
def _kafka4() -> Iterator[str]:
    """The address of a broker, which has to know the port that it advertises before it starts."""
    from testcontainers.core.container import DockerContainer

    port = _free_port()
    advertised = {"KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://localhost:{port}"}
    with DockerContainer(image("KAFKA4_IMAGE")).with_envs(**KAFKA4, **advertised).with_bind_ports(9092, port):
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
