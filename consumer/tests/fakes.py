"""Small real classes in place of Kafka and MongoDB, and what the tests are told in."""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from threading import Event
from typing import Any

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


def refused(reason: str) -> Verdict:
    return Verdict(Outcome.REFUSED, reason, ValueError(reason))


def failed(reason: str = "unknown") -> Verdict:
    return Verdict(Outcome.FAILED, reason, ValueError(reason))


def deferred(reason: str = "throttled") -> Verdict:
    return Verdict(Outcome.DEFERRED, reason, ValueError(reason))
