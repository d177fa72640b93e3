"""Delivery loses no message and doubles none, whatever happens in whatever order.

Hypothesis looks for a sequence of events that breaks it; a second test shows that it finds one as soon as the delivery
is wrong. For a longer search:

    python -m pytest --hypothesis-profile=thorough tests/test_delivery_machine.py -k one_place
"""

import logging
import sys
from collections import deque
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

from src.delivery import MAX_BYTES, Batch, Delivery, RetryPolicy, SendAttempt
from src.kafka.produce_request import Failure, Fault, ProduceRequest
from src.model.errors import BrokerError, UndeliveredFileError
from src.model.message import Encoded
from src.utils.metrics import ProducerMetrics
from tests.fakes import FakeClock

COMMON = settings(
    deadline=None,
    database=None,
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),  # the machine is as slow as it is, and other work may go on beside it
)
HUNT = settings(
    COMMON, max_examples=2000, derandomize=True, phases=[Phase.generate], report_multiple_bugs=False, print_blob=False
)

LARGE = bytes(8 * 1024 * 1024)  # one for all: it is its length that counts
MOST_IN_A_BATCH = 3
LARGEST_BATCH = MOST_IN_A_BATCH * (len(LARGE) + 10)
ENDLESS = 1_000_000
ROUNDS = 300  # turns within which everything is settled once nothing is in the way any more

Report = Fault | None  # None is delivered
reports = st.sampled_from([None, None, *Fault])


class ScriptedPublisher:
    """Takes messages as it has room, and reports on each when it is told what. An idle client has room for one."""

    def __init__(self, clock: FakeClock) -> None:
        self.trouble: str | None = None
        self.fatal = False
        self.room = ENDLESS
        self.delivers = False
        """While it is set, all is delivered at once."""
        self.script: deque[Report] = deque()
        """The reports that come while somebody waits for them."""
        self.purges = True
        self.under_way: list[tuple[ProduceRequest, int, bytes]] = []
        self.confirmed: set[bytes] = set()
        """The keys of those whose delivery report somebody has taken in."""
        self.closed = False
        self._clock = clock
        self._settled: list[ProduceRequest] = []

    def send(self, messages: Sequence[Encoded]) -> ProduceRequest:
        shipment = ProduceRequest(self._settled.append)
        for message in messages[: max(0, self.room - len(self.under_way))]:
            self.under_way.append((shipment, shipment.size, message.key or b""))
            shipment.load(message)
        shipment.seal()
        return shipment

    def settled(self, timeout: float) -> list[ProduceRequest]:
        if self.fatal:
            raise BrokerError("the client can't go on")
        while self.delivers and self.under_way:
            self.report(0, None)
        if self.script:
            self.report(0, self.script.popleft())
        if not self._settled:
            self._clock.advance(timeout)
        settled, self._settled[:] = list(self._settled), []
        return settled

    def purge(self) -> None:
        while self.purges and self.under_way:
            self.report(0, Fault.WORLD)

    def close(self) -> None:
        self.closed = True

    def report(self, position: int, report: Report) -> None:
        if not self.under_way:
            return
        shipment, number, key = self.under_way.pop(position % len(self.under_way))
        known = shipment.delivered
        if report is not None:
            shipment.report_failed(number, report, "not delivered")
        else:
            shipment.report_delivered(number)
        if shipment.delivered > known:
            assert key not in self.confirmed, "delivered twice"
            self.confirmed.add(key)


class Folder:
    """The undelivered messages, by their keys. `full` is how many calls find no room."""

    def __init__(self) -> None:
        self.kept: dict[bytes, Encoded] = {}
        self.full = 0

    def keep(self, failures: Sequence[Failure]) -> None:
        if self.full:
            self.full -= 1
            raise UndeliveredFileError("no space left on device")
        for failure in failures:
            key = failure.message.key or b""
            assert key not in self.kept, "kept twice"
            self.kept[key] = failure.message


class DeliveryMachine(RuleBasedStateMachine):
    """Every rule is something that can happen at any time. What is delivered is counted by the batches' own numbers."""

    kind: type[Delivery] = Delivery
    folder_kind: type[Folder] = Folder

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.publisher = ScriptedPublisher(self.clock)
        self.folder = self.folder_kind()
        self.accepted: dict[bytes, Encoded] = {}
        self.batches: list[Batch] = []
        self.again: tuple[Batch, list[Encoded]] | None = None
        self.resent = 0
        self.ended = False

    @initialize(max_retries=st.sampled_from((None, 0, 1, 3)), room=st.sampled_from((1, 2, ENDLESS)))
    def begin(self, max_retries: int | None, room: int) -> None:
        self.publisher.room = room
        self.delivery = self.kind(
            self.publisher,
            self.folder,
            RetryPolicy(max_retries, initial_delay=1.0),
            ProducerMetrics(CollectorRegistry(), version="1"),
            clock=self.clock,
        )

    # -- the loop

    @rule(large=st.lists(st.booleans(), min_size=1, max_size=MOST_IN_A_BATCH))
    def dispatch(self, large: list[bool]) -> None:
        if self.ended or not self.delivery.has_room:
            return
        keys = [str(len(self.accepted) + number).encode() for number in range(len(large))]
        messages = [Encoded(key, LARGE if big else b"{}", []) for key, big in zip(keys, large, strict=True)]
        self.accepted |= zip(keys, messages, strict=True)
        self.batches.append(self.delivery.dispatch(messages))

    @rule(count=st.integers(1, MOST_IN_A_BATCH))
    def dispatch_again(self, count: int) -> None:
        """As the folder is emptied: one batch at a time, and what is given up once more stays there."""
        self.take_back()
        if not self.ended and self.again is None and self.delivery.has_room_again:
            messages = list(self.folder.kept.values())[:count]
            if messages:
                self.again = self.delivery.dispatch_again(messages), messages

    @rule(seconds=st.sampled_from((0.0, 0.1, 1.0, 5.0, 61.0)), script=st.lists(reports, max_size=3))
    def turn(self, seconds: float, script: Sequence[Report] = ()) -> None:
        for report in script:
            self.publisher.report(0, report)
        self.clock.advance(seconds)
        if not self.ended:
            try:
                self.delivery.turn(0.1)
            except BrokerError:
                self.end()

    # -- Kafka, and the disk

    @rule(script=st.lists(st.tuples(st.integers(0, 5), reports), min_size=1, max_size=4))
    def report(self, script: list[tuple[int, Report]]) -> None:
        """Reports come in whatever order; some after the end, when nobody waits for them any more."""
        for position, report in script:
            self.publisher.report(position, report)

    @rule(room=st.sampled_from((1, 2, 5, ENDLESS)), trouble=st.sampled_from((None, "broker down")))
    def change_broker(self, room: int, trouble: str | None) -> None:
        self.publisher.room = room
        self.publisher.trouble = trouble

    @rule(calls=st.integers(1, 3))
    def fill_disk(self, calls: int) -> None:
        self.folder.full = calls

    @precondition(lambda self: self.batches and not self.publisher.fatal)
    @rule()
    def break_down(self) -> None:
        self.publisher.fatal = True

    @precondition(lambda self: self.batches and not self.ended)
    @rule(script=st.lists(reports, max_size=3), purges=st.booleans())
    def stop(self, script: list[Report], purges: bool) -> None:
        self.publisher.script.extend(script)
        self.publisher.purges = purges
        self.end()

    # -- what holds

    @invariant()
    def what_is_on_its_way_is_counted(self) -> None:
        if not hasattr(self, "delivery"):
            return
        own = sum(batch.outstanding for batch in self.batches)
        again = self.again[0].outstanding if self.again else 0
        assert self.delivery.outstanding >= own + again
        assert self.delivery.undelivered >= 0
        assert self.delivery.delivered == sum(batch.delivered for batch in self.batches)
        assert all(batch.delivered + batch.undelivered <= batch.size for batch in self.batches)

    @invariant()
    def memory_is_bounded(self) -> None:
        """What was accepted, is not delivered and not in the folder is held here."""
        held = self.accepted.keys() - self.publisher.confirmed - self.folder.kept.keys()
        size = sum(self.accepted[key].size for key in held)
        assert size <= MAX_BYTES + LARGEST_BATCH, "more is held than there is room for"

    def teardown(self) -> None:
        """Called with the error that ended the sequence still under way; then there is nothing more to show."""
        if sys.exc_info()[0] is None:
            self.heal()
            self.settle_everything()
            self.end()
            self.take_back()
            self.check_that_each_is_in_one_place()

    # -- what the rules are made of

    def heal(self) -> None:
        self.folder.full = 0
        self.publisher.trouble = None
        self.publisher.room = ENDLESS
        self.publisher.delivers = True

    def settle_everything(self) -> None:
        for _ in range(ROUNDS):
            if self.ended or not self.delivery.outstanding:
                return
            self.turn(61.0)
        raise AssertionError(f"{self.delivery.outstanding} are still on their way")

    def end(self) -> None:
        """A second try where the disk is full shows that what could not be kept was not forgotten."""
        if self.ended:
            return
        self.ended = True
        try:
            self.delivery.finish()
        except UndeliveredFileError:
            self.folder.full = 0
            self.delivery.finish()
        assert (self.delivery.outstanding, self.delivery._outstanding_bytes) == (0, 0), "outstanding"

    def take_back(self) -> None:
        """What of a batch from the folder was delivered leaves it."""
        if self.again and self.again[0].settled:
            batch, messages = self.again
            left = {failure.message.key for failure in batch.given_up}
            for message in messages:
                if message.key not in left:
                    del self.folder.kept[message.key or b""]
            self.resent += batch.delivered
            assert batch.delivered == len(messages) - len(left)
            self.again = None

    def check_that_each_is_in_one_place(self) -> None:
        kept = {key: message for key, message in self.accepted.items() if key in self.folder.kept}
        assert kept == self.folder.kept, "something else was kept"
        delivered = self.publisher.confirmed
        assert not delivered & kept.keys(), "delivered, and kept as well"
        assert delivered | kept.keys() == self.accepted.keys(), "neither delivered nor kept"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of failures are a lot of warnings."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_every_message_is_in_one_place_in_the_end_in_every_order_of_events() -> None:
    run_state_machine_as_test(DeliveryMachine, settings=COMMON)


# What the machine is worth: each of these is a delivery with one fault in it.


class ForgetsTheRest(Delivery):
    def _hand_over(self, parcel: SendAttempt) -> Sequence[Encoded]:
        super()._hand_over(parcel)
        return ()


class KeepsWhatItSendsAgain(Delivery):
    def _put_off(self, batch: Batch, failures: Sequence[Failure], retry: int) -> None:
        super()._put_off(batch, failures, retry)
        self._keeper.keep(failures)


class NeverSendsAgain(Delivery):
    def _wake_retries(self) -> None:
        """They sleep on."""


class ForgetsWhatIsInFlight(Delivery):
    def _abandon(self) -> None:
        self._in_flight.clear()


class TrustsAPurge(Delivery):
    def _abandon(self) -> None:
        self._publisher.purge()
        with suppress(BrokerError):
            self._await_reports(1.0)


class TakesEverything(Delivery):
    @property
    def has_room(self) -> bool:
        return True


class DropsWhatCannotBeKept(Folder):
    def keep(self, failures: Sequence[Failure]) -> None:
        with suppress(UndeliveredFileError):
            super().keep(failures)


class KeepsHalfOfWhatItRefuses(Folder):
    def keep(self, failures: Sequence[Failure]) -> None:
        try:
            super().keep(failures)
        except UndeliveredFileError:
            super().keep(failures[:1])
            raise


MUTANTS: dict[str, tuple[type[Delivery], type[Folder], str]] = {
    "forgets what the client had no room for": (ForgetsTheRest, Folder, "on their way|outstanding"),
    "keeps what it sends again": (KeepsWhatItSendsAgain, Folder, "delivered, and kept as well|kept twice"),
    "never sends again": (NeverSendsAgain, Folder, "still on their way"),
    "forgets what is in flight at a stop": (ForgetsWhatIsInFlight, Folder, "outstanding"),
    "believes that a purge tells of everything": (TrustsAPurge, Folder, "outstanding"),
    "takes more than it has room for": (TakesEverything, Folder, "more is held than there is room for"),
    "drops what can't be kept": (Delivery, DropsWhatCannotBeKept, "neither delivered nor kept"),
    "keeps half of it": (Delivery, KeepsHalfOfWhatItRefuses, "kept twice|kept as well"),
}


@pytest.mark.parametrize(("delivery", "folder", "broken"), MUTANTS.values(), ids=MUTANTS)
def test_a_delivery_with_a_fault_in_it_is_found_out(
    delivery: type[Delivery], folder: type[Folder], broken: str
) -> None:
    class MutantMachine(DeliveryMachine):
        kind = delivery
        folder_kind = folder

    with pytest.raises(AssertionError, match=broken):
        run_state_machine_as_test(MutantMachine, settings=HUNT)
