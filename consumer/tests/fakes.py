"""Small real classes in place of Kafka and MongoDB, and what the tests are told in."""

import json
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from threading import Event
from typing import Any, Self

from src.kafka.group_member import Listener
from src.kafka.statistics import Watermarks
from src.model.errors import DeadLetterError, InvalidMessage, StorageUnavailable
from src.model.record import Record, Rejection
from src.model.verdict import DUPLICATE, STORED, Outcome, Verdict

TOPIC = "data-topic"
DEADLINE = 10.0  # seconds; what takes longer in a test has failed


def record(offset: int, value: bytes | None = None, *, partition: int = 0, assignment: int = 1) -> Record:
    """A record whose message has its place as id, or with the value given."""
    content = value if value is not None else json.dumps({"id": f"{partition}-{offset}"}).encode()
    return Record(TOPIC, partition, offset, None, content, assignment=assignment)


class FakeProcessor:
    """Takes any JSON object; `{"fail": n}` fails n times for a reason nobody foresaw."""

    def __init__(self) -> None:
        self.failures: dict[int, int] = {}

    def process(self, record: Record) -> dict[str, Any]:
        try:
            message = json.loads(record.value or b"")
        except ValueError as error:
            raise InvalidMessage("not_json", "not JSON") from error
        failed = self.failures.get(record.offset, 0)
        if failed < message.pop("fail", 0):
            self.failures[record.offset] = failed + 1
            raise ZeroDivisionError("a step nobody foresaw")
        return dict(message)


class FakeStorage:
    """Stores in memory. `outages` is how many calls find nobody; `verdicts` are given once each, by id."""

    def __init__(self) -> None:
        self.documents: dict[str, Mapping[str, Any]] = {}
        self.outages = 0
        self.verdicts: dict[str, deque[Verdict]] = {}
        self.calls: list[list[str]] = []
        self.gate: Event | None = None
        """While it is not set, a call does not return."""
        self.indexed = self.closed = False

    def ensure_indexes(self) -> None:
        self._answer()
        self.indexed = True

    def ping(self) -> None:
        self._answer()

    def save_many(self, documents: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        self.calls.append([document["id"] for document in documents])
        if self.gate is not None:
            assert self.gate.wait(DEADLINE)
        self._answer()
        return [self._save(document) for document in documents]

    def save(self, data: Mapping[str, Any]) -> bool:
        return self.save_many([data])[0].outcome in (Outcome.STORED, Outcome.DUPLICATE)

    def close(self) -> None:
        self.closed = True

    def _answer(self) -> None:
        if self.outages:
            self.outages -= 1
            raise StorageUnavailable("unreachable", "nobody answers")

    def _save(self, document: Mapping[str, Any]) -> Verdict:
        scripted = self.verdicts.get(document["id"])
        if scripted:
            return scripted.popleft()
        if document["id"] in self.documents:
            return DUPLICATE
        self.documents[document["id"]] = document
        return STORED


class FakeDeadLetters:
    """A dead-letter topic in memory, which passes the same contract tests as the real one.

    `outages` is the number of calls that fail, and confirm the first of several dead letters at most.
    """

    def __init__(self) -> None:
        self.rejections: list[Rejection] = []
        self.outages = 0
        self.closed = False

    @property
    def offsets(self) -> list[int]:
        return [rejection.record.offset for rejection in self.rejections]

    def send(self, rejections: Sequence[Rejection]) -> None:
        if self.outages and rejections:
            self.outages -= 1
            confirmed = min(1, len(rejections) - 1)
            self.rejections += rejections[:confirmed]
            raise DeadLetterError("unreachable", "connection refused", range(confirmed, len(rejections)))
        self.rejections += rejections

    def close(self) -> None:
        self.closed = True


class FakeSource:
    """A topic in memory, read as a group's only member; `rebalances` are acted out inside `poll`, as in Kafka."""

    def __init__(self, records: Sequence[Record] = ()) -> None:
        self.committing = False
        self.gaps: Collection[str] = ()
        self.committed: dict[int, int] = {}
        self.refusals = 0
        self.paused = False
        self.pauses = 0
        self.closed = False
        self.polls = 0
        self.trouble: list[str] = []
        self.read: dict[int, int] = {}
        """The client's positions, where a test sets them."""
        self._records = deque(records)
        self._rebalances: deque[tuple[str, list[int]]] = deque()
        self._assignment = 0
        self._asked: Mapping[int, int] | None = None
        self._failure: Exception | None = None

    def feed(self, *records: Record) -> None:
        self._records.extend(records)

    def rebalance(self, event: str, *partitions: int) -> None:
        """Have the next poll tell of partitions "assigned", "revoked", "lost" or "skipped" (from offset 5 to 9)."""
        self._rebalances.append((event, list(partitions)))

    def fail(self, error: Exception) -> None:
        self._failure = error

    def subscribe(self, listener: Listener) -> Self:
        self._listener = listener
        return self

    def poll(self, limit: int, timeout: float) -> list[Record]:
        self.polls += 1
        if self._failure is not None:
            raise self._failure
        if self._asked is not None:
            self._answer(self._asked)
        while self._rebalances:
            self._act(*self._rebalances.popleft())
        if self.paused:
            return []
        return [self._records.popleft() for _ in range(min(limit, len(self._records)))]

    def commit(self, offsets: Mapping[int, int]) -> None:
        self.committing = True
        self._asked = offsets

    def commit_now(self, offsets: Mapping[int, int]) -> None:
        self._answer(offsets)

    def pause(self) -> None:
        self.paused = True
        self.pauses += 1

    def resume(self) -> None:
        self.paused = False

    def ends(self, partition: int) -> Watermarks:
        return Watermarks(0, 100)

    @property
    def ends_met(self) -> Mapping[int, int]:
        return self.read

    def readiness_failures(self) -> list[str]:
        return self.trouble

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.revoking([0])
        self.closed = True

    def _answer(self, offsets: Mapping[int, int]) -> None:
        self._asked = None
        self.committing = False
        if self.refusals:
            self.refusals -= 1
            self._listener.refused(offsets)
        else:
            self.committed.update(offsets)
            self._listener.committed(offsets)

    def _act(self, event: str, partitions: list[int]) -> None:
        if event == "assigned":
            self._assignment += 1
            self._listener.assigned({p: self.committed.get(p) for p in partitions}, self._assignment)
        elif event == "skipped":
            self._listener.skipped(partitions[0], 4, 9)
        elif event == "revoked":
            self._listener.revoking(partitions)
        else:
            self._listener.lost(partitions)


def refused(reason: str) -> Verdict:
    return Verdict(Outcome.REFUSED, reason, ValueError(reason))


def failed(reason: str = "unknown") -> Verdict:
    return Verdict(Outcome.FAILED, reason, ValueError(reason))


def deferred(reason: str = "throttled") -> Verdict:
    return Verdict(Outcome.DEFERRED, reason, ValueError(reason))
