"""Delivery loses and duplicates no message, whatever happens in whatever order.

Hypothesis searches for a sequence of events that breaks it; a second test shows that it finds one as soon as Delivery
has a bug. For a longer search:

    python -m pytest --hypothesis-profile=thorough tests/test_delivery_machine.py -k exactly_one_place
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from prometheus_client import CollectorRegistry

from src.delivery.batch import Batch, SendAttempt
from src.delivery.delivery import Delivery
from src.delivery.ledger import MAX_BYTES
from src.delivery.retry_policy import RetryPolicy
from src.model.delivery_failure import DeliveryFailure, Fault
from src.model.errors import FatalClientError, UndeliveredStoreError
from src.model.message import ProducerRecord
from src.utils.metrics import ProducerMetrics
from tests.fakes import UNLIMITED, FakeClock, FakeUndeliveredStore, ScriptedPublisher

COMMON = settings(
    deadline=None,
    database=None,
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),  # other work may slow the machine down
)
MUTANT = settings(
    COMMON, max_examples=20_000, derandomize=True, phases=[Phase.generate], report_multiple_bugs=False, print_blob=False
)

LARGE = bytes(8 * 1024 * 1024)  # shared: only its length matters
MAX_BATCH_SIZE = 3
MAX_BATCH_BYTES = MAX_BATCH_SIZE * (len(LARGE) + 10)
ROUNDS = 300  # polls within which everything is settled once nothing fails any more

reports = st.sampled_from([None, None, *Fault])  # None is delivered


class StrictStore(FakeUndeliveredStore):
    """Records by key, none of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.records: dict[bytes, ProducerRecord] = {}

    def append(self, failures: Sequence[DeliveryFailure]) -> None:
        super().append(failures)
        for failure in failures:
            key = failure.record.key or b""
            assert key not in self.records, "stored twice"
            self.records[key] = failure.record


class DeliveryMachine(RuleBasedStateMachine):
    """Each rule is an event that can happen at any time. Delivered records are counted by the batches."""

    delivery_type: type[Delivery] = Delivery
    store_type: type[StrictStore] = StrictStore

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.publisher = ScriptedPublisher(self.clock)
        self.store = self.store_type()
        self.accepted: dict[bytes, ProducerRecord] = {}
        self.batches: list[Batch] = []
        self.resent: tuple[Batch, list[ProducerRecord]] | None = None
        self.first_batches = UNLIMITED
        self.finished = False

    @initialize(
        max_retries=st.sampled_from((None, 0, 1, 3)),
        capacity=st.sampled_from((1, 2, UNLIMITED)),
        first_batches=st.sampled_from((1, 5, UNLIMITED)),
    )
    def start(self, max_retries: int | None, capacity: int, first_batches: int) -> None:
        self.publisher.capacity = capacity
        self.first_batches = first_batches  # before a stop or a fatal error may happen
        self.delivery = self.delivery_type(
            self.publisher,
            self.store,
            RetryPolicy(max_retries, initial_delay=1.0),
            ProducerMetrics(CollectorRegistry(), version="1"),
            clock=self.clock,
        )

    # -- the main loop

    @rule(large=st.lists(st.booleans(), min_size=1, max_size=MAX_BATCH_SIZE))
    def send(self, large: list[bool]) -> None:
        if self.finished or not self.delivery.has_capacity:
            return
        keys = [str(len(self.accepted) + number).encode() for number in range(len(large))]
        records = [ProducerRecord(key, LARGE if big else b"{}", []) for key, big in zip(keys, large, strict=True)]
        self.accepted |= zip(keys, records, strict=True)
        self.batches.append(self.delivery.send(records))

    @rule(count=st.integers(1, MAX_BATCH_SIZE))
    def resend(self, count: int) -> None:
        """As the resender does: one batch at a time, and what fails again stays in the store."""
        self.remove_resent()
        if not self.finished and self.resent is None and self.delivery.has_resend_capacity:
            records = list(self.store.records.values())[:count]
            if records:
                self.resent = self.delivery.resend(records), records

    @rule(seconds=st.sampled_from((0.0, 0.1, 1.0, 5.0, 61.0)), script=st.lists(reports, max_size=3))
    def poll(self, seconds: float, script: Sequence[Fault | None] = ()) -> None:
        for report in script:
            self.publisher.report(0, report)
        self.clock.advance(seconds)
        if not self.finished:
            try:
                self.delivery.poll_once(0.1)
            except FatalClientError:
                self.finish()

    # -- Kafka and the disk

    @rule(script=st.lists(st.tuples(st.integers(0, 5), reports), min_size=1, max_size=4))
    def report(self, script: list[tuple[int, Fault | None]]) -> None:
        """Reports arrive in any order, some of them after the end, when no caller waits for them."""
        for position, report in script:
            self.publisher.report(position, report)

    @rule(capacity=st.sampled_from((1, 2, 5, UNLIMITED)), reason=st.sampled_from((None, "broker down")))
    def change_broker(self, capacity: int, reason: str | None) -> None:
        self.publisher.capacity = capacity
        self.publisher.unavailable_reason = reason

    @rule(calls=st.integers(1, 3))
    def fill_disk(self, calls: int) -> None:
        self.store.full = calls

    @precondition(lambda self: len(self.batches) >= self.first_batches and not self.publisher.fatal)
    @rule()
    def fail_fatally(self) -> None:
        self.publisher.fatal = True

    @precondition(lambda self: len(self.batches) >= self.first_batches and not self.finished)
    @rule(script=st.lists(reports, max_size=3), purges=st.booleans())
    def stop(self, script: list[Fault | None], purges: bool) -> None:
        self.publisher.script.extend(script)
        self.publisher.purges = purges
        self.finish()

    # -- invariants

    @invariant()
    def counts_are_consistent(self) -> None:
        if not hasattr(self, "delivery"):
            return
        ledger = self.delivery.ledger
        new = sum(batch.in_flight for batch in self.batches)
        resent = self.resent[0].in_flight if self.resent else 0
        assert ledger.in_flight >= new + resent
        assert ledger.undelivered >= 0
        assert ledger.delivered == sum(batch.delivered for batch in self.batches)
        assert all(batch.delivered + batch.undelivered <= batch.size for batch in self.batches)

    @invariant()
    def memory_is_bounded(self) -> None:
        """Records that are neither delivered nor in the store are held in memory."""
        held = self.accepted.keys() - self.publisher.confirmed - self.store.records.keys()
        size = sum(self.accepted[key].size for key in held)
        assert size <= MAX_BYTES + MAX_BATCH_BYTES, "memory limit exceeded"

    def teardown(self) -> None:
        """Called while the error that ended the sequence is being handled; then there is nothing left to check."""
        if sys.exc_info()[0] is None:
            self.recover()
            self.settle_everything()
            self.finish()
            self.remove_resent()
            self.check_that_each_is_in_one_place()

    # -- steps of the rules

    def recover(self) -> None:
        self.store.full = 0
        self.publisher.unavailable_reason = None
        self.publisher.capacity = UNLIMITED
        self.publisher.delivers = True

    def settle_everything(self) -> None:
        for _ in range(ROUNDS):
            if self.finished or not self.delivery.ledger.in_flight:
                return
            self.poll(61.0)
        raise AssertionError(f"{self.delivery.ledger.in_flight} are still in flight")

    def finish(self) -> None:
        """A second attempt after a full disk shows that what could not be written is still known."""
        if self.finished:
            return
        self.finished = True
        try:
            self.delivery.finish()
        except UndeliveredStoreError:
            self.store.full = 0
            self.delivery.finish()
        ledger = self.delivery.ledger
        assert (ledger.in_flight, ledger.in_flight_bytes) == (0, 0), "in flight after the end"

    def remove_resent(self) -> None:
        """Records of a resent batch that were delivered leave the store."""
        if self.resent and self.resent[0].settled:
            batch, records = self.resent
            failed = {failure.record.key for failure in batch.failures}
            for record in records:
                if record.key not in failed:
                    del self.store.records[record.key or b""]
            assert batch.delivered == len(records) - len(failed)
            self.resent = None

    def check_that_each_is_in_one_place(self) -> None:
        stored = {key: record for key, record in self.accepted.items() if key in self.store.records}
        assert stored == self.store.records, "unknown record in the store"
        delivered = self.publisher.confirmed
        assert not delivered & stored.keys(), "both delivered and stored"
        assert delivered | stored.keys() == self.accepted.keys(), "neither delivered nor stored"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of failures would log as many warnings."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_every_message_ends_up_in_exactly_one_place_in_any_order_of_events() -> None:
    run_state_machine_as_test(DeliveryMachine, settings=COMMON)


# Each of these mutants has one bug that the machine must find.


class ForgetsUnsentRecords(Delivery):
    def _send(self, attempt: SendAttempt) -> Sequence[ProducerRecord]:
        super()._send(attempt)
        return ()


class StoresWhatItRetries(Delivery):
    def _handle_failures(self, attempt: SendAttempt, failures: Sequence[DeliveryFailure]) -> None:
        super()._handle_failures(attempt, failures)
        with suppress(UndeliveredStoreError):
            self._buffer._store.append(self._queue.scheduled_failures(attempt.batch))


class NeverRetries(Delivery):
    def poll_once(self, timeout: float) -> None:
        self._complete(self._publisher.poll(timeout))
        self._send_queued()
        self._buffer.flush()


class ForgetsOpenRequests(Delivery):
    def _purge(self) -> None:
        self._open.clear()


class ExpectsReportsForAllPurged(Delivery):
    def _purge(self) -> None:
        self._publisher.purge()
        with suppress(FatalClientError):
            self._await_reports(1.0)


class AcceptsWithoutCapacity(Delivery):
    @property
    def has_capacity(self) -> bool:
        return True


class DropsWhatItCannotStore(StrictStore):
    def append(self, failures: Sequence[DeliveryFailure]) -> None:
        with suppress(UndeliveredStoreError):
            super().append(failures)


class StoresPartly(StrictStore):
    def append(self, failures: Sequence[DeliveryFailure]) -> None:
        try:
            super().append(failures)
        except UndeliveredStoreError:
            super().append(failures[:1])
            raise


MUTANTS: dict[str, tuple[type[Delivery], type[StrictStore], str]] = {
    "forgets what the client had no capacity for": (ForgetsUnsentRecords, StrictStore, "in flight"),
    "stores what it retries": (StoresWhatItRetries, StrictStore, "both delivered and stored|stored twice"),
    "never retries": (NeverRetries, StrictStore, "still in flight"),
    "forgets open requests at a stop": (ForgetsOpenRequests, StrictStore, "in flight after the end"),
    "expects a report for every purged record": (ExpectsReportsForAllPurged, StrictStore, "in flight after the end"),
    "accepts records without capacity": (AcceptsWithoutCapacity, StrictStore, "memory limit exceeded"),
    "drops what it cannot store": (Delivery, DropsWhatItCannotStore, "neither delivered nor stored"),
    "stores a part of a failed call": (Delivery, StoresPartly, "stored twice|both delivered and stored"),
}


@pytest.mark.parametrize(("delivery", "store", "violation"), MUTANTS.values(), ids=MUTANTS)
def test_the_machine_finds_the_bug_in_each_mutant(
    delivery: type[Delivery], store: type[StrictStore], violation: str
) -> None:
    class MutantMachine(DeliveryMachine):
        delivery_type = delivery
        store_type = store

    with pytest.raises(AssertionError, match=violation):
        run_state_machine_as_test(MutantMachine, settings=MUTANT)
