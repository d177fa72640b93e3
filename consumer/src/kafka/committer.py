"""Commits the offsets of settled records, and processes Kafka's responses."""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as PartitionOffset

from src.kafka.assignment import Assignment
from src.kafka.messages import partition_of
from src.kafka.topic_monitor import UNKNOWN_ID
from src.model.position import TopicPartition
from src.utils.metrics import ConsumerMetrics

logger = logging.getLogger(__name__)


class OffsetCommitter:
    """Commits what the assignment reports as due: asynchronously at intervals, and synchronously before a revocation.

    One asynchronous commit is in flight at a time. The metadata of each offset is the topic's id, by which a recreated
    topic is recognized.
    """

    def __init__(
        self,
        client: Consumer,
        assignment: Assignment,
        metrics: ConsumerMetrics,
        *,
        topic_id: Callable[[str], str | None],
        interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._assignment = assignment
        self._metrics = metrics
        self._topic_id = topic_id
        self._interval = interval
        self._clock = clock
        self._last_commit = clock()
        self._commit_in_flight = False

    def commit_if_due(self) -> None:
        """Does not wait: a later poll passes the response to `on_commit`. A rejected commit stays due."""
        now = self._clock()
        if self._commit_in_flight or now - self._last_commit < self._interval:
            return
        self._last_commit = now
        if due := self._assignment.due():
            self._commit(self._positions(due))

    def commit_soon(self) -> None:
        """Let the next `commit_if_due` commit without waiting for the interval."""
        self._last_commit = self._clock() - self._interval

    def revoke(self, partitions: Collection[TopicPartition]) -> None:
        """Remove these partitions from the assignment, and commit their settled offsets; waits for the response."""
        due = self._assignment.due(partitions)
        positions = self._positions(due)
        self._assignment.revoke(partitions)  # first: nothing more is dead-lettered while waiting
        if not due:
            return
        try:
            committed = self._client.commit(offsets=positions, asynchronous=False)
        except KafkaException as error:
            self._process_response(error.args[0], positions)
        else:
            self._process_response(None, committed)

    def on_commit(self, error: KafkaError | None, positions: Sequence[PartitionOffset]) -> None:
        """The client's callback for asynchronous commits."""
        self._commit_in_flight = False
        self._process_response(error, positions)

    def _commit(self, positions: list[PartitionOffset]) -> None:
        self._commit_in_flight = True
        try:
            self._client.commit(offsets=positions, asynchronous=True)
        except KafkaException as error:
            self.on_commit(error.args[0], positions)

    def _positions(self, offsets: Mapping[TopicPartition, int]) -> list[PartitionOffset]:
        return [PartitionOffset(*each, offset, self._metadata(each)) for each, offset in offsets.items()]

    def _metadata(self, partition: TopicPartition) -> str:
        return self._assignment[partition].topic_id or self._topic_id(partition.topic) or UNKNOWN_ID

    def _process_response(self, error: KafkaError | None, positions: Sequence[PartitionOffset]) -> None:
        if errors := [position.error or error for position in positions if position.error or error]:
            logger.warning("commit rejected, will be retried", extra={"reason": str(errors[0])})
            self._assignment.reject([partition_of(p) for p in positions if p.error or error])
            self._metrics.commits_rejected.inc()
        if confirmed := {partition_of(p): p.offset for p in positions if not (p.error or error)}:
            self._assignment.confirm(confirmed)
            self._metrics.commits_confirmed.inc()
