"""Commits the offsets of settled records, and takes Kafka's answers."""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from src.kafka.assignment import Assignment
from src.utils.metrics import ConsumerMetrics

logger = logging.getLogger(__name__)


class OffsetCommitter:
    """One asynchronous commit at a time, by time; a synchronous one before a partition is revoked.

    What is committed is what the assignment says is due. Beside each offset stands the topic's id, so that a recreated
    topic is recognised.
    """

    def __init__(
        self,
        client: Consumer,
        assignment: Assignment,
        metrics: ConsumerMetrics,
        *,
        topic: str,
        topic_id: Callable[[], str | None],
        interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._assignment = assignment
        self._metrics = metrics
        self._topic = topic
        self._topic_id = topic_id
        self._interval = interval
        self._clock = clock
        self._last_commit = clock()
        self._unanswered = False

    def commit_if_due(self) -> None:
        """Does not wait; the answer comes to `on_commit` in a later poll. A commit that is rejected stays due."""
        now = self._clock()
        if self._unanswered or now - self._last_commit < self._interval:
            return
        self._last_commit = now
        if due := self._assignment.due():
            self._commit(self._positions(due))

    def commit_soon(self) -> None:
        """The next `commit_if_due` does not wait for the interval."""
        self._last_commit = self._clock() - self._interval

    def revoke(self, partitions: Collection[int]) -> None:
        """Give these partitions up, and commit what is settled of them; waits for the answer."""
        due = self._assignment.due(partitions)
        positions = self._positions(due)
        self._assignment.revoke(partitions)  # first, as the answer may take seconds: nothing more is dead-lettered
        if not due:
            return
        try:
            answers = self._client.commit(offsets=positions, asynchronous=False)
        except KafkaException as error:
            self._take_answer(error.args[0], positions)
        else:
            self._take_answer(None, answers)

    def on_commit(self, error: KafkaError | None, positions: Sequence[TopicPartition]) -> None:
        """The client's callback for asynchronous commits."""
        self._unanswered = False
        self._take_answer(error, positions)

    def _commit(self, positions: list[TopicPartition]) -> None:
        self._unanswered = True
        try:
            self._client.commit(offsets=positions, asynchronous=True)
        except KafkaException as error:
            self.on_commit(error.args[0], positions)

    def _positions(self, offsets: Mapping[int, int]) -> list[TopicPartition]:
        current = self._topic_id() or ""
        return [
            TopicPartition(self._topic, partition, offset, self._assignment[partition].topic_id or current)
            for partition, offset in offsets.items()
        ]

    def _take_answer(self, error: KafkaError | None, positions: Sequence[TopicPartition]) -> None:
        if errors := [position.error or error for position in positions if position.error or error]:
            logger.warning("commit rejected, will be retried", extra={"reason": str(errors[0])})
            self._assignment.reject([p.partition for p in positions if p.error or error])
            self._metrics.commits_refused.inc()
        if confirmed := {p.partition: p.offset for p in positions if not (p.error or error)}:
            self._assignment.confirm(confirmed)
            self._metrics.commits_confirmed.inc()
