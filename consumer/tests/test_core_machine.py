"""The consumer's core keeps the law, whatever happens in whatever order.

Hypothesis looks for a sequence of events that breaks it; a second test shows that it finds one as soon as the core is
wrong. For a longer search:

    python -m pytest --hypothesis-profile=thorough tests/test_core_machine.py -k law
"""

import logging
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from src.kafka.assignment import OffsetTracker
from src.kafka.committer import Settlement
from src.model.errors import DeadLetterError, StorageUnavailable
from src.model.record import Record, Rejection
from src.model.verdict import DUPLICATE, STORED, Verdict
from src.pipeline.batch_writer import BatchWriter, Result
from src.pipeline.dead_letter_writer import DeadLetters
from src.pipeline.storage_writer import Storage
from src.storage import DataStorage
from tests.core_world import PARTITIONS, Fault, Kind, Member, Parts, World
from tests.fake_storage import FakeStore
from tests.fakes import refused

COMMON = settings(
    deadline=None,
    database=None,
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),  # the machine is as slow as it is, and other work may go on beside it
)
HUNT = settings(
    COMMON, max_examples=2000, derandomize=True, phases=[Phase.generate], report_multiple_bugs=False, print_blob=False
)

partitions = st.sampled_from(PARTITIONS)
members = st.integers(0, 1)
paces = st.sampled_from((0, 1, 2, 3, 4, 50, 50))
limits = st.sampled_from((1, 2, 5, 50))
troubles = st.sampled_from(([Fault.AWAY], [Fault.HALF], [Fault.DEAF], []))
faults = st.lists(st.sampled_from(Fault), max_size=2)
messages = st.lists(st.tuples(partitions, st.sampled_from(Kind)), min_size=3, max_size=9)


class CoreMachine(RuleBasedStateMachine):
    """Every rule is something that can happen at any time."""

    parts = Parts()

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.parts)

    def member(self, number: int) -> Member:
        return self.world.members[number]

    @initialize(sent=messages)
    def begin(self, sent: list[tuple[int, Kind]]) -> None:
        self.send(sent)
        for partition in PARTITIONS:
            self.give(partition, partition % 2)
        for member in self.world.members:
            member.work(1)

    @rule(sent=messages)
    def send(self, sent: list[tuple[int, Kind]]) -> None:
        for partition, kind in sent:
            self.world.send(partition, kind)

    # -- the loop, the writer and the weather

    @rule(number=members, early=st.integers(0, 3), late=st.integers(0, 5), answered=st.booleans())
    def poll(self, number: int, early: int, late: int, answered: bool) -> None:
        self.member(number).poll(early, late, answered=answered)

    @rule(number=members, steps=st.integers(1, 6))
    def work(self, number: int, steps: int) -> None:
        self.member(number).work(steps)

    @rule(number=members, committing=st.booleans())
    def settle(self, number: int, committing: bool) -> None:
        self.member(number).settle()
        if committing:
            self.member(number).commit_if_due()

    @rule(number=members, limit=limits, pace=paces, store=faults, letters=faults, commits=faults)
    def turn(
        self, number: int, limit: int, pace: int, store: list[Fault], letters: list[Fault], commits: list[Fault]
    ) -> None:
        self.member(number).meet(store, letters, commits)
        self.member(number).turn(limit, pace)

    @rule(number=members)
    def look(self, number: int) -> None:
        self.member(number).look()

    # -- the group

    @rule(partition=partitions, number=members)
    def give(self, partition: int, number: int) -> None:
        self.world.give(partition, self.member(number))

    @rule(partition=partitions, pace=paces)
    def take_away(self, partition: int, pace: int) -> None:
        self.world.take_away(partition, pace)

    @rule(number=members)
    def put_out(self, number: int) -> None:
        self.world.put_out(self.member(number))

    @rule(number=members, letters=troubles, before=st.tuples(limits, paces), after=st.tuples(limits, paces))
    def put_out_and_back(
        self, number: int, letters: list[Fault], before: tuple[int, int], after: tuple[int, int]
    ) -> None:
        """A short absence: the member gets back what it had, under other numbers."""
        member = self.member(number)
        member.meet([], letters, [])
        member.turn(*before)
        had = list(member.told)
        self.world.put_out(member)
        member.poll(0, 0)
        for partition in had:
            self.world.give(partition, member)
        member.turn(*after)

    @rule(partition=partitions)
    def expire(self, partition: int) -> None:
        self.world.expire(partition)

    # -- ends

    @rule(number=members)
    def crash(self, number: int) -> None:
        self.world.replace(self.member(number))

    @rule(
        number=members,
        fetched=st.lists(st.integers(1, 4), max_size=2),
        store=troubles,
        paces=st.tuples(paces, paces, paces),
    )
    def stop(self, number: int, fetched: list[int], store: list[Fault], paces: tuple[int, int, int]) -> None:
        member = self.member(number)
        for limit in fetched:
            member.poll(0, limit)
        member.meet(store, [], [])
        member.leave(paces)
        self.world.replace(member)

    @invariant()
    def every_message_has_one_home_at_most(self) -> None:
        self.world.judge_homes()

    @invariant()
    def what_is_settled_is_committed_or_due(self) -> None:
        for member in self.world.members:
            member.judge_due()

    def teardown(self) -> None:
        """Called with the error that ended the sequence still under way; then there is nothing more to show."""
        try:
            if sys.exc_info()[0] is None:
                self.world.settle_everything()
                self.world.judge_homes()
        finally:
            self.world.end()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of outages are a lot of warnings."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def storage_of(kind: type[DataStorage]) -> Callable[[FakeStore], Storage]:
    return lambda store: kind({}, store=store)


def test_the_core_keeps_the_law_in_every_order_of_events() -> None:
    run_state_machine_as_test(CoreMachine, settings=COMMON)


# What the machine is worth: each of these is a core with one fault in it.


class SettlesWhatItTakes(OffsetTracker):
    def take(self, records: Iterable[Record]) -> None:
        records = list(records)
        super().take(records)
        self.settle(records)


class IgnoresNumbers(OffsetTracker):
    def settle(self, records: Iterable[Record]) -> None:
        numbers = {partition: progress.assignment for partition, progress in self._owned.items()}
        super().settle(record._replace(assignment=numbers.get(record.partition, 0)) for record in records)


class TrustsThePosition(OffsetTracker):
    def reach(self, positions: Mapping[int, int]) -> None:
        """Whatever was read is settled."""
        for partition in positions.keys() & self._owned.keys():
            self._owned[partition].in_hand.clear()
        super().reach(positions)


class NeverReaches(OffsetTracker):
    def reach(self, positions: Mapping[int, int]) -> None:
        """Only what is settled counts."""


class ForgetsWhatCameBeforeAGap(OffsetTracker):
    def skip_to(self, partition: int, offset: int) -> None:
        super().skip_to(partition, offset)
        self._owned[partition].in_hand.clear()


class JumpsGaps(OffsetTracker):
    def due(self, partitions: Collection[int] | None = None) -> dict[int, int]:
        return {
            partition: progress.settled
            for partition, progress in self._owned.items()
            if (partitions is None or partition in partitions) and progress.settled not in (None, progress.committed)
        }


class CommitsWhatIsLost(Settlement):
    def lost(self, partitions: Collection[int]) -> None:
        self.revoking(partitions)


class KeepsWhatIsLost(Settlement):
    def lost(self, partitions: Collection[int]) -> None:
        """Hopes to get them back."""


class CommitsWhatIsInHand(Settlement):
    def take(self, records: Sequence[Record]) -> list[Record]:
        self._in_hand = super().take(records)
        return self._in_hand

    def revoking(self, partitions: Collection[int]) -> None:
        self._tracker.settle(getattr(self, "_in_hand", ()))
        super().revoking(partitions)


class TakesNoForYes(Settlement):
    def refused(self, offsets: Mapping[int, int]) -> None:
        self.committed(offsets)


class RefusesInAnOutage(DataStorage):
    def save_many(self, documents: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        try:
            return super().save_many(documents)
        except StorageUnavailable:
            return [refused("unavailable")] * len(documents)


class HopesInAnOutage(DataStorage):
    def save_many(self, documents: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        try:
            return super().save_many(documents)
        except StorageUnavailable:
            return [STORED] * len(documents)


class DoesNotCompare(DataStorage):
    def save_many(self, documents: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        """Whatever is there under an id is taken for the same message."""
        verdicts = super().save_many(documents)
        return [DUPLICATE if verdict.reason == "id_conflict" else verdict for verdict in verdicts]


class SettlesWhatAStormHolds(BatchWriter):
    def write(self, records: Sequence[Record]) -> Result:
        return super().write(records)._replace(records=records, unsettled=())


class ForgetsWhatAStormHolds(BatchWriter):
    def write(self, records: Sequence[Record]) -> Result:
        return super().write(records)._replace(unsettled=())


class DoesNotWaitForLetters:
    """Hands the letters over, and hopes."""

    def __init__(self, letters: DeadLetters) -> None:
        self._letters = letters

    def send(self, rejections: Sequence[Rejection]) -> None:
        with suppress(DeadLetterError):
            self._letters.send(rejections)

    def close(self) -> None:
        self._letters.close()


LAW = "neither stored nor dead-lettered"
MUTANTS = {
    "commits what it takes": (Parts(tracker=SettlesWhatItTakes), LAW),
    "settles by results of an older assignment": (Parts(tracker=IgnoresNumbers), f"{LAW}|not settled"),
    "commits what was read": (Parts(tracker=TrustsThePosition), LAW),
    "waits for a message where there is none": (Parts(tracker=NeverReaches), "not settled"),
    "forgets what came before retention's gap": (Parts(tracker=ForgetsWhatCameBeforeAGap), LAW),
    "commits past a gap": (Parts(tracker=JumpsGaps), LAW),
    "commits what is lost": (Parts(settlement=CommitsWhatIsLost), "a commit for a partition that is lost"),
    "keeps what is lost": (Parts(settlement=KeepsWhatIsLost), "a commit for a partition that is another's"),
    "commits what is in hand on revoke": (Parts(settlement=CommitsWhatIsInHand), LAW),
    "takes a refused commit for a confirmed one": (Parts(settlement=TakesNoForYes), "neither committed nor due"),
    "refuses messages in an outage": (
        Parts(storage=storage_of(RefusesInAnOutage)),
        "dead-lettered",
    ),
    "hopes that an outage did no harm": (Parts(storage=storage_of(HopesInAnOutage)), LAW),
    "compares nothing": (Parts(storage=storage_of(DoesNotCompare)), LAW),
    "does not wait for dead letters": (Parts(letters=DoesNotWaitForLetters), LAW),
    "settles what a storm holds back": (Parts(writer=SettlesWhatAStormHolds), LAW),
    "forgets what a storm holds back": (Parts(writer=ForgetsWhatAStormHolds), "not settled"),
}


@pytest.mark.parametrize(("mutant", "broken"), MUTANTS.values(), ids=MUTANTS)
def test_a_core_with_a_fault_in_it_is_found_out(mutant: Parts, broken: str) -> None:
    class MutantMachine(CoreMachine):
        parts = mutant

    with pytest.raises(AssertionError, match=broken):
        run_state_machine_as_test(MutantMachine, settings=HUNT)
