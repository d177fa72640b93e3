"""Administrative changes to topics and collections during a trial."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Event
from typing import Any

import pymongo
from confluent_kafka import ElectionType, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
)
from pymongo.database import Database
from pymongo.errors import PyMongoError

from chaos.plan import second_topic
from chaos.servers import Cluster
from local.errors import CannotRun
from local.plan import Names
from local.topics import Topics

TIMEOUT = 15.0  # seconds
RETRY_INTERVAL = 0.2
DATABASE = "pubsub"


class Administrator:
    """Changes the trial's own topics and collection, and nothing else. Every method raises CannotRun."""

    def __init__(self, cluster: Cluster, names: Names) -> None:
        self._cluster = cluster
        self._names = names
        self._admin = AdminClient({"bootstrap.servers": cluster.kafka_address, "log_level": 0})

    def create_topics(self, partitions: int) -> None:
        if self._cluster.embedded:
            self._cluster.embedded.create_topic(self._names.topic, partitions)
            self._cluster.embedded.create_topic(self._names.dead_letter_topic, 1)
            return
        topics = Topics(self._cluster.kafka_address, self._names)
        with topics.deleted_on_failure():
            topics.create(partitions)

    def create_second_topic(self, partitions: int) -> None:
        topic = second_topic(self._names)
        if self._cluster.embedded:
            self._cluster.embedded.create_topic(topic, partitions)
        else:
            self.recreate_topic(topic, partitions)

    def delete_topics(self) -> None:
        if self._cluster.embedded is None:
            topics = [self._names.topic, second_topic(self._names), self._names.dead_letter_topic]
            _wait(self._admin.delete_topics(topics, operation_timeout=TIMEOUT), ignore=KafkaError.UNKNOWN_TOPIC_OR_PART)

    def delete_topic(self, topic: str) -> None:
        """Returns when it is gone."""
        deletion = self._admin.delete_topics([topic], operation_timeout=TIMEOUT)
        _wait(deletion, ignore=KafkaError.UNKNOWN_TOPIC_OR_PART)
        self._retry(lambda: not self._exists(topic), f"Kafka has not deleted {topic}")

    def recreate_topic(self, topic: str, partitions: int) -> None:
        """With ZooKeeper the name stays in use for a while after the deletion."""

        def create() -> bool:
            [creation] = self._admin.create_topics([NewTopic(topic, partitions)]).values()
            return creation.exception(2 * TIMEOUT) is None

        self._retry(create, f"Kafka has not created {topic}")

    def add_partitions(self, partitions: int) -> None:
        _wait(self._admin.create_partitions([NewPartitions(self._names.topic, partitions)]))

    def delete_records(self, before: Mapping[int, int]) -> None:
        """As retention would: afterwards the partitions begin at these offsets."""
        offsets = [TopicPartition(self._names.topic, partition, offset) for partition, offset in before.items()]
        _wait(self._admin.delete_records(offsets))

    def limit_dead_letters(self, size: int) -> None:
        self._configure(self._names.dead_letter_topic, "max.message.bytes", size)

    def acknowledge_single_copies(self) -> None:
        self._configure(self._names.topic, "min.insync.replicas", 1)

    def _configure(self, topic: str, name: str, value: int) -> None:
        entry = ConfigEntry(name, str(value), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource("topic", topic, incremental_configs=[entry])
        _wait(self._admin.incremental_alter_configs([resource]))

    def in_sync(self) -> bool:
        """Whether every replica of every partition of the cluster is in sync."""
        with _metadata_errors():
            topics = self._admin.list_topics(timeout=TIMEOUT).topics.values()
        return all(len(each.isrs) == len(each.replicas) for topic in topics for each in topic.partitions.values())

    def elect_preferred_leaders(self) -> None:
        """Without a timeout: confluent-kafka 2.16 raises SystemError for one."""
        _wait({"the leaders": self._admin.elect_leaders(ElectionType.PREFERRED)})

    def leaders(self) -> dict[int, str]:
        """The address of the leader of each partition of the topic, which may have been created a moment ago."""
        for _ in range(round(TIMEOUT / RETRY_INTERVAL)):
            with _metadata_errors():
                metadata = self._admin.list_topics(self._names.topic, timeout=TIMEOUT)
            brokers = {number: f"{broker.host}:{broker.port}" for number, broker in metadata.brokers.items()}
            partitions = metadata.topics[self._names.topic].partitions
            if partitions and all(partition.leader in brokers for partition in partitions.values()):
                return {number: brokers[partition.leader] for number, partition in partitions.items()}
            Event().wait(RETRY_INTERVAL)
        raise CannotRun(f"{self._names.topic} has partitions without a leader after {TIMEOUT:.0f} s")

    def create_collection(self, validator: Mapping[str, Any]) -> None:
        """MongoDB rejects documents that the validator does not accept."""
        with self._database() as database:
            database.create_collection(self._names.collection, validator=validator)

    def drop_collection(self) -> None:
        if self._cluster.mongodb_uri:
            with self._database() as database:
                for name in {self._names.collection, second_topic(self._names)} & {*database.list_collection_names()}:
                    database.drop_collection(name)

    def _retry(self, succeeds: Callable[[], bool], problem: str) -> None:
        for _ in range(round(TIMEOUT / RETRY_INTERVAL)):
            if succeeds():
                return
            Event().wait(RETRY_INTERVAL)
        raise CannotRun(f"{problem} within {TIMEOUT:.0f} s")

    def _exists(self, topic: str) -> bool:
        with _metadata_errors():
            return topic in self._admin.list_topics(timeout=TIMEOUT).topics

    @contextmanager
    def _database(self) -> "Iterator[Database[dict[str, Any]]]":
        try:
            with pymongo.MongoClient[dict[str, Any]](self._cluster.mongodb_uri, timeoutMS=10_000) as client:
                yield client[DATABASE]
        except PyMongoError as error:
            raise CannotRun(f"cannot change the collection {self._names.collection}: {error}") from error


@contextmanager
def _metadata_errors() -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise CannotRun(f"cannot list the topics: {error.args[0].str()}") from error


def _wait(results: Mapping[Any, Any], *, ignore: int | None = None) -> None:
    """Raises CannotRun, unless Kafka returns the error to ignore."""
    for resource, result in results.items():
        try:
            result.result(2 * TIMEOUT)
        except KafkaException as error:
            if error.args[0].code() != ignore:
                raise CannotRun(f"cannot change {resource}: {error.args[0].str()}") from error
        except TimeoutError as error:
            raise CannotRun(f"cannot change {resource}: Kafka does not respond") from error
