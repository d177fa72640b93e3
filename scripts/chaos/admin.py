"""What an administrator does to topics and collections in the course of a trial."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import confluent_kafka.admin
import pymongo
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from pymongo.database import Database
from pymongo.errors import PyMongoError
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from chaos.servers import Cluster
from local.errors import CannotRun
from local.plan import Names
from local.progress import make_topics

ANSWER_WITHIN = 15.0  # seconds
SETTLES_WITHIN = 15.0
DATABASE = "pubsub"

Answer = TypeVar("Answer")

_admin: Any = confluent_kafka.admin  # the library does not declare its own re-exports, so to mypy they aren't there


class Administrator:
    """Acts on the trial's own topics and collection, and on nothing else. Raises CannotRun."""

    def __init__(self, cluster: Cluster, names: Names) -> None:
        self._cluster = cluster
        self._names = names
        self._admin = _admin.AdminClient({"bootstrap.servers": cluster.kafka_address, "log_level": 0})

    def make_topics(self, partitions: int) -> None:
        names = self._names
        if self._cluster.embedded:
            self._cluster.embedded.create_topic(names.topic, partitions)
            self._cluster.embedded.create_topic(names.dead_letter_topic, 1)
        else:
            once_settled(make_topics, self._cluster.kafka_address, names.topic, names.dead_letter_topic, partitions)

    def delete_topics(self) -> None:
        if self._cluster.embedded is None:
            for topic in (self._names.topic, self._names.dead_letter_topic):
                self.delete_topic(topic)

    def delete_topic(self, topic: str) -> None:
        _wait(self._admin.delete_topics([topic], operation_timeout=ANSWER_WITHIN), but=KafkaError.UNKNOWN_TOPIC_OR_PART)

    def make_topic(self, topic: str, partitions: int) -> None:
        """Waits for the end of one of that name that is marked for deletion, as ZooKeeper has it."""
        once_settled(lambda: _wait(self._admin.create_topics([_admin.NewTopic(topic, partitions)]), but=None))

    def has_topic(self, topic: str) -> bool:
        try:
            return topic in self._admin.list_topics(timeout=ANSWER_WITHIN).topics
        except KafkaException as error:
            raise CannotRun(f"Kafka does not tell its topics: {error.args[0].str()}") from error

    def add_partitions(self, partitions: int) -> None:
        _wait(self._admin.create_partitions([_admin.NewPartitions(self._names.topic, partitions)]), but=None)

    def expire(self, before: Mapping[int, int]) -> None:
        """As retention would: the partitions begin at these offsets."""
        asked = [TopicPartition(self._names.topic, partition, offset) for partition, offset in before.items()]
        _wait(self._admin.delete_records(asked), but=None)

    def set_largest_letter(self, size: int) -> None:
        """In bytes, for the dead-letter topic."""
        entry = _admin.ConfigEntry("max.message.bytes", str(size), incremental_operation=_admin.AlterConfigOpType.SET)
        topic = _admin.ConfigResource("topic", self._names.dead_letter_topic, incremental_configs=[entry])
        _wait(self._admin.incremental_alter_configs([topic]), but=None)

    def demand_of_documents(self, validator: Mapping[str, Any]) -> None:
        """Have MongoDB refuse what does not fit."""
        with self._database() as database:
            database.create_collection(self._names.collection, validator=validator)

    def drop_collection(self) -> None:
        if self._cluster.mongodb_uri:
            with self._database() as database:
                database.drop_collection(self._names.collection)

    @contextmanager
    def _database(self) -> "Iterator[Database[dict[str, Any]]]":
        try:
            with pymongo.MongoClient[dict[str, Any]](self._cluster.mongodb_uri, timeoutMS=10_000) as client:
                yield client[DATABASE]
        except PyMongoError as error:
            raise CannotRun(f"MongoDB does not do what is needed with {self._names.collection}: {error}") from error


def once_settled(ask: Callable[..., Answer], *arguments: Any, **options: Any) -> Answer:
    """Raises CannotRun; what a cluster has not heard of yet, such as a new topic's leader, is waited out."""
    asking = Retrying(
        retry=retry_if_exception_type(CannotRun),
        wait=wait_fixed(0.2),
        stop=stop_after_delay(SETTLES_WITHIN),
        reraise=True,
    )
    return asking(ask, *arguments, **options)


def _wait(answers: Mapping[Any, Any], *, but: int | None) -> None:
    """Raises CannotRun, unless that is the error."""
    for asked, answer in answers.items():
        try:
            answer.result(2 * ANSWER_WITHIN)
        except KafkaException as error:
            if error.args[0].code() != but:
                raise CannotRun(f"Kafka does not do what is needed with {asked}: {error.args[0].str()}") from error
        except TimeoutError as error:
            raise CannotRun(f"Kafka does not answer about {asked}") from error
