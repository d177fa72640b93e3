"""Every message is delivered or stored."""

import logging
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from src.delivery.batch import Batch
from src.delivery.delivery import GRACE_PERIOD, POLL_TIMEOUT, REPORT_TIMEOUT, Delivery
from src.delivery.ledger import MAX_BYTES, MAX_MESSAGES
from src.delivery.retry_policy import MAX_RETRY_DELAY, RetryPolicy
from src.delivery.undelivered_buffer import WRITE_RETRY_INTERVAL
from src.model.delivery_failure import Fault
from src.model.errors import UndeliveredStoreError
from src.model.message import ProducerRecord
from src.utils.metrics import ProducerMetrics
from tests.fakes import UNLIMITED, FakeClock, FakePublisher, FakeUndeliveredStore, key, record, records


class World:
    """Delivery with a fake Kafka and a fake store."""

    def __init__(self, *, max_retries: int | None = 3, initial_delay: float = 1.0, capacity: int = UNLIMITED) -> None:
        self.clock = FakeClock()
        self.publisher = FakePublisher(self.clock, capacity=capacity)
        self.store = FakeUndeliveredStore()
        self.registry = CollectorRegistry()
        self.stop = Event()
        self.delivery = Delivery(
            self.publisher,
            self.store,
            RetryPolicy(max_retries, initial_delay),
            ProducerMetrics(self.registry, version="1"),
            clock=self.clock,
            stop=self.stop,
        )

    @property
    def delivered_keys(self) -> list[str]:
        return list(map(key, self.publisher.delivered))

    def deliver(self, *messages: ProducerRecord) -> Batch:
        return self.delivery.send_and_wait(messages)

    def count(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


def test_delivered_messages_are_counted() -> None:
    world = World()

    batch = world.deliver(*records(3))

    assert (batch.delivered, batch.undelivered) == (3, 0)
    assert world.delivered_keys == ["0", "1", "2"]
    assert world.delivery.ledger.in_flight == 0
    assert world.count("producer_messages_total", result="delivered") == 3
    assert world.count("producer_batch_size_messages_sum") == 3
    assert world.count("producer_send_latency_seconds_count") == 1


def test_only_failed_messages_are_retried() -> None:
    world = World()
    world.publisher.fail("1", "no leader")

    batch = world.deliver(*records(3))

    assert batch.delivered == 3
    assert world.delivered_keys == ["0", "2", "1"]
    assert world.store.failures == []
    assert world.count("producer_retries_total") == 1


def test_a_message_that_exhausts_its_retries_is_stored_with_the_last_reason() -> None:
    world = World(max_retries=2)
    world.publisher.fail("1", "first", "second", "third", "never reached")

    batch = world.deliver(*records(3))

    assert (batch.delivered, batch.undelivered) == (2, 1)
    assert (world.store.keys, world.store.reasons) == (["1"], ["third"])
    assert world.count("producer_messages_total", result="failed") == 1


def test_retry_delays_grow_exponentially() -> None:
    world = World(initial_delay=4.0)
    world.publisher.fail("0", "no", "no")
    started = world.clock.now

    world.deliver(*records(1))

    assert 4 + 8 <= world.clock.now - started < 5 + 9 + 4 * POLL_TIMEOUT


def test_a_pending_retry_does_not_delay_new_batches() -> None:
    world = World(initial_delay=3600.0)
    world.publisher.fail("0", "no")
    world.delivery.send([record("0")])
    world.delivery.poll_once(0)

    world.delivery.send([record("1")])
    world.delivery.poll_once(0)

    assert world.delivered_keys == ["1"]
    assert world.delivery.ledger.in_flight == 1


def test_a_permanent_failure_is_not_retried_and_the_rest_of_the_batch_is_delivered() -> None:
    world = World()
    world.publisher.fail("1", "too large", fault=Fault.PERMANENT)

    batch = world.deliver(*records(3))

    assert batch.delivered == 2
    assert world.store.reasons == ["too large"]
    assert world.count("producer_retries_total") == 0


def test_messages_of_a_rejected_request_are_retried_alone_and_only_the_cause_fails() -> None:
    world = World()
    world.publisher.fail("0", "too large", fault=Fault.BATCH)
    world.publisher.fail("1", "too large", "too large", fault=Fault.BATCH)
    world.publisher.fail("2", "too large", fault=Fault.BATCH)

    batch = world.deliver(*records(3))

    assert batch.delivered == 2
    assert world.store.keys == ["1"]
    assert world.publisher.sizes == [3, 1, 1, 1]


def test_no_new_batch_is_accepted_while_messages_are_retried_alone() -> None:
    world = World()
    world.publisher.fail("0", "too large", fault=Fault.BATCH)
    world.publisher.fail("1", "too large", fault=Fault.BATCH)
    world.delivery.send(records(2))

    world.delivery.poll_once(0)

    assert not world.delivery.has_capacity


def test_a_full_client_receives_the_rest_when_it_has_capacity() -> None:
    world = World(capacity=2)
    world.delivery.send(records(5))
    full = not world.delivery.has_capacity

    while world.delivery.ledger.in_flight:
        world.delivery.poll_once(0)

    assert full
    assert world.delivered_keys == ["0", "1", "2", "3", "4"]
    assert world.publisher.sizes == [2, 2, 1]


@pytest.mark.parametrize(
    "messages", [[record("x", size=MAX_BYTES)], [record("x")] * MAX_MESSAGES], ids=["bytes", "messages"]
)
def test_messages_in_flight_are_bounded(messages: list[ProducerRecord]) -> None:
    world = World()
    world.publisher.silent = True

    world.delivery.send(messages)

    assert not world.delivery.has_capacity


@pytest.mark.parametrize(
    "messages", [[record("x", size=MAX_BYTES)], [record("x")] * MAX_MESSAGES], ids=["bytes", "messages"]
)
def test_delivered_messages_free_capacity_before_their_batch_is_settled(messages: list[ProducerRecord]) -> None:
    world = World(initial_delay=3600.0)
    world.publisher.fail("0", "no leader")

    world.delivery.send([record("0"), *messages])
    world.delivery.poll_once(0)

    assert world.delivery.has_capacity
    assert world.delivery.ledger.in_flight == 1


def test_a_stop_cancels_a_pending_retry_and_the_message_is_stored() -> None:
    world = World(initial_delay=600.0)
    world.publisher.fail("0", "no")
    world.publisher.on_poll = lambda: world.stop.set() if world.publisher.delivered else None
    started = world.clock.now

    batch = world.deliver(*records(2))

    assert world.clock.now - started <= 2 * POLL_TIMEOUT
    assert (batch.delivered, batch.undelivered) == (1, 1)
    assert world.store.reasons == ["producer stopped before retrying"]


def test_a_stop_waits_for_the_grace_period_and_then_stores_what_is_in_flight() -> None:
    world = World()
    world.publisher.silent = True
    world.delivery.send(records(2))
    started = world.clock.now

    world.delivery.finish()

    assert world.clock.now - started == pytest.approx(GRACE_PERIOD, abs=POLL_TIMEOUT)
    assert world.store.reasons == ["producer stopped before the acknowledgement"] * 2
    assert world.delivery.ledger.undelivered == 2


def test_a_topic_that_has_not_been_found_is_a_readiness_failure_of_a_reachable_broker() -> None:
    world = World()
    world.publisher.topic_failure = "topic t: not found yet"
    missing = world.delivery.readiness_failures()
    world.publisher.unavailable_reason = "broker down"

    assert (missing, world.delivery.readiness_failures()) == (["topic t: not found yet"], ["broker down"])


def test_a_stop_does_not_wait_for_an_unreachable_broker() -> None:
    world = World()
    world.publisher.silent = True
    world.publisher.unavailable_reason = "broker down"
    world.delivery.send(records(2))
    started = world.clock.now

    world.delivery.finish()

    assert world.clock.now == started
    assert world.delivery.ledger.undelivered == 2


def test_a_stop_stores_what_the_client_had_no_capacity_for() -> None:
    world = World(capacity=1)
    world.delivery.send(records(3))

    world.delivery.finish()

    assert world.delivered_keys == ["0"]
    assert world.store.reasons == ["producer stopped before sending"] * 2


def test_after_a_fatal_client_error_every_message_is_delivered_or_stored() -> None:
    world = World()
    world.publisher.fatal_after = 0

    batch = world.deliver(*records(3))

    assert (batch.delivered, batch.undelivered) == (0, 3)
    assert world.store.keys == ["0", "1", "2"]


def test_while_the_store_cannot_be_written_messages_are_held_and_new_ones_are_not_accepted() -> None:
    world = World(max_retries=0)
    world.store.full = 2
    world.publisher.fail("0", "too large", fault=Fault.PERMANENT)
    world.delivery.send(records(1))

    world.delivery.poll_once(0)
    readiness_failures, capacity = world.delivery.readiness_failures(), world.delivery.has_capacity
    for _ in range(50):
        world.delivery.poll_once(POLL_TIMEOUT)

    assert readiness_failures == [
        "cannot write undelivered messages: no space left on device",
        "not accepting new messages: 0 in flight",
    ]
    assert not capacity
    assert world.store.keys == ["0"]
    assert world.delivery.readiness_failures() == []
    assert world.delivery.has_capacity


def test_messages_that_cannot_be_stored_are_delivered_if_kafka_recovers_first() -> None:
    world = World(max_retries=0)
    world.store.full = UNLIMITED
    world.publisher.fail("0", "no leader", "no leader", "no leader")
    world.delivery.send(records(2))
    world.delivery.poll_once(0)
    during_outage = world.delivery.readiness_failures()

    for _ in range(200):
        world.delivery.poll_once(POLL_TIMEOUT)

    assert during_outage == [
        "cannot write undelivered messages: no space left on device",
        "no leader",
        "not accepting new messages: 1 in flight",
    ]
    assert world.delivered_keys == ["1", "0"]
    assert world.delivery.readiness_failures() == []
    assert world.delivery.has_capacity
    assert (world.delivery.ledger.delivered, world.delivery.ledger.undelivered, world.delivery.ledger.in_flight) == (
        1,
        1,
        0,
    )


def test_messages_that_could_not_be_stored_are_stored_once_the_store_recovers() -> None:
    world = World(max_retries=0, initial_delay=60.0)
    world.store.full = 2
    world.publisher.fail("0", *["no leader"] * 10)
    world.delivery.send(records(1))

    for _ in range(3):
        world.clock.advance(WRITE_RETRY_INTERVAL)
        world.delivery.poll_once(POLL_TIMEOUT)

    assert (world.store.keys, world.store.reasons) == (["0"], ["no leader"])
    assert (world.delivery.readiness_failures(), world.delivery.has_capacity) == (["no leader"], True)
    world.clock.advance(2 * 60.0)
    world.delivery.poll_once(POLL_TIMEOUT)
    assert (world.publisher.sizes, world.delivery.ledger.in_flight) == ([1], 0)


def test_a_stop_stores_messages_that_are_resent_because_the_store_was_full() -> None:
    world = World(max_retries=0)
    world.store.full = 1
    world.publisher.fail("0", "no leader")
    world.delivery.send(records(1))
    world.delivery.poll_once(0)

    world.delivery.finish()

    assert world.store.keys == ["0"]
    assert world.delivery.ledger.in_flight == 0


def test_with_unlimited_retries_transient_failures_never_become_permanent() -> None:
    world = World(max_retries=None)
    world.publisher.fail("0", *["no leader"] * 50)
    world.publisher.fail("1", "too large", fault=Fault.PERMANENT)
    started = world.clock.now

    batch = world.deliver(*records(3))

    assert (batch.delivered, world.store.keys) == (2, ["1"])
    assert world.clock.now - started < 50 * MAX_RETRY_DELAY + 60


def test_failures_of_a_resent_batch_are_left_to_the_caller_and_not_counted_again() -> None:
    world = World(max_retries=0)
    world.publisher.fail("0", "no leader")

    batch = world.delivery.wait_for(world.delivery.resend(records(2)))

    assert (batch.delivered, [failure.record.key for failure in batch.failures]) == (1, [b"0"])
    assert world.store.failures == []
    assert world.count("producer_messages_total", result="delivered") == 1
    assert world.count("producer_messages_total", result="failed") == 0
    assert world.delivery.ledger.in_flight == 0


def test_only_a_message_rejected_alone_is_marked_as_the_cause() -> None:
    world = World()
    world.publisher.fail("0", "too large", "too large", fault=Fault.BATCH)
    world.deliver(*records(1))
    alone = [failure.fault for failure in world.store.failures]
    world.publisher.fail("1", "too large", fault=Fault.BATCH)
    world.delivery.send([record("1")])

    world.delivery.finish()

    assert alone == [Fault.PERMANENT]
    assert world.store.failures[-1].fault is Fault.BATCH


def test_messages_lost_at_the_end_raise_an_error_and_their_keys_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.store.full = 1
    world.publisher.unavailable_reason = "broker down"
    world.publisher.silent = True
    world.delivery.send(records(1))

    with pytest.raises(UndeliveredStoreError):
        world.delivery.finish()

    lost = caplog.records[-1].__dict__
    assert (lost["message"], lost["messages"], lost["keys"]) == ("messages lost", 1, ["0"])


def test_readiness_fails_with_a_transient_failure_and_recovers_with_the_next_delivery() -> None:
    world = World()
    world.publisher.fail("0", "no leader")
    world.delivery.send([record("0")])
    world.delivery.poll_once(0)
    during_failure = world.delivery.readiness_failures()

    world.delivery.send([record("1")])
    world.delivery.poll_once(0)

    assert during_failure == ["no leader"]
    assert world.delivery.readiness_failures() == []


def test_missing_delivery_reports_fail_readiness_and_idleness_does_not() -> None:
    world = World()
    world.clock.advance(REPORT_TIMEOUT * 2)
    idle = world.delivery.readiness_failures()
    world.publisher.silent = True
    world.delivery.send(records(1))
    initially = world.delivery.readiness_failures()

    world.clock.advance(REPORT_TIMEOUT + 1)

    assert (idle, initially) == ([], [])
    assert world.delivery.readiness_failures() == ["no delivery report for 31 s"]


def test_permanent_failures_are_logged_once_per_reason_with_their_number(caplog: pytest.LogCaptureFixture) -> None:
    world = World(max_retries=0)
    for name in ("0", "1"):
        world.publisher.fail(name, "no leader")

    world.deliver(*records(3))

    lines = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [(line.getMessage(), line.__dict__["messages"]) for line in lines] == [("delivery failed permanently", 2)]


@given(st.integers(1, 100), st.floats(0, 3600))
def test_a_retry_delay_is_between_the_initial_and_the_maximum_delay(retry: int, initial: float) -> None:
    delay = RetryPolicy(max_retries=100, initial_delay=initial).delay(retry)

    assert initial <= delay <= max(60.0, initial)
