"""A client that has lost its group."""

import json
from threading import Event
from typing import Any, cast

import pytest
from confluent_kafka import Consumer

from src.kafka.membership import MembershipWatchdog, close_in_background
from src.kafka.statistics import ClusterStatistics

PATIENCE = 120.0


def view(join_state: str = "init", broker: str = "UP") -> ClusterStatistics:
    seen = ClusterStatistics("b:9092", "data-topic")
    brokers = {"b:9092/1": {"state": broker, "nodeid": 1}}
    seen.update(json.dumps({"brokers": brokers, "topics": {}, "cgrp": {"join_state": join_state}}))
    return seen


def noticed(*looks: tuple[float, ClusterStatistics]) -> list[bool]:
    moments = iter([moment for moment, seen in looks if not (seen.in_group or seen.trouble)])
    watch = MembershipWatchdog(PATIENCE, clock=lambda: next(moments))
    return [watch.notices(seen) for _, seen in looks]


def test_a_client_without_a_group_is_noticed_once_and_again_after_as_long() -> None:
    seen = view()

    assert noticed((0, seen), (119, seen), (120, seen), (121, seen), (240, seen), (241, seen)) == [
        *(False, False, True),
        *(False, False, True),
    ]


@pytest.mark.parametrize("between", [view(join_state="steady"), view(broker="DOWN")])
def test_a_group_or_a_broker_that_is_away_begins_the_time_anew(between: ClusterStatistics) -> None:
    assert noticed((0, view()), (100, between), (130, view()), (249, view()), (250, view())) == [
        *(False, False, False, False),
        True,
    ]


class Stuck:
    """A client whose close does not end before it is told to."""

    def __init__(self) -> None:
        self.told, self.closed = Event(), Event()

    def close(self) -> None:
        self.told.wait(10)
        self.closed.set()


def test_a_client_that_does_not_close_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    client = Stuck()

    close_in_background(cast(Consumer, client), within=0.01)

    assert "the Kafka client is not closed in time and is left behind" in caplog.messages
    client.told.set()
    assert client.closed.wait(10)


def test_a_client_that_closes_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    client = Stuck()
    client.told.set()

    close_in_background(cast(Consumer, client), within=10)

    assert client.closed.is_set()
    assert caplog.messages == []


def test_what_goes_wrong_while_it_closes_is_nobodys_concern() -> None:
    class Broken:
        def close(self) -> Any:
            raise RuntimeError("already closed")

    close_in_background(cast(Consumer, Broken()), within=10)
