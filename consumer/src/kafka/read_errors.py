"""Errors that Kafka returned in place of messages, for as long as they last."""

from collections.abc import Iterable, Sequence

from confluent_kafka import KafkaError

from src.kafka.assignment import Assignment
from src.kafka.topic_monitor import UNREADABLE, TopicMonitor
from src.model.position import TopicPartition
from src.model.record import Record
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
        self._topic_errors: dict[str, str] = {}
        self._unreadable: set[str] = set()

    @property
    def current(self) -> Sequence[str]:
        """Safe to read from any thread."""
        failures = self._topic_monitor.failures
        topic_errors = {**self._topic_errors, **failures}.values()
        errors = [text for partition, text in self._assignment.errors.items() if partition.topic not in failures]
        return [error for error in dict.fromkeys([self._client_error, *topic_errors, *errors]) if error]

    def record(self, error: KafkaError, partition: TopicPartition) -> None:
        code, topic = error.code(), partition.topic
        text = f"topic {topic}: {error.str()}"
        if code in UNREADABLE:
            self._unreadable.add(topic)
            self._topic_monitor.invalidate(topic)
        if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
            self._client_error = f"group {self._settings.group_id}: {error.str()}"
        elif partition in self._assignment:
            self._assignment[partition].error = text
        elif code in UNREADABLE:
            self._topic_errors = {**self._topic_errors, topic: text}
        else:
            self._client_error = text

    def on_records(self, records: Iterable[Record]) -> None:
        self._client_error = None
        if self._topic_errors:
            self._clear({record.topic for record in records})

    def on_assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Also ends the error of a pattern, in place of a topic: now there are topics that match."""
        self._client_error = None
        if topics := {partition.topic for partition in partitions}:
            self._clear({*topics, self._settings.pattern or ""})

    def on_client_replaced(self) -> None:
        self._client_error = None

    def clear_if_readable_again(self) -> None:
        if readable := self._unreadable.intersection(self._topic_monitor.readable):
            self._unreadable -= readable
            self._clear(readable)
            self._assignment.clear_errors(each for each in self._assignment.partitions if each.topic in readable)

    def _clear(self, topics: set[str]) -> None:
        """Replaced as a whole, because other threads read it."""
        self._topic_errors = {topic: text for topic, text in self._topic_errors.items() if topic not in topics}
