"""The consumer's core in a simulation that a test steps through: a broker, a store and a dead-letter topic.

The group member, its assignment, the committer, the writer with its thread, and the storage facade are the real ones,
on a fake Kafka client. One thread runs at a time: the writer's works only while the test waits for it, so that every
interleaving can be chosen, and repeated. The world records what was sent, and checks each commit against the invariant,
independently of the consumer.
"""

import json
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum, auto
from threading import Event, Lock
from typing import Any, NamedTuple, TypeVar, cast

from confluent_kafka import KafkaError
from confluent_kafka import TopicPartition as PartitionOffset
from prometheus_client import CollectorRegistry

from src.data_processor import DataProcessor
from src.kafka.assignment import Assignment
from src.kafka.group_member import GroupMember
from src.kafka.messages import event_partition, partition_of
from src.model.errors import DeadLetterError, StorageUnavailable
from src.model.position import TopicPartition
from src.model.record import Record, Rejection
from src.model.verdict import Verdict
from src.pipeline.batch_writer import BatchWriter, Result, WriterOptions
from src.pipeline.dead_letter_writer import DeadLetters
from src.pipeline.storage_writer import TIMEOUT, Storage
from src.pipeline.writer_thread import WriterThread
from src.settings import ConsumerSettings, KafkaSettings
from src.storage import DataStorage
from src.stores.document import Document, Identity, dates_as_text
from src.stores.order import Overwrites
from src.stores.store import Write
from src.utils.metrics import ConsumerMetrics
from tests.fake_kafka import CommitResult, FakeAdmin, FakeBroker, FakeConsumer, FakeMessage
from tests.fake_storage import FakeStore
from tests.fakes import DEADLINE, P0, P1, deferred, failed, rejected

PARTITIONS = (P0, P1, TopicPartition("other-topic", 0))
COMMIT_INTERVAL = 1.0  # seconds, also of the lag and of the probes in a storm
MAX_RETRIES = 1
STORM_PERCENT = 60
STORM_WINDOW = 4
ROUNDS = 60  # within which everything is settled once there are no more faults

T = TypeVar("T")
Position = tuple[TopicPartition, int]
"""A partition and an offset."""


class Kind(Enum):
    """The kind of a message, which determines its outcome."""

    GOOD = auto()
    POISON = auto()
    REJECTED = auto()
    """The store can never hold it."""
    FLAKY = auto()
    """The store fails on it once, for an unknown reason."""
    HOPELESS = auto()
    """The store fails on it every time."""
    REPEATED = auto()
    """The same id and content as an earlier one."""
    CONFLICT = auto()
    """The id of an earlier one, and other content."""
    MARKER = auto()
    """No message, but the end of a transaction, which the client skips."""


class Fault(Enum):
    """What can happen to a call to a dependency."""

    UNAVAILABLE = auto()
    """Nothing was done."""
    ANSWER_LOST = auto()
    """All of it was done, and the response is lost."""
    HALF = auto()
    """Half of it was done, and the response is lost."""
    THROTTLED = auto()
    """The store defers every other document."""


class Sent(NamedTuple):
    """A message in the log, as the test knows it."""

    value: bytes | None
    message: dict[str, Any] | None = None

    @property
    def kind(self) -> str:
        if self.value is None:
            return "MARKER"
        return "POISON" if self.message is None else str(self.message["metadata"]["kind"])

    @property
    def id(self) -> str:
        return "" if self.message is None else str(self.message["id"])


class Crashed(Exception):
    """The process is killed: nothing after this takes effect."""


class SteppedExecutor(ThreadPoolExecutor):
    """The writer's thread, which the test runs from one pause to the next."""

    def __init__(self) -> None:
        super().__init__(max_workers=1)
        self._theirs, self._ours = Lock(), Lock()
        self._theirs.acquire()
        self._ours.acquire()
        self._tasks: deque[Callable[[], None]] = deque()
        self._busy = self._killed = False

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        outcome: Future[T] = Future()
        self._tasks.append(lambda: _fulfil(outcome, function, args))
        super().submit(self._run)
        return outcome

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._tasks.clear()
        super().shutdown(wait)

    def step(self, steps: int) -> None:
        """Let the writer run past this number of pauses, or until it has no work."""
        for _ in range(steps):
            if not self._tasks and not self._busy:
                return
            self._theirs.release()
            assert self._ours.acquire(timeout=DEADLINE), "the writer does not reach its next pause"

    def pause(self) -> None:
        """Called by the writer before each call to a dependency."""
        self._ours.release()
        self._theirs.acquire()
        if self._killed:
            raise Crashed

    def kill(self) -> None:
        self._killed = True
        self._theirs.release()
        self.shutdown()

    def _run(self) -> None:
        if not self._killed:
            self._theirs.acquire()
        if self._killed:
            return
        self._busy = True
        self._tasks.popleft()()
        self._busy = False
        self._ours.release()


def _fulfil(outcome: Future[T], function: Callable[..., T], args: Sequence[Any]) -> None:
    """The future raises the error of a task, as in the real executor."""
    try:
        outcome.set_result(function(*args))
    except Exception as error:  # noqa: BLE001 - the future raises it
        outcome.set_exception(error)


class SteppedThread(WriterThread):
    """The real one on a stepped executor; `drain_steps` is how far the writer gets while it is drained."""

    def __init__(self, writer: BatchWriter, executor: SteppedExecutor) -> None:
        super().__init__(writer, executor)
        self.drain_steps = 0
        self._stepped = executor

    def drain(self, timeout: float) -> list[Result]:
        self._stepped.step(self.drain_steps)
        return super().drain(0.0)

    def _has_time(self, deadline: float) -> bool:
        return False  # only steps take time here


class SteppedStop(Event):
    """A stop event on which a wait is a pause."""

    def __init__(self, pause: Callable[[], None]) -> None:
        super().__init__()
        self._pause = pause

    def wait(self, timeout: float | None = None) -> bool:
        self._pause()
        return self.is_set()


class Faults:
    """The faults in the next calls; later calls succeed."""

    def __init__(self) -> None:
        self.planned: deque[Fault] = deque()

    def next(self) -> Fault | None:
        return self.planned.popleft() if self.planned else None


class Database:
    """The content of the store, which all consumers share."""

    def __init__(self) -> None:
        self.documents: dict[Identity, Document] = {}
        self.failed: set[str] = set()
        """The flaky messages that have failed once."""


class FaultyStore(FakeStore):
    """One consumer's connection to the store."""

    def __init__(self, database: Database, faults: Faults, pause: Callable[[], None]) -> None:
        super().__init__()
        self.documents = database.documents
        self._failed = database.failed
        self._faults = faults
        self._pause = pause

    def insert_documents(self, documents: Sequence[Document]) -> list[Verdict]:
        return self._with_faults(documents, self._insert)

    def write(self, writes: Sequence[Write], over: Overwrites) -> list[Verdict]:
        return self._with_faults(writes, lambda each: self._write(each, over))

    def _with_faults(self, documents: Sequence[T], write: Callable[[T], Verdict]) -> list[Verdict]:
        fault = self._fault()
        if fault is Fault.THROTTLED:
            return [deferred() if index % 2 else write(each) for index, each in enumerate(documents)]
        done = {None: len(documents), Fault.ANSWER_LOST: len(documents), Fault.HALF: (len(documents) + 1) // 2}.get(
            fault, 0
        )
        verdicts = [write(document) for document in documents[:done]]
        if fault:
            raise StorageUnavailable(TIMEOUT, "no response")
        return verdicts

    def ping(self) -> None:
        if self._fault():
            raise StorageUnavailable("unreachable", "connection refused")

    def _fault(self) -> Fault | None:
        self._pause()
        return self._faults.next()

    def _insert(self, document: Document) -> Verdict:
        kind = document["metadata"]["kind"]
        if kind == "REJECTED":
            return rejected("validation_failed")
        if kind == "HOPELESS":
            return failed()
        if kind == "FLAKY" and document["id"] not in self._failed:
            self._failed.add(document["id"])
            return failed()
        return super()._insert(document)


class NewVersion(DataProcessor):
    """A later version of the processing, which adds a field."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def check(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return {**(super().check(message) or {}), "version": self._number}


class FaultyDeadLetters:
    """One consumer's connection to the dead-letter topic."""

    def __init__(self, written: list[Rejection], faults: Faults, pause: Callable[[], None]) -> None:
        self._written = written
        self._faults = faults
        self._pause = pause

    def send(self, rejections: Sequence[Rejection]) -> None:
        self._pause()
        fault = self._faults.next()
        confirmed = {None: len(rejections), Fault.HALF: len(rejections) // 2}.get(fault, 0)
        self._written += rejections if fault is Fault.ANSWER_LOST else rejections[:confirmed]
        if fault:
            raise DeadLetterError("unreachable", "connection refused", range(confirmed, len(rejections)))

    def close(self) -> None:
        """Nothing is open."""


def _same(dead_letters: DeadLetters) -> DeadLetters:
    return dead_letters


@dataclass(frozen=True)
class Parts:
    """The parts of the consumer's core; a mutant replaces one of them."""

    assignment: type[Assignment] = Assignment
    member: type[GroupMember] = GroupMember
    writer: type[BatchWriter] = BatchWriter
    storage: Callable[[FakeStore], Storage] = lambda store: DataStorage({}, store=store)
    dead_letters: Callable[[DeadLetters], DeadLetters] = _same


class World:
    """The broker, the store, the dead-letter topic, and a group of two consumers."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.sent: dict[TopicPartition, list[Sent]] = {partition: [] for partition in PARTITIONS}
        self.broker = FakeBroker({partition: [] for partition in PARTITIONS})
        self.database = Database()
        self.dead_letters: list[Rejection] = []
        self.version = 0
        """Of the processing in new processes."""
        self.owners: dict[TopicPartition, Process | None] = dict.fromkeys(PARTITIONS)
        self.processes = [Process(self), Process(self)]

    # -- called by tests

    def send(self, partition: TopicPartition, kind: Kind) -> None:
        sent = self._new_message(kind)
        self.sent[partition].append(sent)
        self.broker.logs[partition].append(sent.value)

    def assign(self, partition: TopicPartition, process: "Process") -> None:
        """The group assigns a free partition to a member, which learns of it in its next poll."""
        if self.owners[partition] is None and not process.removed:
            self.owners[partition] = process
            process.client.events.append(lambda: process.on_assign([partition]))

    def revoke(self, partition: TopicPartition, drain_steps: int) -> None:
        """The group revokes the partition; it is free once its owner has released it."""
        if owner := self.owners[partition]:
            owner.client.events.append(lambda: owner.on_revoke([partition], drain_steps))

    def remove(self, process: "Process") -> None:
        """The group removes a silent member, which does not know yet and continues."""
        if not process.removed:
            process.remove()
            self.release(process)

    def replace(self, process: "Process") -> None:
        """The process is killed, and another takes its place."""
        self.release(process)
        process.kill()
        self.processes[self.processes.index(process)] = Process(self)

    def expire(self, partition: TopicPartition) -> None:
        """Retention deletes all messages of the partition."""
        self.broker.earliest[partition] = self.broker.high_watermark(partition)

    def release(self, process: "Process", partitions: Collection[TopicPartition] = PARTITIONS) -> None:
        self.owners |= {p: None for p in partitions if self.owners[p] is process}

    def settle_everything(self) -> None:
        """Without further faults everything is settled and committed in a bounded number of iterations."""
        for _ in range(ROUNDS):
            for index, partition in enumerate(PARTITIONS):
                self.assign(partition, self.processes[index % len(self.processes)])
            for process in self.processes:
                process.clear_faults()
                process.iterate(10, 50)
            if all(self._is_committed(partition) for partition in PARTITIONS):
                return
        raise AssertionError(f"not settled: {self.broker.committed} of {self.broker.logs}")

    def kill(self) -> None:
        for process in self.processes:
            process.kill()

    # -- the invariant

    def check_commit(self, offsets: Mapping[TopicPartition, int], fetched: Collection[Position]) -> None:
        """Every message before a committed offset must be stored or dead-lettered: those that are still in the topic,
        and those that the committing member had fetched before they were deleted."""
        dead_letters = {_position(rejection) for rejection in self.dead_letters}
        for partition, offset in offsets.items():
            for before in range(offset):
                sent = self.sent[partition][before]
                deleted = before < self.broker.low_watermark(partition) and (partition, before) not in fetched
                no_message = sent.kind == Kind.MARKER.name
                assert deleted or no_message or self._is_stored(sent) or (partition, before) in dead_letters, (
                    f"{partition}:{offset} is committed, and {before} ({sent.kind}) is neither stored nor dead-lettered"
                )

    def check_results(self) -> None:
        """Nothing is stored twice, or stored and dead-lettered; nothing is dead-lettered without reason."""
        stored = [_stored_position(document["kafka"]) for document in self._documents]
        assert len(stored) == len(set(stored)), "two documents from one message"
        for rejection in self.dead_letters:
            sent = self.sent[rejection.record.topic_partition][rejection.record.offset]
            assert _position(rejection) not in stored, f"{_position(rejection)} is stored and dead-lettered"
            expected = sent.kind in ("POISON", "REJECTED", "HOPELESS") or self._is_conflict(sent)
            assert expected or self._was_processed_differently(rejection, sent), (
                f"{_position(rejection)} is dead-lettered without a reason: {rejection.reason}"
            )

    @property
    def _documents(self) -> Collection[Document]:
        return self.database.documents.values()

    def _new_message(self, kind: Kind) -> Sent:
        if kind in (Kind.POISON, Kind.MARKER):
            return Sent(b"{" if kind is Kind.POISON else None)
        number = sum(map(len, self.sent.values()))
        message: dict[str, Any] = {"id": str(number), "metadata": {"kind": kind.name}}
        if number % 2:  # exactly the fields of the specification
            message |= {"name": "item", "created_at": "2023-07-15T12:34:56.789Z"}
        earlier = [sent.message for log in self.sent.values() for sent in log if sent.message]
        if kind in (Kind.REPEATED, Kind.CONFLICT):
            repeated = earlier[number % len(earlier)] if earlier else message | {"metadata": {"kind": "GOOD"}}
            message = repeated if kind is Kind.REPEATED else {**repeated, "number": number}
        return Sent(json.dumps(message).encode(), message)

    def _is_stored(self, sent: Sent) -> bool:
        document = self.database.documents.get(sent.id)
        if document is None or sent.message is None:
            return False
        return bool(dates_as_text(_content(document)) == _content(sent.message))

    def _is_conflict(self, sent: Sent) -> bool:
        """Whether another message has this one's id."""
        return sent.id in self.database.documents and not self._is_stored(sent)

    def _was_processed_differently(self, rejection: Rejection, sent: Sent) -> bool:
        """Whether the equal message that is stored was sent separately, perhaps before the version changed."""
        origin = self.database.documents.get(sent.id, {}).get("kafka")
        return bool(self.version and origin and _stored_position(origin) != _position(rejection))

    def _is_committed(self, partition: TopicPartition) -> bool:
        end = self.broker.high_watermark(partition)
        return self.broker.offsets.get(partition, 0) == end or self.broker.low_watermark(partition) == end


class CheckedClient(FakeConsumer):
    """A client that checks commits against the invariant, and injects faults into them."""

    def __init__(self, world: World, settings: Mapping[str, Any]) -> None:
        super().__init__(world.broker, settings)
        self.world = world
        self.faults = Faults()
        self.removed = self.losing = False
        self.budget = 0
        """Messages that have arrived and can be returned."""
        self.first_before_events = False
        """Whether the first message is returned before the callbacks run, and may be stale after them."""
        self.responding = True
        """Whether the next poll passes on the responses to commits."""
        self.fetched: dict[TopicPartition, set[Position]] = {}
        """What was returned of each partition since it was assigned."""
        self._response: list[CommitResult] | None = None

    def poll(self, timeout: float) -> Any:
        if self.first_before_events and (messages := self.fetch(1)):
            return messages[0]
        return super().poll(timeout)

    def fetch(self, limit: int) -> list[FakeMessage]:
        messages = super().fetch(min(limit, self.budget))
        self.budget -= len(messages)
        for message in messages:
            if message.error() is None:
                partition = event_partition(cast(Any, message))
                self.fetched[partition].add((partition, message.offset() or 0))
        return messages

    def commit(self, offsets: Sequence[PartitionOffset], *, asynchronous: bool) -> Any:
        if not asynchronous:
            return self.commit_results(offsets)
        assert self._response is None, "two commits at a time"
        self._response = self.commit_results(offsets)
        return None

    def commit_results(self, offsets: Sequence[PartitionOffset]) -> list[CommitResult]:
        """A member that was removed from the group is rejected."""
        due = {partition_of(position): position.offset for position in offsets}
        assert due, "an empty commit"
        assert due.keys() <= self.assigned.keys(), "a commit for a partition that is another's"
        assert not self.losing, "a commit for a partition that is lost"
        self.world.check_commit(due, set().union(*(self.fetched[partition] for partition in due)))
        fault = Fault.UNAVAILABLE if self.removed else self.faults.next()
        confirmed = {None: len(offsets), Fault.HALF: 1}.get(fault, 0)
        committed = offsets if fault is Fault.ANSWER_LOST else offsets[:confirmed]
        self.world.broker.committed |= {partition_of(p): (p.offset, p.metadata or "") for p in committed}
        return [
            CommitResult(
                p.topic, p.partition, p.offset, None if index < confirmed else KafkaError(KafkaError.ILLEGAL_GENERATION)
            )
            for index, p in enumerate(offsets)
        ]

    def _run_events(self) -> None:
        if self.responding and self._response is not None:
            response, self._response = self._response, None
            self.settings["on_commit"](None, response)
        super()._run_events()


class Process:
    """The core of a consumer; the test calls what its loop would call."""

    def __init__(self, world: World) -> None:
        self.now = 1000.0
        self.store_faults, self.dead_letter_faults = Faults(), Faults()
        self._world = world
        self._waiting: deque[Sequence[Record]] = deque()
        self._executor = SteppedExecutor()
        self._stop = SteppedStop(self._executor.pause)
        self.member = world.parts.member(
            KafkaSettings(),
            ConsumerSettings(on_offset_gap="earliest", offset_commit_frequency_ms=round(COMMIT_INTERVAL * 1000)),
            ConsumerMetrics(CollectorRegistry(), version="1", dead_letter_reasons=()),
            assignment=world.parts.assignment(),
            clock=lambda: self.now,
            client=self._new_client,
            admin=cast(Any, lambda _settings: FakeAdmin()),
        )
        self._thread = SteppedThread(self._new_writer(), self._executor)
        self.member.subscribe(before_revoke=lambda: self._settle(self._thread.drain(1.0)))
        self.client.report_statistics()
        self._thread.__enter__()

    @property
    def removed(self) -> bool:
        return self.client.removed

    def _new_client(self, settings: Mapping[str, Any]) -> Any:
        self.client = CheckedClient(self._world, settings)
        return self.client

    def _new_writer(self) -> BatchWriter:
        world, pause = self._world, self._executor.pause
        return world.parts.writer(
            NewVersion(world.version) if world.version else DataProcessor(),
            world.parts.storage(FaultyStore(world.database, self.store_faults, pause)),
            world.parts.dead_letters(FaultyDeadLetters(world.dead_letters, self.dead_letter_faults, pause)),
            self.member.assignment,
            WriterOptions(
                max_retries=MAX_RETRIES,
                storm_percent=STORM_PERCENT,
                storm_window=STORM_WINDOW,
                probe_interval=COMMIT_INTERVAL,
                max_backoff=0.0,
            ),
            stop=self._stop,
            monotonic_clock=lambda: self.now,
        )

    # -- the loop, as in DataConsumer

    def poll(self, limit: int, *, first_before_events: bool = False, responded: bool = True) -> None:
        self.member.hold(self._thread.storm_guard.held)
        self.client.budget = limit
        self.client.first_before_events = first_before_events
        self.client.responding = responded
        if records := self.member.poll(max(limit, 1), 0.0):
            self._waiting.append(records)
        if self._waiting and not self._thread.full:
            self._thread.submit(self._waiting.popleft())
        self._thread.probe_if_due()

    def step(self, steps: int) -> None:
        self._executor.step(steps)

    def ping(self) -> None:
        if self._thread.idle:
            self._thread.ping()

    def settle(self) -> None:
        self._settle(self._thread.results())

    def commit_if_due(self) -> None:
        self.now += COMMIT_INTERVAL
        self.member.update_lag_if_due()
        self.member.commit_if_due()

    def iterate(self, limit: int, steps: int) -> None:
        """One iteration of the loop."""
        self.poll(limit)
        self.step(steps)
        self.settle()
        self.commit_if_due()

    def leave(self, steps: tuple[int, int, int]) -> None:
        """As `run` ends: batches in flight are drained, the group is left, and what is written then is written."""
        self._stop.set()
        self._thread.drain_steps = steps[0]
        self._settle(self._thread.drain(1.0))
        self.member.update_lag()
        self._thread.drain_steps = steps[1]
        if self.removed:
            self._on_lost()
        else:
            self.member.close()
            self._world.release(self)
        self._thread.__exit__()
        self._executor.step(steps[2])

    def kill(self) -> None:
        self._executor.kill()

    def check_due(self) -> None:
        """What is settled is committed or due. (A member that was removed learns soon that it was.)"""
        assignment = self.member.assignment
        due = assignment.due()
        for partition in () if self.removed else self.client.assigned:
            position = assignment.position(partition)
            known = position in (None, self._world.broker.offsets.get(partition))
            assert known or partition in due, f"{partition}:{position} is settled, and neither committed nor due"

    def plan_faults(self, store: Sequence[Fault], dead_letters: Sequence[Fault], commits: Sequence[Fault]) -> None:
        """The faults in the next calls to each dependency."""
        self.store_faults.planned.extend(store)
        self.dead_letter_faults.planned.extend(dead_letters)
        self.client.faults.planned.extend(commits)

    def clear_faults(self) -> None:
        for faults in (self.store_faults, self.dead_letter_faults, self.client.faults):
            faults.planned.clear()

    # -- called by the group

    def remove(self) -> None:
        self.client.removed = True
        self.client.events = deque([self._on_lost])

    def on_assign(self, partitions: Sequence[TopicPartition]) -> None:
        self.client.fetched |= {partition: set() for partition in partitions}
        self.client._on_assign(self.client, _at(partitions))

    def on_revoke(self, partitions: Sequence[TopicPartition], drain_steps: int) -> None:
        self._thread.drain_steps = drain_steps
        if assigned := [partition for partition in partitions if partition in self.client.assigned]:
            self.client._on_revoke(self.client, _at(assigned))
        self._world.release(self, partitions)

    def _on_lost(self) -> None:
        self.client.losing = True
        if self.client.assigned:
            self.client._on_lost(self.client, _at(self.client.assigned))
        self.client.losing = self.client.removed = False

    def _settle(self, results: Sequence[Result]) -> None:
        for result in results:
            self.member.assignment.settle(result.records)
            if result.rejections:
                self.member.commit_soon()


def _content(document: Document) -> Document:
    return {name: value for name, value in document.items() if name not in ("kafka", "version")}


def _at(partitions: Collection[TopicPartition]) -> list[PartitionOffset]:
    return [PartitionOffset(*partition) for partition in partitions]


def _position(rejection: Rejection) -> Position:
    return rejection.record.topic_partition, rejection.record.offset


def _stored_position(kafka: Mapping[str, Any]) -> Position:
    return TopicPartition(kafka["topic"], kafka["partition"]), kafka["offset"]
