"""The consumer's core in a world that a test steps through: a broker's logs, a store and a dead-letter topic.

The tracker, the settlement, the writer, its thread and the storage door are the real ones. One thread runs at a time:
the writer's works only while the test waits for it, so that every interleaving can be chosen, and repeated. The world
remembers what was sent and judges each commit by the law, whatever the consumer thinks of it.
"""

import json
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum, auto
from threading import Event, Lock
from typing import Any, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry

from src.data_processor import DataProcessor
from src.kafka.assignment import OffsetTracker
from src.kafka.committer import Settlement
from src.kafka.statistics import Watermarks
from src.model.errors import DeadLetterError, StorageUnavailable
from src.model.record import Record, Rejection
from src.model.verdict import Verdict
from src.pipeline.batch_writer import BatchWriter, Result, WriterOptions
from src.pipeline.dead_letter_writer import DeadLetters
from src.pipeline.storage_writer import Storage
from src.pipeline.writer_thread import WriterThread
from src.storage import DataStorage
from src.stores.document import Document
from src.utils.metrics import ConsumerMetrics
from tests.fake_storage import FakeStore
from tests.fakes import DEADLINE, TOPIC, deferred, failed, refused

PARTITIONS = range(3)
COMMIT_EVERY = 1.0
MAX_RETRIES = 1
STORM_PERCENT = 60
STORM_WINDOW = 6
ROUNDS = 60  # within which everything is settled once nothing is in the way any more

T = TypeVar("T")
Place = tuple[int, int]


class Kind(Enum):
    """What a message is like, and so where it belongs."""

    GOOD = auto()
    POISON = auto()
    REFUSED = auto()
    """The store can never hold it."""
    FLAKY = auto()
    """The store fails on it once, for a reason nobody foresaw."""
    HOPELESS = auto()
    """The store fails on it each time."""
    AGAIN = auto()
    """The same id and content as one before."""
    CONFLICT = auto()
    """The id of one before, and other content."""
    MARKER = auto()
    """No message, but the end of a transaction: the client reads past it and returns nothing."""


class Fault(Enum):
    """What can become of a call on something outside."""

    AWAY = auto()
    """Nobody answers, and nothing was done."""
    DEAF = auto()
    """All of it was done, and the answer is lost."""
    HALF = auto()
    """Half of it was done, and the answer is lost."""
    THROTTLED = auto()
    """The store puts every other document off."""


class Sent(NamedTuple):
    """A message of the log, as the test knows it."""

    value: bytes | None
    message: dict[str, Any] | None = None

    @property
    def kind(self) -> str:
        if self.value is None:
            return "MARKER"
        return "POISON" if self.message is None else str(self.message["kind"])

    @property
    def id(self) -> str:
        return "" if self.message is None else str(self.message["id"])


class Crashed(Exception):
    """The process is gone: nothing after this takes effect."""


class Turns(ThreadPoolExecutor):
    """The writer's thread, which runs from pause to pause when it is told to."""

    def __init__(self) -> None:
        super().__init__(max_workers=1)
        self._theirs, self._ours = Lock(), Lock()
        self._theirs.acquire()
        self._ours.acquire()
        self._tasks: deque[Callable[[], None]] = deque()
        self._at_work = self._over = False

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        outcome: Future[T] = Future()
        self._tasks.append(lambda: _fulfil(outcome, function, args))
        super().submit(self._run)
        return outcome

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._tasks.clear()
        super().shutdown(wait)

    def work(self, steps: int) -> None:
        """Let the writer get past so many pauses, or as far as it has work."""
        for _ in range(steps):
            if not self._tasks and not self._at_work:
                return
            self._theirs.release()
            assert self._ours.acquire(timeout=DEADLINE), "the writer does not come back"

    def pause(self) -> None:
        """Called by the writer, wherever it meets the world outside."""
        self._ours.release()
        self._theirs.acquire()
        if self._over:
            raise Crashed

    def end(self) -> None:
        self._over = True
        self._theirs.release()
        self.shutdown()

    def _run(self) -> None:
        if not self._over:
            self._theirs.acquire()
        if self._over:
            return
        self._at_work = True
        self._tasks.popleft()()
        self._at_work = False
        self._ours.release()


def _fulfil(outcome: Future[T], function: Callable[..., T], args: Sequence[Any]) -> None:
    """Whatever ends a task is the future's, as in the real executor."""
    try:
        outcome.set_result(function(*args))
    except Exception as error:  # noqa: BLE001 - the future raises it
        outcome.set_exception(error)


class SteppedThread(WriterThread):
    """The real one on a thread that the test steps; `pace` is how far the writer gets when it is waited for."""

    def __init__(self, writer: BatchWriter, turns: Turns) -> None:
        super().__init__(writer)
        self.pace = 0
        self._executor = turns
        self._work = turns.work

    def drain(self, timeout: float) -> list[Result]:
        self._work(self.pace)
        return super().drain(0.0)


class SteppedStop(Event):
    """An event on which to wait is a pause."""

    def __init__(self, pause: Callable[[], None]) -> None:
        super().__init__()
        self._pause = pause

    def wait(self, timeout: float | None = None) -> bool:
        self._pause()
        return self.is_set()


class Weather:
    """What becomes of the next calls; afterwards all is fine."""

    def __init__(self) -> None:
        self.faults: deque[Fault] = deque()

    def next(self) -> Fault | None:
        return self.faults.popleft() if self.faults else None


class DeadLetterReader:
    """What the store holds, whoever writes there."""

    def __init__(self) -> None:
        self.documents: dict[str, Document] = {}
        self.met: set[str] = set()
        """The flaky messages that have failed already."""


class WeatheredStore(FakeStore):
    """One consumer's connection to the store."""

    def __init__(self, shelf: DeadLetterReader, weather: Weather, pause: Callable[[], None]) -> None:
        super().__init__()
        self.documents = shelf.documents
        self._met = shelf.met
        self._weather = weather
        self._pause = pause

    def insert(self, documents: Sequence[Document]) -> list[Verdict]:
        fault = self._fault()
        if fault is Fault.THROTTLED:
            return [deferred() if index % 2 else self._insert(each) for index, each in enumerate(documents)]
        done = {None: len(documents), Fault.DEAF: len(documents), Fault.HALF: (len(documents) + 1) // 2}.get(fault, 0)
        verdicts = [self._insert(document) for document in documents[:done]]
        if fault:
            raise StorageUnavailable("unreachable", "the answer does not come")
        return verdicts

    def ping(self) -> None:
        if self._fault():
            raise StorageUnavailable("unreachable", "nobody answers")

    def _fault(self) -> Fault | None:
        self._pause()
        return self._weather.next()

    def _insert(self, document: Document) -> Verdict:
        if document["kind"] == "REFUSED":
            return refused("validation_failed")
        if document["kind"] == "HOPELESS":
            return failed()
        if document["kind"] == "FLAKY" and document["id"] not in self._met:
            self._met.add(document["id"])
            return failed()
        return super()._insert(document)


class WeatheredLetters:
    """One consumer's connection to the dead-letter topic."""

    def __init__(self, parked: list[Rejection], weather: Weather, pause: Callable[[], None]) -> None:
        self._parked = parked
        self._weather = weather
        self._pause = pause

    def send(self, rejections: Sequence[Rejection]) -> None:
        self._pause()
        fault = self._weather.next()
        confirmed = {None: len(rejections), Fault.HALF: len(rejections) // 2}.get(fault, 0)
        self._parked += rejections if fault is Fault.DEAF else rejections[:confirmed]
        if fault:
            raise DeadLetterError("unreachable", "nobody answers", range(confirmed, len(rejections)))

    def close(self) -> None:
        """Nothing is open."""


def _same(letters: DeadLetters) -> DeadLetters:
    return letters


@dataclass(frozen=True)
class Parts:
    """What the consumer's core is made of; a mutant replaces one."""

    tracker: type[OffsetTracker] = OffsetTracker
    settlement: type[Settlement] = Settlement
    writer: type[BatchWriter] = BatchWriter
    storage: Callable[[FakeStore], Storage] = lambda store: DataStorage({}, store=store)
    letters: Callable[[DeadLetters], DeadLetters] = _same


@dataclass
class World:
    """The broker, the store, the dead-letter topic, and a group of two consumers."""

    parts: Parts = field(default_factory=Parts)
    logs: list[list[Sent]] = field(default_factory=lambda: [[] for _ in PARTITIONS])
    begins: dict[int, int] = field(default_factory=lambda: dict.fromkeys(PARTITIONS, 0))
    committed: dict[int, int] = field(default_factory=dict)
    shelf: DeadLetterReader = field(default_factory=DeadLetterReader)
    parked: list[Rejection] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.owners: dict[int, Member | None] = dict.fromkeys(PARTITIONS)
        self.members = [Member(self), Member(self)]

    # -- what a test does

    def send(self, partition: int, kind: Kind) -> None:
        log = self.logs[partition]
        number = sum(map(len, self.logs))
        earlier = [sent.message for each in self.logs for sent in each if sent.message]
        message: dict[str, Any] = {"id": str(number), "kind": kind.name, "number": number}
        if kind in (Kind.POISON, Kind.MARKER):
            log.append(Sent(b"{" if kind is Kind.POISON else None))
            return
        if kind in (Kind.AGAIN, Kind.CONFLICT):
            of = earlier[number % len(earlier)] if earlier else message | {"kind": "GOOD"}
            message = of if kind is Kind.AGAIN else {**of, "number": number}
        log.append(Sent(json.dumps(message).encode(), message))

    def give(self, partition: int, member: "Member") -> None:
        """The group gives a free partition to a member, which hears of it in its next poll."""
        if self.owners[partition] is None and not member.out:
            self.owners[partition] = member
            member.tell(lambda: member.assigned([partition]))

    def take_away(self, partition: int, pace: int) -> None:
        """The group asks the owner to let go; the partition is free once that has heard of it."""
        if owner := self.owners[partition]:
            owner.tell(lambda: owner.revoked([partition], pace))

    def put_out(self, member: "Member") -> None:
        """The group gives a silent member's partitions away; it does not know yet, and goes on."""
        if not member.out:
            member.put_out()
            self.release(member)

    def replace(self, member: "Member") -> None:
        """The process is gone, and another takes its place."""
        self.release(member)
        member.end()
        self.members[self.members.index(member)] = Member(self)

    def expire(self, partition: int) -> None:
        """Retention deletes what is there; the source finds nothing at its position, and says so."""
        owner = self.owners[partition]
        if owner and partition in owner.told and self.logs[partition]:
            self.begins[partition] = len(self.logs[partition])
            owner.meet_gap(partition)

    def release(self, member: "Member", partitions: Collection[int] = PARTITIONS) -> None:
        self.owners |= {p: None for p in partitions if self.owners[p] is member}

    def settle_everything(self) -> None:
        """Nothing is in the way any more: in a bounded number of rounds everything is settled and committed."""
        for _ in range(ROUNDS):
            for partition in PARTITIONS:
                self.give(partition, self.members[partition % len(self.members)])
            for member in self.members:
                member.heal()
                member.turn(10, 50)
            if all(self.committed.get(p, 0) == len(self.logs[p]) or not self._left(p) for p in PARTITIONS):
                return
        raise AssertionError(f"not settled: {self.committed} of {[len(log) for log in self.logs]}")

    def end(self) -> None:
        for member in self.members:
            member.end()

    # -- the law

    def judge(self, offsets: Mapping[int, int], fetched: Collection[Place]) -> None:
        """A commit is lawful if every message before it is stored or dead-lettered: those that are still in the topic,
        and those that the member who commits had fetched before they were gone."""
        letters = {_place(letter) for letter in self.parked}
        for partition, offset in offsets.items():
            for place in range(offset):
                sent = self.logs[partition][place]
                gone = place < self.begins[partition] and (partition, place) not in fetched
                no_message = sent.kind == Kind.MARKER.name
                assert gone or no_message or self._is_stored(sent) or (partition, place) in letters, (
                    f"{partition}:{offset} is committed, and {place} ({sent.kind}) is neither stored nor dead-lettered"
                )

    def judge_homes(self) -> None:
        """Nothing is stored twice, or stored and dead-lettered; nothing is dead-lettered but by its own fault."""
        homes = [_origin(document) for document in self.shelf.documents.values()]
        assert len(homes) == len(set(homes)), "two documents from one message"
        for letter in self.parked:
            sent = self.logs[letter.record.partition][letter.record.offset]
            assert _place(letter) not in homes, f"{_place(letter)} is stored and dead-lettered"
            assert sent.kind in ("POISON", "REFUSED", "HOPELESS") or self._is_taken(sent), (
                f"{_place(letter)} is dead-lettered for nothing: {letter.reason}"
            )

    def _is_stored(self, sent: Sent) -> bool:
        document = self.shelf.documents.get(sent.id)
        return document is not None and _message(document) == sent.message

    def _is_taken(self, sent: Sent) -> bool:
        """Whether another message has this one's id."""
        return sent.id in self.shelf.documents and not self._is_stored(sent)

    def _left(self, partition: int) -> int:
        """Messages that nobody has deleted."""
        return len(self.logs[partition]) - self.begins[partition]


class Member:
    """A consumer of the group: the core, and in the place of its loop and its Kafka client what the test calls."""

    def __init__(self, world: World) -> None:
        self.committing = False
        self.told: dict[int, int] = {}
        """The partitions that it believes to own, and the number of their assignment."""
        self.out = False
        self.now = 1000.0
        self.store_weather, self.letters_weather, self.commits_weather = Weather(), Weather(), Weather()
        self._world = world
        self._positions: dict[int, int] = {}
        self._fetched: dict[int, set[Place]] = {}
        """What came of each partition under its present number."""
        self._waiting: deque[list[Record]] = deque()
        self._events: deque[Callable[[], None]] = deque()
        self._gaps: list[int] = []
        self._answer: tuple[dict[int, int], dict[int, int]] | None = None
        self._number = 0
        self._letting_go_lost = False
        self._tracker = world.parts.tracker()
        self._turns = Turns()
        self._stop = SteppedStop(self._turns.pause)
        self._thread = SteppedThread(self._made_writer(), self._turns)
        self._settlement = world.parts.settlement(
            self,
            self._thread,
            ConsumerMetrics(CollectorRegistry(), version="1", dead_letter_reasons=()),
            topic=TOPIC,
            commit_every=COMMIT_EVERY,
            tracker=self._tracker,
            clock=lambda: self.now,
        )
        self._thread.__enter__()

    def _made_writer(self) -> BatchWriter:
        world, pause = self._world, self._turns.pause
        return world.parts.writer(
            DataProcessor(),
            world.parts.storage(WeatheredStore(world.shelf, self.store_weather, pause)),
            world.parts.letters(WeatheredLetters(world.parked, self.letters_weather, pause)),
            WriterOptions(MAX_RETRIES, STORM_PERCENT, STORM_WINDOW, probe_interval=0.0, max_backoff=0.0),
            stop=self._stop,
            is_assigned=self._tracker.owns,
        )

    # -- the loop, as DataConsumer turns it

    def poll(self, early: int, late: int, *, answered: bool = True) -> None:
        """Fetch and hand over. The early records are stamped before the callbacks run, and may be stale after."""
        while self._gaps:
            self._skip(self._gaps.pop())
        records = self._fetch(early)
        if answered:
            self._hear_answer()
        while self._events:
            self._events.popleft()()
        if arrived := self._settlement.take(records + self._fetch(late)):
            self._waiting.append(arrived)
        if self._waiting and not self._thread.full:
            self._thread.submit(self._waiting.popleft())

    def work(self, steps: int) -> None:
        self._turns.work(steps)

    def look(self) -> None:
        if self._thread.idle:
            self._thread.ping()

    def settle(self) -> None:
        self._settlement.settle(self._thread.results())

    def commit_if_due(self) -> None:
        self.now += COMMIT_EVERY
        self._settlement.take_stock_if_due()
        self._settlement.commit_if_due()

    def turn(self, limit: int, pace: int) -> None:
        """All of the loop."""
        self.poll(0, limit)
        self.work(pace)
        self.settle()
        self.commit_if_due()

    def leave(self, paces: tuple[int, int, int]) -> None:
        """As `run` ends: the batches in hand get their grace, the group is left, what is written then is written."""
        self._stop.set()
        self._thread.pace = paces[0]
        self._settlement.settle(self._thread.drain(1.0))
        self._settlement.take_stock()
        if self.out:
            self._lost()
        else:
            self.revoked(list(self.told), paces[1])
        self._thread.__exit__()
        self._turns.work(paces[2])

    def end(self) -> None:
        self._turns.end()

    def judge_due(self) -> None:
        """What the broker does not know yet is not forgotten. (A member that is out hears soon that it is.)"""
        due = self._tracker.due()
        for partition in () if self.out else self.told:
            position = self._tracker.position(partition)
            known = position in (None, self._world.committed.get(partition))
            assert known or partition in due, f"{partition}:{position} is settled, and neither committed nor due"

    def meet(self, store: Sequence[Fault], letters: Sequence[Fault], commits: Sequence[Fault]) -> None:
        """What becomes of the next calls on each."""
        self.store_weather.faults.extend(store)
        self.letters_weather.faults.extend(letters)
        self.commits_weather.faults.extend(commits)

    def heal(self) -> None:
        for weather in (self.store_weather, self.letters_weather, self.commits_weather):
            weather.faults.clear()

    # -- what the group does with it

    def tell(self, event: Callable[[], None]) -> None:
        self._events.append(event)

    def put_out(self) -> None:
        self.out = True
        self._events = deque([self._lost])

    def assigned(self, partitions: Iterable[int]) -> None:
        committed = {p: self._world.committed.get(p) for p in partitions}
        self._assign({p: max(offset or 0, self._world.begins[p]) for p, offset in committed.items()}, committed)
        self._settlement.begun({p: self._world.begins[p] for p, offset in committed.items() if offset is None})

    def revoked(self, partitions: Sequence[int], pace: int) -> None:
        ours = [p for p in partitions if p in self.told]
        self._thread.pace = pace
        if ours:
            self._settlement.revoking(ours)
        self._let_go(ours)
        self._world.release(self, partitions)

    def meet_gap(self, partition: int) -> None:
        """The next poll finds nothing at its position."""
        self._gaps.append(partition)

    def _skip(self, partition: int) -> None:
        begin = self._world.begins[partition]
        if self._positions.get(partition, begin) < begin:
            self._positions[partition] = begin
            self._settlement.skipped(partition, 1, begin)

    def _lost(self) -> None:
        self._letting_go_lost = True
        if self.told:
            self._settlement.lost(list(self.told))
        self._letting_go_lost = False
        self._let_go(list(self.told))
        self.out = False

    def _assign(self, positions: Mapping[int, int], committed: Mapping[int, int | None]) -> None:
        self._number += 1
        self.told |= dict.fromkeys(positions, self._number)
        self._positions |= positions
        self._fetched |= {partition: set() for partition in positions}
        self._settlement.assigned(committed, self._number)

    def _let_go(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            del self.told[partition], self._positions[partition], self._fetched[partition]

    # -- the Kafka client

    def commit(self, offsets: Mapping[int, int]) -> None:
        assert not self.committing, "two commits at a time"
        self.committing = True
        self._answer = self._asked(offsets)

    def commit_now(self, offsets: Mapping[int, int]) -> None:
        self._told_answer(*self._asked(offsets))

    def ends(self, partition: int) -> Watermarks:
        return Watermarks(self._world.begins[partition], len(self._world.logs[partition]))

    @property
    def ends_met(self) -> Mapping[int, int]:
        return {partition: at for partition, at in self._positions.items() if at >= len(self._world.logs[partition])}

    def _fetch(self, limit: int) -> list[Record]:
        records: list[Record] = []
        for partition, number in self.told.items():
            log = self._world.logs[partition]
            begin = self._positions[partition]
            end = min(len(log), begin + limit - len(records))
            self._positions[partition] = max(begin, end)
            offsets = [offset for offset in range(begin, end) if log[offset].value is not None]
            self._fetched[partition] |= {(partition, offset) for offset in offsets}
            records += [
                Record(TOPIC, partition, offset, None, log[offset].value, assignment=number) for offset in offsets
            ]
        return records

    def _asked(self, offsets: Mapping[int, int]) -> tuple[dict[int, int], dict[int, int]]:
        """What the broker confirms and what it refuses. A member that is out it refuses."""
        assert offsets, "an empty commit"
        assert offsets.keys() <= self.told.keys(), "a commit for a partition that is another's"
        assert not self._letting_go_lost, "a commit for a partition that is lost"
        self._world.judge(offsets, set().union(*(self._fetched[partition] for partition in offsets)))
        fault = Fault.AWAY if self.out else self.commits_weather.next()
        confirmed = dict(list(offsets.items())[: {None: len(offsets), Fault.HALF: 1}.get(fault, 0)])
        self._world.committed |= offsets if fault is Fault.DEAF else confirmed
        return confirmed, {p: offset for p, offset in offsets.items() if p not in confirmed}

    def _hear_answer(self) -> None:
        if self._answer is not None:
            answer, self._answer = self._answer, None
            self.committing = False
            self._told_answer(*answer)

    def _told_answer(self, confirmed: dict[int, int], refusals: dict[int, int]) -> None:
        if refusals:
            self._settlement.refused(refusals)
        if confirmed:
            self._settlement.committed(confirmed)


def _place(letter: Rejection) -> Place:
    return letter.record.partition, letter.record.offset


def _origin(document: Document) -> Place:
    return document["kafka"]["partition"], document["kafka"]["offset"]


def _message(document: Document) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "kafka"}
