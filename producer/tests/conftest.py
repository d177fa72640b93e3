"""Kafka for the tests, and profiles of the property tests: `pytest --hypothesis-profile=NAME`."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from local.broker import EmbeddedBroker
from tests.kafka_containers import kafka3_servers, kafka4_servers, kafka_servers

__all__ = ["kafka3_servers", "kafka4_servers", "kafka_servers"]

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
