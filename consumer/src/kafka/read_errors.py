"""Errors that Kafka returned in place of messages, for as long as they last."""

from collections.abc import Sequence

from confluent_kafka import KafkaError

from src.kafka.assignment import Assignment
from src.kafka.topic_monitor import UNREADABLE, TopicMonitor
from src.settings import KafkaSettings


class ReadErrors:
    """The client reports a lasting error once. It is kept until a record or the end of the partition arrives, or until
    the topic monitor finds that the topic is readable again. Those of a partition are kept in the assignment.
    """

    def __init__(self, settings: KafkaSettings, assignment: Assignment, topic_monitor: TopicMonitor) -> None:
        self._settings = settings
        self._assignment = assignment
        self._topic_monitor = topic_monitor
        self._client_error: str | None = None
        self._topic_error: str | None = None
        self._topic_unreadable = False

    @property
    def current(self) -> Sequence[str]:
        """Safe to read from any thread."""
        failure = self._topic_monitor.failure
        topic_errors = [failure] if failure else [self._topic_error, *self._assignment.errors]
        return [error for error in dict.fromkeys([self._client_error, *topic_errors]) if error]

    def record(self, error: KafkaError, partition: int) -> None:
        code, text = error.code(), f"topic {self._settings.topic}: {error.str()}"
        if code in UNREADABLE:
            self._topic_unreadable = True
            self._topic_monitor.invalidate()
        if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
            self._client_error = f"group {self._settings.group_id}: {error.str()}"
        elif partition in self._assignment:
            self._assignment[partition].error = text
        elif code in UNREADABLE:
            self._topic_error = text
        else:
            self._client_error = text

    def on_records(self) -> None:
        self._client_error = self._topic_error = None

    def on_assign(self, partitions: Sequence[int]) -> None:
        self._client_error = None
        if partitions:
            self._topic_error = None

    def on_client_replaced(self) -> None:
        self._client_error = None

    def clear_if_readable_again(self) -> None:
        if self._topic_unreadable and self._topic_monitor.readable:
            self._topic_unreadable = False
            self._topic_error = None
            self._assignment.clear_errors(self._assignment.partitions)
