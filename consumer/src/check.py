"""`--check`: are the settings, Kafka and the store as the consumer needs them? A table of answers for people."""

from collections.abc import Callable, Iterator
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import ClusterMetadata

from src.dead_letters.topic import Answer, DeadLetterTopic
from src.kafka.group_member import client_settings
from src.kafka.messages import reason
from src.settings import KafkaSettings, Settings
from src.storage import DataStorage
from src.utils.config import ConfigurationError

TIMEOUT = 5.0  # seconds that a broker may take for an answer


def check(settings: Settings, path: Path, show: Callable[[str], None] = print, timeout: float = TIMEOUT) -> int:
    """Show an answer a line; returns 0, or 2 if anything is wrong. Raises ConfigurationError."""
    answers = [Answer("settings", True, f"valid: {path} and the environment")]
    answers += _ask_kafka(settings.kafka, timeout)
    with DataStorage(settings.mongodb) as storage:
        answers += [Answer(*answer) for answer in storage.check()]
    width = max(len(answer.question) for answer in answers)
    for answer in answers:
        show(f"{'ok  ' if answer.fine else 'FAIL'}  {answer.question:<{width}}  {answer.text}")
    return 0 if all(answer.fine for answer in answers) else 2


def _ask_kafka(settings: KafkaSettings, timeout: float) -> list[Answer]:
    """The dead-letter topic is asked only where a broker answers, so that the whole ends in seconds."""
    answers = list(_brokers(settings, timeout))
    if all(answer.fine for answer in answers):
        dead_letters = DeadLetterTopic(settings)
        answers += dead_letters.check(timeout)
        dead_letters.close()
    return answers


def _brokers(settings: KafkaSettings, timeout: float) -> Iterator[Answer]:
    try:
        consumer = Consumer(client_settings(settings))
    except KafkaException as error:
        raise ConfigurationError(f"kafka.client: {reason(error)}") from error
    try:
        cluster = consumer.list_topics(timeout=timeout)
    except KafkaException as error:
        hint = "" if settings.servers != "kafka:9092" else "; outside docker compose set KAFKA_BOOTSTRAP_SERVERS"
        yield Answer("broker", False, f"{settings.servers} does not answer: {reason(error)}{hint}")
    else:
        yield Answer("broker", True, f"{settings.servers} answers, Kafka tells of {len(cluster.brokers)} broker(s)")
        yield from _topic(consumer, cluster, settings.topic, timeout)
    finally:
        consumer.close()


def _topic(consumer: Consumer, cluster: ClusterMetadata, name: str, timeout: float) -> Iterator[Answer]:
    topic = cluster.topics.get(name)
    if topic is None or topic.error is not None or not topic.partitions:
        yield Answer("topic", False, f"{name} is not there; make it, or set KAFKA_TOPIC")
        return
    yield Answer("topic", True, f"{name} has {len(topic.partitions)} partition(s)")
    yield _leaders(consumer, cluster, name, timeout)


def _leaders(consumer: Consumer, cluster: ClusterMetadata, name: str, timeout: float) -> Answer:
    """Bootstrap servers may answer while the addresses that they hand out can't be reached."""
    for number, partition in cluster.topics[name].partitions.items():
        try:
            consumer.get_watermark_offsets(TopicPartition(name, number), timeout=timeout)
        except KafkaException as error:
            broker = cluster.brokers.get(partition.leader)
            address = f"{broker.host}:{broker.port}" if broker else "no broker"
            text = f"partition {number} is led by {address}, which can't be reached from here: {reason(error)};"
            return Answer("leaders", False, f"{text} see advertised.listeners in the broker's settings")
    return Answer("leaders", True, "every partition's leader answers")
