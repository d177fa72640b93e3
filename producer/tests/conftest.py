"""Kafka for the tests, and profiles of the property tests: `pytest --hypothesis-profile=NAME`."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from local.broker import EmbeddedBroker
from tests.docker_engine import image, require_containers
from tests.kafka4_container import kafka4

START_TIMEOUT = 180  # seconds to start a broker, on a loaded machine

# On a loaded machine an example may take any time, and the first one builds tables.
settings.register_profile("dev", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), max_examples=100, derandomize=True)
settings.register_profile("thorough", settings.get_profile("dev"), max_examples=1000)
settings.load_profile("dev")

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup` ignores it, also in the programs that a test starts


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({"data-topic": 3}) as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka3_servers() -> Iterator[str]:
    """A real broker: the one that TEST_KAFKA_SERVERS names, or a container. For tests marked `docker`."""
    servers = os.environ.get("TEST_KAFKA_SERVERS", "")
    if servers:
        yield servers
        return
    require_containers("Kafka, at TEST_KAFKA_SERVERS or in a container", "KAFKA_IMAGE")
    from testcontainers.community.kafka import KafkaContainer

    server = KafkaContainer(image("KAFKA_IMAGE")).with_kraft()
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
