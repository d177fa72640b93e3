"""A topic and a consumer group in memory, behind the interface of confluent_kafka's Consumer.

It passes the same contract as real brokers (`group_member_contract.py`). Tests decide when the group rebalances;
callbacks run inside `poll`, `consume` and `close`, as librdkafka runs them.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, OFFSET_INVALID, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AclOperation

from src.kafka.topic_monitor import NO_ID
from tests.fakes import TOPIC

RebalanceCallback = Callable[[Any, list[TopicPartition]], None]


class FakeMessage:
    """A message, or an event of the client in place of one."""

    def __init__(
        self, offset: int | None, partition: int = 0, *, value: bytes | None = b"{}", error: KafkaError | None = None
    ) -> None:
        self._offset = offset
        self._partition = partition
        self._value = value
        self._error = error

    def error(self) -> KafkaError | None:
        return self._error

    def topic(self) -> str:
        return TOPIC

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int | None:
        return self._offset

    def key(self) -> None:
        return None

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 0, 0


class CommitResult(NamedTuple):
    """A TopicPartition with an error, which tests cannot give the real one."""

    partition: int
    offset: int
    error: KafkaError | None = None


@dataclass
class FakeTopic:
    """What the broker has: `logs` by partition, in which None stands for a transaction marker."""

    logs: dict[int, list[bytes | None]]
    earliest: dict[int, int] = field(default_factory=dict)
    committed: dict[int, tuple[int, str]] = field(default_factory=dict)
    """The group's offsets, with their metadata."""

    def high_watermark(self, partition: int) -> int:
        return len(self.logs[partition])

    def low_watermark(self, partition: int) -> int:
        return self.earliest.get(partition, 0)

    @property
    def offsets(self) -> dict[int, int]:
        return {partition: offset for partition, (offset, _) in self.committed.items()}


class FakeConsumer:
    """One client of the group. `events` are run by the next poll or consume, in order."""

    def __init__(self, topic: FakeTopic, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self.events: deque[Callable[[], None]] = deque()
        self.assigned: dict[int, int] = {}
        """The partitions that it fetches, and its positions."""
        self.paused: set[int] = set()
        self.polls = 0
        self.rejections = 0
        """How many commits are rejected from now on."""
        self.error: KafkaError | None = None
        """Returned by the next poll in place of a message."""
        self.closed = False
        self._topic = topic
        self._reported_ends: dict[int, int] = {}
        self._out_of_range: set[int] = set()

    # -- called by tests

    def assign(self, *partitions: int) -> None:
        self.events.append(lambda: self._on_assign(self, _at(partitions)))

    def revoke(self, *partitions: int) -> None:
        self.events.append(lambda: self._on_revoke(self, _at(partitions)))

    def lose(self, *partitions: int) -> None:
        self.events.append(lambda: self._on_lost(self, _at(partitions)))

    def report_statistics(self, *, connected: bool = True) -> None:
        """As librdkafka does now and then: the client is in its group, and at the ends of the partitions."""
        partitions = {
            str(number): {
                "lo_offset": self._topic.low_watermark(number),
                "ls_offset": self._topic.high_watermark(number),
            }
            for number in self._topic.logs
        }
        state = "UP" if connected else "DOWN"
        statistics = {
            "brokers": {"broker/1": {"state": state, "nodeid": 1}},
            "topics": {TOPIC: {"partitions": partitions}},
            "cgrp": {"join_state": "steady"},
        }
        self.settings["stats_cb"](json.dumps(statistics))

    # -- confluent_kafka.Consumer

    def subscribe(
        self,
        _topics: list[str],
        *,
        on_assign: RebalanceCallback,
        on_revoke: RebalanceCallback,
        on_lost: RebalanceCallback,
    ) -> None:
        self._on_assign, self._on_revoke, self._on_lost = on_assign, on_revoke, on_lost

    def poll(self, timeout: float) -> Any:
        self.polls += 1
        return next(iter(self.consume(1, timeout)), None)

    def consume(self, limit: int, _timeout: float) -> list[Any]:
        self._run_events()
        return self.fetch(limit)

    def commit(self, offsets: Sequence[TopicPartition], *, asynchronous: bool) -> Any:
        results = self.commit_results(offsets)
        if asynchronous:
            self.events.append(lambda: self.settings["on_commit"](None, results))
        return results

    def committed(self, partitions: Sequence[TopicPartition], *, timeout: float) -> list[TopicPartition]:
        nothing = (OFFSET_INVALID, "")
        return [
            TopicPartition(TOPIC, p.partition, *self._topic.committed.get(p.partition, nothing)) for p in partitions
        ]

    def offsets_for_times(self, partitions: Sequence[TopicPartition], *, timeout: float) -> list[TopicPartition]:
        look_up = {OFFSET_BEGINNING: self._topic.low_watermark, OFFSET_END: self._topic.high_watermark}
        return [TopicPartition(TOPIC, p.partition, look_up[p.offset](p.partition)) for p in partitions]

    def incremental_assign(self, positions: Sequence[TopicPartition]) -> None:
        for position in positions:
            low = self._topic.low_watermark(position.partition)
            self.assigned[position.partition] = low if position.offset < 0 else position.offset
            self._reported_ends.pop(position.partition, None)
            self._out_of_range.discard(position.partition)

    def incremental_unassign(self, positions: Sequence[TopicPartition]) -> None:
        for position in positions:
            self.assigned.pop(position.partition, None)

    def pause(self, positions: Sequence[TopicPartition]) -> None:
        self.paused |= {position.partition for position in positions}

    def resume(self, positions: Sequence[TopicPartition]) -> None:
        self.paused -= {position.partition for position in positions}

    def close(self) -> None:
        if self.assigned:
            self._on_revoke(self, _at(self.assigned))
        self.closed = True

    # -- the broker

    def fetch(self, limit: int) -> list[FakeMessage]:
        if self.error is not None:
            error, self.error = self.error, None
            return [FakeMessage(None, error=error)]
        messages: list[FakeMessage] = []
        for partition in sorted(self.assigned.keys() - self.paused - self._out_of_range):
            while len(messages) < limit and (message := self._next(partition)) is not None:
                messages.append(message)
        return messages

    def commit_results(self, offsets: Sequence[TopicPartition]) -> list[CommitResult]:
        if self.rejections:
            self.rejections -= 1
            error = KafkaError(KafkaError.REBALANCE_IN_PROGRESS)
            return [CommitResult(p.partition, p.offset, error) for p in offsets]
        self._topic.committed |= {p.partition: (p.offset, p.metadata or "") for p in offsets}
        return [CommitResult(p.partition, p.offset) for p in offsets]

    def _next(self, partition: int) -> FakeMessage | None:
        """The next message, or event; None where there is nothing to report."""
        position, log = self.assigned[partition], self._topic.logs[partition]
        if not self._topic.low_watermark(partition) <= position <= len(log):
            self._out_of_range.add(partition)
            return FakeMessage(position, partition, error=KafkaError(KafkaError._AUTO_OFFSET_RESET, "out of range"))
        while position < len(log) and log[position] is None:
            position += 1
        if position < len(log):
            self.assigned[partition] = position + 1
            return FakeMessage(position, partition, value=log[position])
        self.assigned[partition] = position
        if self._reported_ends.get(partition) == position:
            return None
        self._reported_ends[partition] = position
        return FakeMessage(position, partition, error=KafkaError(KafkaError._PARTITION_EOF))

    def _run_events(self) -> None:
        while self.events:
            self.events.popleft()()


class FakeAdmin:
    """An admin client that receives this topic id (by default none, as from old brokers) or an error."""

    def __init__(self, topic_id: str = NO_ID) -> None:
        self.topic_id = topic_id
        self.operations: Sequence[AclOperation] | None = None
        """The authorized operations on the topic; None as from old brokers."""
        self.error: int | None = None
        self.credentials: tuple[str, str] | None = None

    def set_sasl_credentials(self, username: str, password: str, /) -> None:
        self.credentials = username, password

    def describe_topics(self, *_topics: object, **_options: object) -> Mapping[str, Future[Any]]:
        response: Future[Any] = Future()
        if self.error is None:
            response.set_result(_Description(self.topic_id, self.operations))
        else:
            response.set_exception(KafkaException(KafkaError(self.error)))
        return {TOPIC: response}


class _Description(NamedTuple):
    topic_id: str
    authorized_operations: Sequence[AclOperation] | None


def _at(partitions: Iterable[int]) -> list[TopicPartition]:
    return [TopicPartition(TOPIC, partition) for partition in partitions]
