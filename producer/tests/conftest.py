"""Kafka for the tests, and profiles of the property tests: `pytest --hypothesis-profile=NAME`."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from local.broker import EmbeddedBroker

ENV_FILE = Path(__file__).resolve().parent.parent.parent / ".env"

# On a loaded machine an example may take any time, and the first one builds tables.
settings.register_profile("dev", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), max_examples=100, derandomize=True)
settings.register_profile("thorough", settings.get_profile("dev"), max_examples=1000)
settings.load_profile("dev")


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({"data-topic": 3}) as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_servers() -> Iterator[str]:
    """A real broker: the one that TEST_KAFKA_SERVERS names, or a container. For tests marked `docker`."""
    servers = os.environ.get("TEST_KAFKA_SERVERS", "")
    if servers:
        yield servers
        return
    if not docker_is_available():
        pytest.skip("needs Kafka: set TEST_KAFKA_SERVERS, or start a Docker engine")
    from testcontainers.community.kafka import KafkaContainer

    with KafkaContainer(image("KAFKA_IMAGE")).with_kraft() as container:
        yield container.get_bootstrap_server()


def docker_is_available() -> bool:
    import docker
    from docker.errors import DockerException

    try:
        docker.from_env().close()
    except DockerException:
        return False
    return True


def image(variable: str) -> str:
    """The image that the compose stack uses, from the file that pins it."""
    lines = ENV_FILE.read_text().splitlines()
    return next(line.partition("=")[2].strip() for line in lines if line.startswith(f"{variable}="))
