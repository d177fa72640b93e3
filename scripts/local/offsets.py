"""The progress of a run by Kafka's own offsets: how many messages are in the topic, and how many are settled."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import TypeVar

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from local.errors import CannotRun

KAFKA_TIMEOUT = 10.0  # seconds
RETRY_INTERVAL = 0.2

COORDINATOR_ERRORS = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
"""A broker returns these for a moment after its start."""

LEADER_ERRORS = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_TOPIC_ID,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
}
"""Brokers return these, and the client derives them from metadata, for a moment after partitions were created."""

RETRIABLE_ERRORS = COORDINATOR_ERRORS | LEADER_ERRORS

_CLIENT = {
    "log_level": 0,
    "reconnect.backoff.max.ms": 1000,
    "metadata.max.age.ms": 3000,  # it would keep asking a dead broker, whose partitions have another leader
    "socket.timeout.ms": 5000,  # likewise a frozen one
}

Offsets = Mapping[int, int]  # partition to offset
Result = TypeVar("Result")


@dataclass(frozen=True)
class Progress:
    """End offsets and committed offsets of each partition; `start` is the end offset when the run began."""

    start: Offsets = field(default_factory=dict)
    end: Offsets = field(default_factory=dict)
    committed: Offsets = field(default_factory=dict)

    @property
    def produced(self) -> int:
        """Messages that were written to the topic during this run."""
        return sum(self.end.values()) - sum(self.start.values())

    @property
    def lag(self) -> int:
        return sum(end - self.committed.get(partition, 0) for partition, end in self.end.items())

    @property
    def settled(self) -> int:
        return max(0, self.produced - self.lag)


class OffsetReader:
    """Reads the offsets of one topic and one group."""

    def __init__(self, kafka: str, topic: str, group: str, partitions: int, *, timeout: float = KAFKA_TIMEOUT) -> None:
        # A consumer, because two calls of the admin client cannot be used: one crashes the process while the
        # coordinator moves (librdkafka issue 5040), one fails for minutes after a broker restart (FENCED_LEADER_EPOCH).
        self._consumer = Consumer({"bootstrap.servers": kafka, "group.id": group, **_CLIENT})
        self._partitions = [TopicPartition(topic, number) for number in range(partitions)]
        self._timeout = timeout
        self._start = self._end_offsets()

    def read(self) -> Progress:
        """The current offsets. The end offsets are read first, so that the lag is never too small. Raises CannotRun."""
        end = self._end_offsets()
        return Progress(self._start, end, self._committed())

    def _end_offsets(self) -> Offsets:
        try:
            return retry_while_retriable(self._read_end_offsets, self._timeout)
        except KafkaException as error:
            raise CannotRun(f"cannot read the end offsets of {self._topic}: {error.args[0].str()}") from error

    def _read_end_offsets(self) -> Offsets:
        ends = [TopicPartition(partition.topic, partition.partition, OFFSET_END) for partition in self._partitions]
        found = self._consumer.offsets_for_times(ends, timeout=self._timeout)
        for partition in found:
            if partition.error:
                raise KafkaException(partition.error)
        return {partition.partition: partition.offset for partition in found}

    def _committed(self) -> Offsets:
        def read() -> list[TopicPartition]:
            return self._consumer.committed(self._partitions, timeout=self._timeout)

        try:
            found = retry_while_retriable(read, self._timeout)
        except KafkaException as error:
            raise CannotRun(f"cannot read the committed offsets of {self._topic}: {error.args[0].str()}") from error
        return {partition.partition: max(0, partition.offset) for partition in found}

    @property
    def _topic(self) -> str:
        return str(self._partitions[0].topic)


def retry_while_retriable(call: Callable[[], Result], timeout: float) -> Result:
    """Call again while Kafka returns an error that passes without intervention. Raises KafkaException."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return call()
        except KafkaException as error:
            if error.args[0].code() not in RETRIABLE_ERRORS or time.monotonic() > deadline:
                raise
        Event().wait(RETRY_INTERVAL)
