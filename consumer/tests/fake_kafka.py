"""A broker and a consumer group in memory, behind the interface of confluent_kafka's Consumer.

It passes the same contract as real brokers (`group_member_contract.py`). Tests decide when the group rebalances;
callbacks run inside `poll`, `consume` and `close`, as librdkafka runs them.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    TIMESTAMP_CREATE_TIME,
    KafkaError,
    KafkaException,
    TopicCollection,
)
from confluent_kafka import TopicPartition as PartitionOffset
from confluent_kafka.admin import AclOperation

from src.kafka.messages import partition_of
from src.kafka.topic_monitor import NO_ID
from src.model.position import TopicPartition
from tests.fakes import P0

RebalanceCallback = Callable[[Any, list[PartitionOffset]], None]


class FakeMessage:
    """A message, or an event of the client in place of one."""

    def __init__(
        self,
        offset: int | None,
        partition: TopicPartition = P0,
        *,
        value: bytes | None = b"{}",
        error: KafkaError | None = None,
    ) -> None:
        self._offset = offset
        self._partition = partition
        self._value = value
        self._error = error

    def error(self) -> KafkaError | None:
        return self._error

    def topic(self) -> str:
        return self._partition.topic

    def partition(self) -> int:
        return self._partition.partition

    def offset(self) -> int | None:
        return self._offset

    def key(self) -> None:
        return None

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return TIMESTAMP_CREATE_TIME, self._offset or 0


class CommitResult(NamedTuple):
    """A TopicPartition with an error, which tests cannot give the real one."""

    topic: str
    partition: int
    offset: int
    error: KafkaError | None = None


@dataclass
class FakeBroker:
    """What it has: `logs` by partition, in which None stands for a transaction marker."""

    logs: dict[TopicPartition, list[bytes | None]]
    earliest: dict[TopicPartition, int] = field(default_factory=dict)
    committed: dict[TopicPartition, tuple[int, str]] = field(default_factory=dict)
    """The group's offsets, with their metadata."""

    def high_watermark(self, partition: TopicPartition) -> int:
        return len(self.logs[partition])

    def low_watermark(self, partition: TopicPartition) -> int:
        return self.earliest.get(partition, 0)

    @property
    def offsets(self) -> dict[TopicPartition, int]:
        return {partition: offset for partition, (offset, _) in self.committed.items()}


class FakeConsumer:
    """One client of the group. `events` are run by the next poll or consume, in order."""

    def __init__(self, broker: FakeBroker, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self.events: deque[Callable[[], None]] = deque()
        self.assigned: dict[TopicPartition, int] = {}
        """The partitions that it fetches, and its positions."""
        self.paused: set[TopicPartition] = set()
        self.polls = 0
        self.rejections = 0
        """How many commits are rejected from now on."""
        self.error: KafkaError | None = None
        """Returned by the next poll in place of a message."""
        self.closed = False
        self._broker = broker
        self._reported_ends: dict[TopicPartition, int] = {}
        self._out_of_range: set[TopicPartition] = set()

    # -- called by tests

    def assign(self, *partitions: TopicPartition) -> None:
        self.events.append(lambda: self._on_assign(self, _at(partitions)))

    def revoke(self, *partitions: TopicPartition) -> None:
        self.events.append(lambda: self._on_revoke(self, _at(partitions)))

    def lose(self, *partitions: TopicPartition) -> None:
        self.events.append(lambda: self._on_lost(self, _at(partitions)))

    def report_statistics(self, *, connected: bool = True) -> None:
        """As librdkafka does now and then: the client is in its group, and at the ends of the partitions."""
        topics: dict[str, Any] = {}
        for partition in self._broker.logs:
            topics.setdefault(partition.topic, {"partitions": {}})["partitions"][str(partition.partition)] = {
                "lo_offset": self._broker.low_watermark(partition),
                "ls_offset": self._broker.high_watermark(partition),
            }
        state = "UP" if connected else "DOWN"
        statistics = {
            "brokers": {"broker/1": {"state": state, "nodeid": 1}},
            "topics": topics,
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

    def commit(self, offsets: Sequence[PartitionOffset], *, asynchronous: bool) -> Any:
        results = self.commit_results(offsets)
        if asynchronous:
            self.events.append(lambda: self.settings["on_commit"](None, results))
        return results

    def committed(self, partitions: Sequence[PartitionOffset], *, timeout: float) -> list[PartitionOffset]:
        nothing = (OFFSET_INVALID, "")
        return [_with(p, *self._broker.committed.get(partition_of(p), nothing)) for p in partitions]

    def offsets_for_times(self, partitions: Sequence[PartitionOffset], *, timeout: float) -> list[PartitionOffset]:
        look_up = {OFFSET_BEGINNING: self._broker.low_watermark, OFFSET_END: self._broker.high_watermark}
        return [_with(p, look_up[p.offset](partition_of(p))) for p in partitions]

    def incremental_assign(self, positions: Sequence[PartitionOffset]) -> None:
        for position in positions:
            partition = partition_of(position)
            low = self._broker.low_watermark(partition)
            self.assigned[partition] = low if position.offset < 0 else position.offset
            self._reported_ends.pop(partition, None)
            self._out_of_range.discard(partition)

    def incremental_unassign(self, positions: Sequence[PartitionOffset]) -> None:
        for position in positions:
            self.assigned.pop(partition_of(position), None)

    def pause(self, positions: Sequence[PartitionOffset]) -> None:
        self.paused |= {partition_of(position) for position in positions}

    def resume(self, positions: Sequence[PartitionOffset]) -> None:
        self.paused -= {partition_of(position) for position in positions}

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

    def commit_results(self, offsets: Sequence[PartitionOffset]) -> list[CommitResult]:
        if self.rejections:
            self.rejections -= 1
            error = KafkaError(KafkaError.REBALANCE_IN_PROGRESS)
            return [CommitResult(p.topic, p.partition, p.offset, error) for p in offsets]
        self._broker.committed |= {partition_of(p): (p.offset, p.metadata or "") for p in offsets}
        return [CommitResult(p.topic, p.partition, p.offset) for p in offsets]

    def _next(self, partition: TopicPartition) -> FakeMessage | None:
        """The next message, or event; None where there is nothing to report."""
        position, log = self.assigned[partition], self._broker.logs[partition]
        if not self._broker.low_watermark(partition) <= position <= len(log):
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
    """An admin client that receives this id for each topic (by default none, as from old brokers) or an error."""

    def __init__(self, topic_id: str = NO_ID) -> None:
        self.topic_id = topic_id
        self.operations: Sequence[AclOperation] | None = None
        """The authorized operations on each topic; None as from old brokers."""
        self.error: int | None = None
        self.credentials: tuple[str, str] | None = None

    def set_sasl_credentials(self, username: str, password: str, /) -> None:
        self.credentials = username, password

    def describe_topics(self, topics: TopicCollection, **_options: object) -> Mapping[str, Future[Any]]:
        return {name: self._response() for name in topics.topic_names}

    def _response(self) -> Future[Any]:
        response: Future[Any] = Future()
        if self.error is None:
            response.set_result(_Description(self.topic_id, self.operations))
        else:
            response.set_exception(KafkaException(KafkaError(self.error)))
        return response


class _Description(NamedTuple):
    topic_id: str
    authorized_operations: Sequence[AclOperation] | None


def _at(partitions: Iterable[TopicPartition]) -> list[PartitionOffset]:
    return [PartitionOffset(*partition) for partition in partitions]


def _with(position: PartitionOffset, *offset: Any) -> PartitionOffset:
    """The same partition, with an offset and metadata."""
    return PartitionOffset(position.topic, position.partition, *offset)
