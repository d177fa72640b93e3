"""The consumer's core preserves the invariant in any order of events.

Hypothesis looks for a sequence of events that breaks it; a second test shows that it finds one as soon as the core is
wrong. For a longer search:

    python -m pytest --hypothesis-profile=thorough tests/test_core_machine.py -k law
"""

import logging
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError
from confluent_kafka import TopicPartition as PartitionOffset
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
from msgspec.structs import replace

from src.kafka.assignment import Assignment
from src.kafka.group_member import GroupMember
from src.kafka.messages import partition_of
from src.model.errors import DeadLetterError, StorageUnavailable
from src.model.position import TopicPartition
from src.model.record import Record, Rejection
from src.model.verdict import DUPLICATE, STORED, Verdict
from src.pipeline.batch_writer import BatchWriter, Result
from src.pipeline.dead_letter_writer import DeadLetters
from src.pipeline.storage_writer import Storage
from src.pipeline.storm_guard import StormGuard
from src.storage import DataStorage
from src.stores.document import DocumentBatch
from tests.core_world import PARTITIONS, STORM_WINDOW, Fault, Kind, Parts, Process, World
from tests.fake_storage import FakeStore
from tests.fakes import rejected

COMMON = settings(
    deadline=None,
    database=None,
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),  # the machine is slow, and may run beside other work
)
HUNT = settings(
    COMMON, max_examples=20_000, derandomize=True, phases=[Phase.generate], report_multiple_bugs=False, print_blob=False
)

partitions = st.sampled_from(PARTITIONS)
processes = st.integers(0, 1)
steps = st.sampled_from((0, 1, 2, 3, 4, 50, 50))
limits = st.sampled_from((1, 2, 5, 50))
single_faults = st.sampled_from(([Fault.UNAVAILABLE], [Fault.HALF], [Fault.ANSWER_LOST], []))
faults = st.lists(st.sampled_from(Fault), max_size=2)
messages = st.lists(st.tuples(partitions, st.sampled_from(Kind)), min_size=3, max_size=9)


class CoreMachine(RuleBasedStateMachine):
    """Every rule is something that can happen at any time."""

    parts = Parts()

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.parts)

    def process(self, number: int) -> Process:
        return self.world.processes[number]

    @initialize(sent=messages, deploying=st.booleans())
    def start(self, sent: list[tuple[TopicPartition, Kind]], deploying: bool) -> None:
        self.deploying = deploying
        self.send(sent)
        for index, partition in enumerate(PARTITIONS):
            self.assign(partition, index % 2)
        for process in self.world.processes:
            process.step(1)

    @rule(sent=messages)
    def send(self, sent: list[tuple[TopicPartition, Kind]]) -> None:
        for partition, kind in sent:
            self.world.send(partition, kind)

    @rule(partition=partitions, sent=messages)
    def send_storm(self, partition: TopicPartition, sent: list[tuple[TopicPartition, Kind]]) -> None:
        self.send([(partition, Kind.POISON)] * STORM_WINDOW)
        self.send(sent)

    # -- the loop, the writer and faults

    @rule(number=processes, limit=st.integers(0, 8), first_before_events=st.booleans(), responded=st.booleans())
    def poll(self, number: int, limit: int, first_before_events: bool, responded: bool) -> None:
        self.process(number).poll(limit, first_before_events=first_before_events, responded=responded)

    @rule(number=processes, count=st.integers(1, 6))
    def step(self, number: int, count: int) -> None:
        self.process(number).step(count)

    @rule(number=processes, committing=st.booleans())
    def settle(self, number: int, committing: bool) -> None:
        self.process(number).settle()
        if committing:
            self.process(number).commit_if_due()

    @rule(number=processes, limit=limits, count=steps, store=faults, dead_letters=faults, commits=faults)
    def iterate(
        self, number: int, limit: int, count: int, store: list[Fault], dead_letters: list[Fault], commits: list[Fault]
    ) -> None:
        self.process(number).plan_faults(store, dead_letters, commits)
        self.process(number).iterate(limit, count)

    @rule(number=processes)
    def ping(self, number: int) -> None:
        self.process(number).ping()

    # -- the group

    @rule(partition=partitions, number=processes)
    def assign(self, partition: TopicPartition, number: int) -> None:
        self.world.assign(partition, self.process(number))

    @rule(partition=partitions, drain_steps=steps)
    def revoke(self, partition: TopicPartition, drain_steps: int) -> None:
        self.world.revoke(partition, drain_steps)

    @rule(number=processes)
    def remove(self, number: int) -> None:
        self.world.remove(self.process(number))

    @rule(
        number=processes,
        dead_letters=single_faults,
        before=st.tuples(limits, steps),
        after=st.tuples(limits, steps),
    )
    def remove_and_return(
        self, number: int, dead_letters: list[Fault], before: tuple[int, int], after: tuple[int, int]
    ) -> None:
        """A short absence: the member is assigned the same partitions again, under other numbers."""
        process = self.process(number)
        process.plan_faults([], dead_letters, [])
        process.iterate(*before)
        had = list(process.client.assigned)
        self.world.remove(process)
        process.poll(0)
        for partition in had:
            self.world.assign(partition, process)
        process.iterate(*after)

    @rule(partition=partitions)
    def expire(self, partition: TopicPartition) -> None:
        self.world.expire(partition)

    @rule(number=processes, partition=partitions)
    def expire_behind_records_in_flight(self, number: int, partition: TopicPartition) -> None:
        """The gap is found, and offsets are committed, before the records in front of it are settled."""
        process = self.process(number)
        process.poll(2)
        self.world.send(partition, Kind.GOOD)
        self.world.expire(partition)
        process.poll(2)
        process.commit_if_due()

    # -- ends

    @precondition(lambda self: self.deploying)
    @rule()
    def deploy(self) -> None:
        """Processes that start from now on process messages differently."""
        self.world.version += 1

    @rule(number=processes)
    def crash(self, number: int) -> None:
        self.world.replace(self.process(number))

    @rule(
        number=processes,
        fetched=st.lists(st.integers(1, 4), max_size=2),
        store=single_faults,
        counts=st.tuples(steps, steps, steps),
    )
    def stop(self, number: int, fetched: list[int], store: list[Fault], counts: tuple[int, int, int]) -> None:
        process = self.process(number)
        for limit in fetched:
            process.poll(limit)
        process.plan_faults(store, [], [])
        process.leave(counts)
        self.world.replace(process)

    @invariant()
    def every_message_is_settled_once_at_most(self) -> None:
        self.world.check_results()

    @invariant()
    def what_is_settled_is_committed_or_due(self) -> None:
        for process in self.world.processes:
            process.check_due()

    def teardown(self) -> None:
        """Also called after a failure; then there is nothing more to check."""
        try:
            if sys.exc_info()[0] is None:
                self.world.settle_everything()
                self.world.check_results()
        finally:
            self.world.kill()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of outages log a lot of warnings."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def storage_of(kind: type[DataStorage], *, reprocess: bool = False) -> Callable[[FakeStore], Storage]:
    return lambda store: kind({}, store=store, reprocess=reprocess)


class ReprocessingMachine(CoreMachine):
    parts = Parts(storage=storage_of(DataStorage, reprocess=True))


@pytest.mark.parametrize("machine", [CoreMachine, ReprocessingMachine])
def test_the_invariant_holds_in_every_order_of_events(machine: type[CoreMachine]) -> None:
    run_state_machine_as_test(machine, settings=COMMON)


# Each of these is a core with one fault in it, which the machine must find.


class SettlesWhatItTracks(Assignment):
    def track(self, records: Sequence[Record]) -> Sequence[Record]:
        tracked = super().track(records)
        self.settle(tracked)
        return tracked


class IgnoresTopics(Assignment):
    """Treats partitions of the same number as one."""

    def settle(self, records: Iterable[Record]) -> None:
        numbers = {partition: state.number or 0 for partition, state in self._states.items()}
        for record in list(records):
            for partition in [each for each in numbers if each.partition == record.partition]:
                super().settle([replace(record, topic=partition.topic, assignment=numbers[partition])])


class IgnoresNumbers(Assignment):
    def settle(self, records: Iterable[Record]) -> None:
        numbers = {partition: state.number or 0 for partition, state in self._states.items()}
        super().settle(replace(record, assignment=numbers.get(record.topic_partition, 0)) for record in records)


class TrustsThePosition(Assignment):
    def advance_to_eof(self) -> None:
        """Whatever was read is settled."""
        for state in self._states.values():
            if state.eof_offset is not None:
                state.in_flight.clear()
        super().advance_to_eof()


class NeverAdvances(Assignment):
    def advance_to_eof(self) -> None:
        """Only what is settled counts."""


class ForgetsWhatCameBeforeAGap(Assignment):
    def skip_to(self, partition: TopicPartition, offset: int) -> None:
        super().skip_to(partition, offset)
        self._states[partition].in_flight.clear()


class SkipsUnsettled(Assignment):
    def due(self, partitions: Collection[TopicPartition] | None = None) -> dict[TopicPartition, int]:
        return {
            partition: state.settled
            for partition, state in self._states.items()
            if (partitions is None or partition in partitions) and state.settled not in (None, state.committed)
        }


class CommitsWhatIsLost(GroupMember):
    def _on_lost(self, client: Consumer, positions: list[PartitionOffset]) -> None:
        self._on_revoke(client, positions)


class KeepsWhatIsLost(GroupMember):
    def _on_lost(self, client: Consumer, positions: list[PartitionOffset]) -> None:
        """Expects them to be assigned again."""
        client.incremental_unassign(positions)


class CommitsWhatIsInFlight(GroupMember):
    def _on_revoke(self, client: Consumer, positions: list[PartitionOffset]) -> None:
        for position in positions:
            for offsets in list(self.assignment[partition_of(position)].in_flight.values()):
                self.assignment[partition_of(position)].settle(offsets)
        super()._on_revoke(client, positions)


class TakesRejectedForConfirmed(GroupMember):
    def _on_commit(self, error: KafkaError | None, positions: list[PartitionOffset]) -> None:
        super()._on_commit(None, [PartitionOffset(p.topic, p.partition, p.offset) for p in positions])


class RejectsInAnOutage(DataStorage):
    def save_valid(self, batch: DocumentBatch) -> list[Verdict]:
        try:
            return super().save_valid(batch)
        except StorageUnavailable:
            return [rejected("unavailable")] * len(batch.documents)


class AssumesSuccessInAnOutage(DataStorage):
    def save_valid(self, batch: DocumentBatch) -> list[Verdict]:
        try:
            return super().save_valid(batch)
        except StorageUnavailable:
            return [STORED] * len(batch.documents)


class DoesNotCompare(DataStorage):
    def save_valid(self, batch: DocumentBatch) -> list[Verdict]:
        """Takes any document under an id for the same message."""
        verdicts = super().save_valid(batch)
        return [DUPLICATE if verdict.reason == "id_conflict" else verdict for verdict in verdicts]


class DoesNotRecognize(DataStorage):
    def save_valid(self, batch: DocumentBatch) -> list[Verdict]:
        """Without timestamps, only the contents are compared."""
        records = [record and replace(record, timestamp=None) for record in batch.records]
        return super().save_valid(batch._replace(records=records))


class ReplacesAny(DataStorage):
    def save_valid(self, batch: DocumentBatch) -> list[Verdict]:
        """Replaces whatever is stored under an id."""
        verdicts = super().save_valid(batch)
        conflicts = [index for index, verdict in enumerate(verdicts) if verdict.reason == "id_conflict"]
        for index in conflicts:
            cast(FakeStore, self._store).documents[batch.ids[index]] = batch.fields(index)
        return [STORED if index in conflicts else verdict for index, verdict in enumerate(verdicts)]


class SettlesWhatAStormHolds(BatchWriter):
    def write(self, records: Sequence[Record]) -> Iterator[Result]:
        for result in super().write(records):
            yield result._replace(records=records)


class ForgetsWhatAStormHolds(StormGuard):
    def hold_back(self, records: Sequence[Record]) -> Sequence[Record]:
        passed = super().hold_back(records)
        for storm in self._storms.values():
            storm.held.clear()
        return passed


class TakesHeldForStored(StormGuard):
    def next_probe(self, partition: TopicPartition) -> tuple[Sequence[Record], frozenset[int]]:
        """Whatever is behind the dead letter that began the storm."""
        records, stored = super().next_probe(partition)
        return records, stored | {record.offset for record in records[1:]}


def guarded_by(kind: type[StormGuard]) -> type[BatchWriter]:
    return type("Writer", (BatchWriter,), {"guard": kind})


class DoesNotWaitForDeadLetters:
    """Ignores what is not confirmed."""

    def __init__(self, dead_letters: DeadLetters) -> None:
        self._dead_letters = dead_letters

    def send(self, rejections: Sequence[Rejection]) -> None:
        with suppress(DeadLetterError):
            self._dead_letters.send(rejections)

    def close(self) -> None:
        self._dead_letters.close()


VIOLATION = "neither stored nor dead-lettered"
MUTANTS = {
    "commits what it tracks": (Parts(assignment=SettlesWhatItTracks), VIOLATION),
    "takes partitions of several topics for one": (Parts(assignment=IgnoresTopics), VIOLATION),
    "settles by results of an older assignment": (Parts(assignment=IgnoresNumbers), f"{VIOLATION}|not settled"),
    "commits what was read": (Parts(assignment=TrustsThePosition), VIOLATION),
    "waits for a message where there is only a marker": (Parts(assignment=NeverAdvances), "not settled"),
    "forgets what came before retention's gap": (Parts(assignment=ForgetsWhatCameBeforeAGap), VIOLATION),
    "commits past what is unsettled": (Parts(assignment=SkipsUnsettled), VIOLATION),
    "commits what is lost": (Parts(member=CommitsWhatIsLost), "a commit for a partition that is lost"),
    "keeps what is lost": (Parts(member=KeepsWhatIsLost), "a commit for a partition that is another's"),
    "commits what is in flight on revoke": (Parts(member=CommitsWhatIsInFlight), VIOLATION),
    "takes a rejected commit for a confirmed one": (
        Parts(member=TakesRejectedForConfirmed),
        "neither committed nor due",
    ),
    "rejects messages in an outage": (
        Parts(storage=storage_of(RejectsInAnOutage)),
        "dead-lettered",
    ),
    "assumes success in an outage": (Parts(storage=storage_of(AssumesSuccessInAnOutage)), VIOLATION),
    "does not compare duplicates": (Parts(storage=storage_of(DoesNotCompare)), VIOLATION),
    "does not recognize messages": (Parts(storage=storage_of(DoesNotRecognize)), "dead-lettered"),
    "replaces any document": (Parts(storage=storage_of(ReplacesAny, reprocess=True)), VIOLATION),
    "does not wait for dead letters": (Parts(dead_letters=DoesNotWaitForDeadLetters), VIOLATION),
    "settles what a storm holds back": (Parts(writer=SettlesWhatAStormHolds), VIOLATION),
    "forgets what a storm holds back": (Parts(writer=guarded_by(ForgetsWhatAStormHolds)), "not settled"),
    "takes what a storm holds back for stored": (Parts(writer=guarded_by(TakesHeldForStored)), VIOLATION),
}


@pytest.mark.parametrize(("mutant", "broken"), MUTANTS.values(), ids=MUTANTS)
def test_a_core_with_a_fault_is_found(mutant: Parts, broken: str) -> None:
    class MutantMachine(CoreMachine):
        parts = mutant

    with pytest.raises(AssertionError, match=broken):
        run_state_machine_as_test(MutantMachine, settings=HUNT)
