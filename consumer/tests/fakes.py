"""A fake dead-letter topic, and the records and verdicts of the tests."""

import json
from collections.abc import Sequence

from src.model.errors import DeadLetterError
from src.model.position import TopicPartition
from src.model.record import Record, Rejection
from src.model.verdict import Outcome, Verdict

TOPIC = "data-topic"
P0, P1 = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
DEADLINE = 10.0  # seconds after which a test has failed


def record(offset: int, value: bytes | None = None, *, partition: int = 0, assignment: int = 1) -> Record:
    """By default its message has the partition and the offset as its id."""
    content = value if value is not None else json.dumps({"id": f"{partition}-{offset}"}).encode()
    return Record(TOPIC, partition, offset, None, content, assignment=assignment)


class FakeDeadLetters:
    """A dead-letter topic in memory, which passes the same contract tests as the real one.

    `outages` is the number of calls that fail, and confirm the first of several dead letters at most.
    """

    def __init__(self) -> None:
        self.rejections: list[Rejection] = []
        self.outages = 0
        self.closed = False
        self.exists = True
        self.unavailable_reason: str | None = "dead-letter topic: not checked yet"

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
        if rejections:
            self.unavailable_reason = None

    def look_up(self) -> None:
        if self.exists:
            self.unavailable_reason = None

    def close(self) -> None:
        self.closed = True


def rejected(reason: str) -> Verdict:
    return Verdict(Outcome.REJECTED, reason, ValueError(reason))


def failed(reason: str = "unknown") -> Verdict:
    return Verdict(Outcome.FAILED, reason, ValueError(reason))


def deferred(reason: str = "throttled") -> Verdict:
    return Verdict(Outcome.DEFERRED, reason, ValueError(reason))
