"""Each message handed over is delivered, or kept."""

import logging
from collections import deque
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from src.delivery import (
    GRACE,
    KEEP_AGAIN,
    LONGEST_DELAY,
    MAX_BYTES,
    MAX_MESSAGES,
    SILENCE,
    TURN,
    Batch,
    Delivery,
    RetryPolicy,
)
from src.kafka.produce_request import Fault
from src.model.errors import UndeliveredFileError
from src.model.message import Encoded
from src.utils.metrics import ProducerMetrics
from tests.fakes import FakeClock, FakeKeeper, FakePublisher, encoded, named


class World:
    """A delivery among fakes."""

    def __init__(self, *, max_retries: int | None = 3, initial_delay: float = 1.0, room: int = 1_000_000) -> None:
        self.clock = FakeClock()
        self.publisher = FakePublisher(self.clock, room=room)
        self.keeper = FakeKeeper()
        self.registry = CollectorRegistry()
        self.stop = Event()
        self.delivery = Delivery(
            self.publisher,
            self.keeper,
            RetryPolicy(max_retries, initial_delay),
            ProducerMetrics(self.registry, version="1"),
            clock=self.clock,
            stop=self.stop,
        )

    @property
    def delivered_keys(self) -> list[str]:
        return [(message.key or b"").decode() for message in self.publisher.delivered]

    def deliver(self, *messages: Encoded) -> Batch:
        return self.delivery.deliver(messages)

    def count(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


def test_what_is_delivered_is_counted() -> None:
    world = World()

    batch = world.deliver(*named(3))

    assert (batch.delivered, batch.undelivered) == (3, 0)
    assert world.delivered_keys == ["0", "1", "2"]
    assert world.delivery.outstanding == 0
    assert world.count("producer_messages_total", result="delivered") == 3
    assert world.count("producer_batch_size_messages_sum") == 3
    assert world.count("producer_send_latency_seconds_count") == 1


def test_only_what_was_not_delivered_is_sent_again() -> None:
    world = World()
    world.publisher.refuse("1", "no leader")

    batch = world.deliver(*named(3))

    assert batch.delivered == 3
    assert world.delivered_keys == ["0", "2", "1"]
    assert world.keeper.kept == []
    assert world.count("producer_retries_total") == 1


def test_what_fails_once_more_than_the_retries_is_kept_with_its_last_reason() -> None:
    world = World(max_retries=2)
    world.publisher.refuse("1", "first", "second", "third", "never reached")

    batch = world.deliver(*named(3))

    assert (batch.delivered, batch.undelivered) == (2, 1)
    assert (world.keeper.keys, world.keeper.reasons) == (["1"], ["third"])
    assert world.count("producer_messages_total", result="failed") == 1


def test_retries_wait_longer_each_time() -> None:
    world = World(initial_delay=4.0)
    world.publisher.refuse("0", "no", "no")
    started = world.clock.now

    world.deliver(*named(1))

    assert 4 + 8 <= world.clock.now - started < 5 + 9 + 4 * TURN


def test_new_batches_do_not_wait_for_a_retry() -> None:
    world = World(initial_delay=3600.0)
    world.publisher.refuse("0", "no")
    world.delivery.dispatch([encoded("0")])
    world.delivery.turn(0)

    world.delivery.dispatch([encoded("1")])
    world.delivery.turn(0)

    assert world.delivered_keys == ["1"]
    assert world.delivery.outstanding == 1


def test_a_message_that_can_never_be_sent_is_given_up_at_once_and_its_neighbours_are_delivered() -> None:
    world = World()
    world.publisher.refuse("1", "too large", fault=Fault.MESSAGE)

    batch = world.deliver(*named(3))

    assert batch.delivered == 2
    assert world.keeper.reasons == ["too large"]
    assert world.count("producer_retries_total") == 0


def test_messages_refused_in_company_are_tried_alone_and_only_the_culprit_is_given_up() -> None:
    world = World()
    world.publisher.refuse("0", "too large", fault=Fault.COMPANY)
    world.publisher.refuse("1", "too large", "too large", fault=Fault.COMPANY)
    world.publisher.refuse("2", "too large", fault=Fault.COMPANY)

    batch = world.deliver(*named(3))

    assert batch.delivered == 2
    assert world.keeper.keys == ["1"]
    assert world.publisher.sizes == [3, 1, 1, 1]


def test_no_new_batch_travels_with_a_message_that_is_tried_alone() -> None:
    world = World()
    world.publisher.refuse("0", "too large", fault=Fault.COMPANY)
    world.publisher.refuse("1", "too large", fault=Fault.COMPANY)
    world.delivery.dispatch(named(2))

    world.delivery.turn(0)

    assert not world.delivery.has_room


def test_a_full_client_is_given_the_rest_as_it_has_room() -> None:
    world = World(room=2)
    world.delivery.dispatch(named(5))
    full = not world.delivery.has_room

    while world.delivery.outstanding:
        world.delivery.turn(0)

    assert full
    assert world.delivered_keys == ["0", "1", "2", "3", "4"]
    assert world.publisher.sizes == [2, 2, 1]


@pytest.mark.parametrize(
    "messages", [[encoded("x", size=MAX_BYTES)], [encoded("x")] * MAX_MESSAGES], ids=["bytes", "messages"]
)
def test_what_is_on_its_way_is_bounded(messages: list[Encoded]) -> None:
    world = World()
    world.publisher.silent = True

    world.delivery.dispatch(messages)

    assert not world.delivery.has_room


@pytest.mark.parametrize(
    "messages", [[encoded("x", size=MAX_BYTES)], [encoded("x")] * MAX_MESSAGES], ids=["bytes", "messages"]
)
def test_what_is_delivered_makes_room_although_another_of_its_batch_is_not(messages: list[Encoded]) -> None:
    world = World(initial_delay=3600.0)
    world.publisher.refuse("0", "no leader")

    world.delivery.dispatch([encoded("0"), *messages])
    world.delivery.turn(0)

    assert world.delivery.has_room
    assert world.delivery.outstanding == 1


def test_a_stop_ends_the_wait_for_a_retry_and_the_message_is_kept() -> None:
    world = World(initial_delay=600.0)
    world.publisher.refuse("0", "no")
    world.publisher.on_wait = lambda: world.stop.set() if world.publisher.delivered else None
    started = world.clock.now

    batch = world.deliver(*named(2))

    assert world.clock.now - started <= 2 * TURN
    assert (batch.delivered, batch.undelivered) == (1, 1)
    assert world.keeper.reasons == ["stopped before it was sent again"]


def test_a_stop_gives_what_is_in_flight_the_grace_and_then_keeps_it() -> None:
    world = World()
    world.publisher.silent = True
    world.delivery.dispatch(named(2))
    started = world.clock.now

    world.delivery.finish()

    assert world.clock.now - started == pytest.approx(GRACE, abs=TURN)
    assert world.keeper.reasons == ["stopped before it was confirmed"] * 2
    assert world.delivery.undelivered == 2


def test_a_stop_does_not_wait_for_a_broker_that_is_away() -> None:
    world = World()
    world.publisher.silent = True
    world.publisher.trouble = "broker down"
    world.delivery.dispatch(named(2))
    started = world.clock.now

    world.delivery.finish()

    assert world.clock.now == started
    assert world.delivery.undelivered == 2


def test_what_the_client_had_no_room_for_is_kept_at_a_stop() -> None:
    world = World(room=1)
    world.delivery.dispatch(named(3))

    world.delivery.finish()

    assert world.delivered_keys == ["0"]
    assert world.keeper.reasons == ["stopped before it was sent"] * 2


def test_a_client_that_breaks_down_leaves_everything_delivered_or_kept() -> None:
    world = World()
    world.publisher.fatal_after = 0

    batch = world.deliver(*named(3))

    assert (batch.delivered, batch.undelivered) == (0, 3)
    assert world.keeper.keys == ["0", "1", "2"]


def test_while_messages_cannot_be_kept_they_stay_and_no_new_ones_are_taken() -> None:
    world = World(max_retries=0)
    world.keeper.full = 2
    world.publisher.refuse("0", "too large", fault=Fault.MESSAGE)
    world.delivery.dispatch(named(1))

    world.delivery.turn(0)
    readiness_failures, room = world.delivery.readiness_failures(), world.delivery.has_room
    for _ in range(50):
        world.delivery.turn(TURN)

    assert readiness_failures == [
        "undelivered messages can't be kept: no space left on device",
        "no new messages are taken: 0 are on their way",
    ]
    assert not room
    assert world.keeper.keys == ["0"]
    assert world.delivery.readiness_failures() == []
    assert world.delivery.has_room


def test_what_cannot_be_kept_is_sent_when_kafka_is_back_before_the_file() -> None:
    world = World(max_retries=0)
    world.keeper.full = 1_000_000
    world.publisher.refuse("0", "away", "away", "away")
    world.delivery.dispatch(named(2))
    world.delivery.turn(0)
    in_the_outage = world.delivery.readiness_failures()

    for _ in range(200):
        world.delivery.turn(TURN)

    assert in_the_outage == [
        "undelivered messages can't be kept: no space left on device",
        "away",
        "no new messages are taken: 1 are on their way",
    ]
    assert world.delivered_keys == ["1", "0"]
    assert world.delivery.readiness_failures() == []
    assert world.delivery.has_room
    assert (world.delivery.delivered, world.delivery.undelivered, world.delivery.outstanding) == (1, 1, 0)


def test_what_could_not_be_kept_is_kept_as_soon_as_the_file_can_be_written() -> None:
    world = World(max_retries=0, initial_delay=60.0)
    world.keeper.full = 2
    world.publisher.refuse("0", *["away"] * 10)
    world.delivery.dispatch(named(1))

    for _ in range(3):
        world.clock.advance(KEEP_AGAIN)
        world.delivery.turn(TURN)

    assert (world.keeper.keys, world.keeper.reasons) == (["0"], ["away"])
    assert (world.delivery.readiness_failures(), world.delivery.has_room) == (["away"], True)
    world.clock.advance(2 * 60.0)
    world.delivery.turn(TURN)
    assert (world.publisher.sizes, world.delivery.outstanding) == ([1], 0)


def test_what_could_not_be_kept_and_is_on_its_way_again_is_kept_at_a_stop() -> None:
    world = World(max_retries=0)
    world.keeper.full = 1
    world.publisher.refuse("0", "away")
    world.delivery.dispatch(named(1))
    world.delivery.turn(0)

    world.delivery.finish()

    assert world.keeper.keys == ["0"]
    assert world.delivery.outstanding == 0


def test_without_an_end_of_the_retries_nothing_is_given_up_for_the_worlds_fault() -> None:
    world = World(max_retries=None)
    world.publisher.refuse("0", *["away"] * 50)
    world.publisher.refuse("1", "too large", fault=Fault.MESSAGE)
    started = world.clock.now

    batch = world.deliver(*named(3))

    assert (batch.delivered, world.keeper.keys) == (2, ["1"])
    assert world.clock.now - started < 50 * LONGEST_DELAY + 60


def test_what_was_given_up_before_is_left_to_who_sends_it_and_counted_once() -> None:
    world = World(max_retries=0)
    world.publisher.refuse("0", "away")

    batch = world.delivery.see_through(world.delivery.dispatch_again(named(2)))

    assert (batch.delivered, [failure.message.key for failure in batch.given_up]) == (1, [b"0"])
    assert world.keeper.kept == []
    assert world.count("producer_messages_total", result="delivered") == 1
    assert world.count("producer_messages_total", result="failed") == 0
    assert world.delivery.outstanding == 0


def test_a_message_that_is_refused_alone_is_known_to_be_at_fault_and_one_that_a_stop_cut_short_is_not() -> None:
    world = World()
    world.publisher.refuse("0", "too large", "too large", fault=Fault.COMPANY)
    world.deliver(*named(1))
    alone = [failure.fault for failure in world.keeper.kept]
    world.publisher.refuse("1", "too large", fault=Fault.COMPANY)
    world.delivery.dispatch([encoded("1")])

    world.delivery.finish()

    assert alone == [Fault.MESSAGE]
    assert world.keeper.kept[-1].fault is Fault.COMPANY


def test_messages_that_cannot_be_kept_at_the_end_are_an_error_and_named(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.keeper.full = 1
    world.publisher.trouble = "broker down"
    world.publisher.silent = True
    world.delivery.dispatch(named(1))

    with pytest.raises(UndeliveredFileError):
        world.delivery.finish()

    lost = caplog.records[-1].__dict__
    assert (lost["message"], lost["messages"], lost["keys"]) == ("messages lost", 1, ["0"])


def test_not_ready_while_messages_fail_and_ready_with_the_next_one_delivered() -> None:
    world = World()
    world.publisher.refuse("0", "no leader")
    world.delivery.dispatch([encoded("0")])
    world.delivery.turn(0)
    while_failing = world.delivery.readiness_failures()

    world.delivery.dispatch([encoded("1")])
    world.delivery.turn(0)

    assert while_failing == ["no leader"]
    assert world.delivery.readiness_failures() == []


def test_a_broker_that_sends_no_delivery_reports_is_a_readiness_failure_and_idleness_is_not() -> None:
    world = World()
    world.clock.advance(SILENCE * 2)
    idle = world.delivery.readiness_failures()
    world.publisher.silent = True
    world.delivery.dispatch(named(1))
    at_first = world.delivery.readiness_failures()

    world.clock.advance(SILENCE + 1)

    assert (idle, at_first) == ([], [])
    assert world.delivery.readiness_failures() == ["no delivery report for 31 s"]


def test_what_was_given_up_is_logged_once_with_its_number(caplog: pytest.LogCaptureFixture) -> None:
    world = World(max_retries=0)
    for name in ("0", "1"):
        world.publisher.refuse(name, "no leader")

    world.deliver(*named(3))

    lines = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [(line.getMessage(), line.__dict__["messages"]) for line in lines] == [("messages given up", 2)]


@given(st.integers(1, 100), st.floats(0, 3600))
def test_a_delay_is_at_least_the_first_one_and_never_much_longer_than_a_minute(retry: int, initial: float) -> None:
    delay = RetryPolicy(max_retries=100, initial_delay=initial).delay(retry)

    assert initial <= delay <= max(60.0, initial)


@given(
    st.lists(st.lists(st.sampled_from(Fault), max_size=5), min_size=1, max_size=20),
    st.integers(0, 3),
    st.integers(1, 7),
    st.integers(0, 60),
)
def test_accepted_is_delivered_plus_kept_whatever_fails(
    faults: list[list[Fault]], max_retries: int, room: int, turns: int
) -> None:
    world = World(max_retries=max_retries, room=room)
    messages = named(len(faults))
    for message, own in zip(messages, faults, strict=True):
        world.publisher.answers[message.key or b""] = deque((fault, "no") for fault in own)

    world.delivery.dispatch(messages)
    for _ in range(turns):
        world.delivery.turn(1.0)
    world.delivery.finish()

    assert sorted(world.delivered_keys + world.keeper.keys) == sorted(str(n) for n in range(len(faults)))
    assert world.delivery.delivered + world.delivery.undelivered == len(faults)
    assert (world.delivery.outstanding, world.delivery._outstanding_bytes) == (0, 0)
