"""Kafka 3 and 4 for tests: TEST_KAFKA_SERVERS where it is set, else containers, else the tests are skipped."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, wait
from threading import Event
from time import monotonic
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from tests.docker_engine import image, require_containers
from tests.kafka4_container import kafka4

PATIENCE = 60.0  # seconds to wait for a broker
START_TIMEOUT = 180  # seconds, on a loaded machine
SINGLE_BROKER = {
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",  # as in the stack
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
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
    with kafka4() as servers:
        yield servers


@pytest.fixture(scope="session", params=["kafka3_servers", "kafka4_servers"])
def kafka_servers(request: pytest.FixtureRequest) -> str:
    servers: str = request.getfixturevalue(request.param)
    return servers


class Topics:
    """Creates topics, and changes them as an administrator would."""

    def __init__(self, servers: str) -> None:
        self.servers = servers
        self._admin = AdminClient({"bootstrap.servers": servers})

    def create(self, name: str, partitions: int = 4, **config: str) -> None:
        """Retries, because the deletion of a topic of that name may still be in progress."""
        tick, deadline = Event(), monotonic() + PATIENCE
        while not self._created(NewTopic(name, partitions, 1, config=config)):
            assert monotonic() < deadline, f"cannot create {name}"
            tick.wait(0.1)

    def delete(self, *names: str) -> None:
        self._done(self._admin.delete_topics(list(names), operation_timeout=PATIENCE))

    def add_partitions(self, name: str, partitions: int) -> None:
        self._done(self._admin.create_partitions([NewPartitions(name, partitions)]))

    def name(self) -> str:
        return f"test-{uuid4().hex[:12]}"

    def _created(self, topic: NewTopic) -> bool:
        try:
            self._done(self._admin.create_topics([topic]))
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
            return False
        return True

    def _done(self, results: Mapping[str, Future[None]]) -> None:
        futures = list(results.values())
        wait(futures, PATIENCE)
        for future in futures:
            future.result()


@pytest.fixture
def topics(kafka_servers: str) -> Topics:
    return Topics(kafka_servers)
