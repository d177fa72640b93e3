"""A client that has lost its group membership."""

import json
from threading import Event
from typing import Any, cast

import pytest
from confluent_kafka import Consumer

from src.kafka.membership import MembershipWatchdog, close_in_background
from src.kafka.statistics import ClusterStatistics

TIMEOUT = 120.0


def view(join_state: str = "init", broker: str = "UP") -> ClusterStatistics:
    seen = ClusterStatistics("b:9092")
    brokers = {"b:9092/1": {"state": broker, "nodeid": 1}}
    seen.update(json.dumps({"brokers": brokers, "topics": {}, "cgrp": {"join_state": join_state}}))
    return seen


def detected(*looks: tuple[float, ClusterStatistics]) -> list[bool]:
    moments = iter([moment for moment, seen in looks if not (seen.in_group or seen.unreachable)])
    watch = MembershipWatchdog(TIMEOUT, clock=lambda: next(moments))
    return [watch.expired(seen) for _, seen in looks]


def test_a_client_outside_its_group_is_detected_once_per_timeout() -> None:
    seen = view()

    assert detected((0, seen), (119, seen), (120, seen), (121, seen), (240, seen), (241, seen)) == [
        *(False, False, True),
        *(False, False, True),
    ]


@pytest.mark.parametrize("between", [view(join_state="steady"), view(broker="DOWN")])
def test_membership_or_an_unreachable_broker_resets_the_timeout(between: ClusterStatistics) -> None:
    assert detected((0, view()), (100, between), (130, view()), (249, view()), (250, view())) == [
        *(False, False, False, False),
        True,
    ]


class Stuck:
    """A client whose close blocks until `release` is set."""

    def __init__(self) -> None:
        self.release, self.closed = Event(), Event()

    def close(self) -> None:
        self.release.wait(10)
        self.closed.set()


def test_a_client_that_does_not_close_is_abandoned(caplog: pytest.LogCaptureFixture) -> None:
    client = Stuck()

    close_in_background(cast(Consumer, client), timeout=0.01)

    assert "close timed out, client abandoned" in caplog.messages
    client.release.set()
    assert client.closed.wait(10)


def test_a_client_that_closes_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    client = Stuck()
    client.release.set()

    close_in_background(cast(Consumer, client), timeout=10)

    assert client.closed.is_set()
    assert caplog.messages == []


def test_an_error_while_closing_is_ignored() -> None:
    class Broken:
        def close(self) -> Any:
            raise RuntimeError("already closed")

    close_in_background(cast(Consumer, Broken()), timeout=10)
