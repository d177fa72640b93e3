"""Availability as derived from statistics."""

import pytest

from src.kafka.statistics import ClusterStatistics


def statistics(*states: str) -> str:
    """As librdkafka may report one broker after an outage: several times under the same name."""
    listed = ", ".join(f'"b:9092/1": {{"state": "{state}", "nodeid": 1}}' for state in states)
    return f'{{"brokers": {{{listed}}}, "topics": {{}}}}'


@pytest.mark.parametrize("states", [("UP",), ("UP", "INIT"), ("INIT", "UP")])
def test_a_broker_is_reachable_if_one_of_its_entries_is_up(states: tuple[str, ...]) -> None:
    cluster = ClusterStatistics("b:9092")

    cluster.update(statistics(*states))

    assert cluster.unreachable is None


@pytest.mark.parametrize("states", [(), ("DOWN",), ("INIT", "DOWN")])
def test_no_broker_is_reachable_if_no_entry_is_up(states: tuple[str, ...]) -> None:
    cluster = ClusterStatistics("b:9092")

    cluster.update(statistics(*states))

    assert cluster.unreachable == "broker b:9092: not connected yet"
