"""Creates the topics of a run, and deletes them if the run cannot start."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from local.connectivity import connection_error, host_port, require_kafka_reachable
from local.errors import CannotRun
from local.offsets import KAFKA_TIMEOUT, OffsetReader, retry_while_retriable
from local.plan import Names

LEADERS_TIMEOUT = 30.0  # seconds from the creation of a topic until all of its partitions have leaders
DEAD_LETTER_HEADROOM = 64 * 1024  # bytes that a dead letter may be longer than its message
DEAD_LETTER_RETENTION_MS = 30 * 24 * 3600 * 1000


class Topics:
    """The data topic and the dead-letter topic of a run on a Kafka server."""

    def __init__(self, kafka: str, names: Names, admin: Any = None) -> None:
        self._kafka = kafka
        self._names = names
        self._admin = admin or AdminClient({"bootstrap.servers": kafka, "log_level": 0})
        self._created: list[str] = []

    def create(self, partitions: int) -> int:
        """Create the topics that are missing, and wait for their leaders. Raises CannotRun.

        Returns the number of partitions of the data topic, which may have existed before.
        """
        require_kafka_reachable(self._kafka)
        self._require_reachable_brokers()
        topic, dead_letter_topic = self._names.topic, self._names.dead_letter_topic
        self._create(NewTopic(topic, partitions))
        self._wait_for_leaders(topic, partitions)
        self._create(NewTopic(dead_letter_topic, 1, config=self._dead_letter_config()))
        self._wait_for_leaders(dead_letter_topic, 1)
        return len(self._admin.list_topics(topic, timeout=KAFKA_TIMEOUT).topics[topic].partitions)

    def keep(self) -> None:
        """From now on the topics may contain messages: do not delete them."""
        self._created.clear()

    @contextmanager
    def deleted_on_failure(self) -> Iterator[None]:
        """If the block raises CannotRun, delete the topics created so far. Topics that existed before are kept."""
        try:
            yield
        except CannotRun as error:
            if remaining := self._delete_created():
                raise CannotRun(f"{error}; could not delete {', '.join(remaining)}") from error
            raise

    def _require_reachable_brokers(self) -> None:
        """Clients connect to the advertised listeners, whatever address they start with."""
        try:
            brokers = self._admin.list_topics(timeout=KAFKA_TIMEOUT).brokers.values()
        except KafkaException as error:
            raise CannotRun(f"the server at {self._kafka} does not respond as Kafka: {error.args[0].str()}") from error
        for address in [(str(broker.host), int(broker.port)) for broker in brokers]:
            if reason := connection_error(address):
                raise CannotRun(
                    f"Kafka at {self._kafka} advertises {host_port(address)}, which cannot be reached from here"
                    f" ({reason}): check the broker's advertised.listeners"
                )

    def _create(self, topic: Any) -> None:
        try:
            self._admin.create_topics([topic], request_timeout=KAFKA_TIMEOUT)[topic.topic].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise CannotRun(f"cannot create the topic {topic.topic}: {error.args[0].str()}") from error
        else:
            self._created.append(topic.topic)

    def _wait_for_leaders(self, topic: str, partitions: int) -> None:
        """Only the leader of a partition returns its end offset."""
        if topic in self._created:
            OffsetReader(self._kafka, topic, self._names.group, partitions, timeout=LEADERS_TIMEOUT)

    def _dead_letter_config(self) -> dict[str, str]:
        resource = ConfigResource(ResourceType.TOPIC, self._names.topic)

        def read() -> Any:
            return self._admin.describe_configs([resource], request_timeout=KAFKA_TIMEOUT)[resource].result()

        try:
            config = retry_while_retriable(read, LEADERS_TIMEOUT)
        except KafkaException as error:
            raise CannotRun(f"cannot read the settings of {self._names.topic}: {error.args[0].str()}") from error
        return {
            "cleanup.policy": "delete",
            "max.message.bytes": str(int(config["max.message.bytes"].value) + DEAD_LETTER_HEADROOM),
            "retention.ms": str(DEAD_LETTER_RETENTION_MS),
        }

    def _delete_created(self) -> list[str]:
        """The topics that could not be deleted."""
        if not self._created:
            return []
        deletions = self._admin.delete_topics(self._created, operation_timeout=KAFKA_TIMEOUT)
        return [topic for topic, deletion in deletions.items() if deletion.exception() is not None]
