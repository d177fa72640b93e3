"""`--check`: checks the settings, Kafka and the store."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AclOperation, AdminClient, ClusterMetadata, TopicMetadata

from src.data_processor import processor_for
from src.dead_letters.topic import DeadLetterTopic
from src.kafka.group_protocol_check import check_group_protocol
from src.kafka.member_settings import member_settings
from src.kafka.messages import reason
from src.kafka.retriable import retrying
from src.kafka.topic_check import check_group_operations, check_topic_operations, find_topic
from src.model.check_result import CheckResult
from src.settings import VARIABLES, KafkaSettings, Settings
from src.storage import DataStorage
from src.utils.config import ConfigurationError
from src.utils.settings_check import warnings_about

TIMEOUT = 5.0  # seconds for each request to a broker, and for the leaders of a topic that was created a moment ago

NewAdmin = Callable[[dict[str, Any]], AdminClient]


class ClientErrors:
    """The last error that the client has reported: why it cannot connect, where a request only timed out."""

    def __init__(self) -> None:
        self._last: str | None = None

    def record(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # which gives no reason
            self._last = error.str()

    def explain(self, client: Consumer, failure: KafkaException) -> str:
        client.poll(0)  # serves `record`
        return self._last or f"{reason(failure)}; if the brokers require TLS or SASL, set KAFKA_SECURITY_PROTOCOL"


def check(
    settings: Settings,
    path: Path,
    show: Callable[[str], None] = print,
    timeout: float = TIMEOUT,
    admin: NewAdmin = AdminClient,
    environ: Mapping[str, str] | None = None,
) -> int:
    """Show one result per line; returns 0, or 2 if a check failed. Raises ConfigurationError."""
    results = [CheckResult("settings", True, f"valid: {path} and the environment")]
    warnings = warnings_about(VARIABLES, settings.kafka.client, environ or {})
    results += [CheckResult("settings", True, text, warning=True) for text in warnings]
    processor = processor_for(settings)  # imports the transform
    if settings.document.transform:
        results.append(CheckResult("transform", True, f"{settings.document.transform} can be imported"))
    if processor.schema_registry:
        results.append(processor.schema_registry.check())
    topics = list(settings.kafka.known_topics)
    results += _check_kafka(settings.kafka, topics, timeout, admin)
    results += _check_store(settings, topics)
    width = max(len(result.name) for result in results)
    for result in results:
        show(f"{result.label:<4}  {result.name:<{width}}  {result.text}")
    return 0 if all(result.ok for result in results) else 2


def _check_kafka(settings: KafkaSettings, topics: list[str], timeout: float, new_admin: NewAdmin) -> list[CheckResult]:
    """Adds those that match the pattern to the topics. The dead-letter topic is checked only if the brokers are
    reachable, so that the check ends within seconds.
    """
    results = list(_check_cluster(settings, topics, timeout, new_admin))
    if results[0].ok:
        dead_letters = DeadLetterTopic(settings, admin=new_admin)
        results += dead_letters.check(topics, timeout)
        dead_letters.close()
    return results


def _check_cluster(
    settings: KafkaSettings, topics: list[str], timeout: float, new_admin: NewAdmin
) -> Iterator[CheckResult]:
    errors = ClientErrors()
    try:
        consumer = Consumer({**member_settings(settings), "error_cb": errors.record})
    except KafkaException as error:
        raise ConfigurationError(f"kafka.client: {reason(error)}") from error
    try:
        cluster = consumer.list_topics(timeout=timeout)
    except KafkaException as error:
        hint = "" if settings.servers != "kafka:9092" else "; outside docker compose set KAFKA_BOOTSTRAP_SERVERS"
        yield CheckResult(
            "broker", False, f"{settings.servers} is unreachable: {errors.explain(consumer, error)}{hint}"
        )
    else:
        yield CheckResult(
            "broker", True, f"{settings.servers} is reachable, the cluster has {len(cluster.brokers)} broker(s)"
        )
        admin = new_admin({**settings.client_settings, "log_level": 2})  # its errors are in the results
        if settings.pattern:
            topics += sorted(filter(settings.reads, cluster.topics))
        if not topics:
            yield CheckResult("topic", False, f"no topic matches {settings.pattern}; create one, or set KAFKA_TOPICS")
        for topic in topics:
            yield from _check_topic(consumer, errors, admin, cluster, topic, timeout)
        yield check_group_operations(admin, settings.group_id, timeout)
        if settings.group_protocol == "consumer":
            yield check_group_protocol(admin, settings.group_id, timeout)
    finally:
        consumer.close()


def _check_topic(
    consumer: Consumer, errors: ClientErrors, admin: AdminClient, cluster: ClusterMetadata, name: str, timeout: float
) -> Iterator[CheckResult]:
    try:
        topic = find_topic(admin, name, timeout)
    except KafkaException as error:
        yield CheckResult("topic", False, f"{name}: {reason(error)}; the user needs an ACL with Read")
        return
    if topic is None:
        yield CheckResult("topic", False, f"{name} does not exist; create it, or set KAFKA_TOPIC")
        return
    yield CheckResult("topic", True, f"{name} has {len(topic.partitions)} partition(s)")
    permissions = check_topic_operations("topic permissions", admin, name, [AclOperation.READ], timeout)
    yield permissions
    if permissions.ok:
        yield _check_leaders(consumer, errors, cluster, name, topic, timeout)


def _check_leaders(
    consumer: Consumer, errors: ClientErrors, cluster: ClusterMetadata, name: str, topic: TopicMetadata, timeout: float
) -> CheckResult:
    """Bootstrap servers may be reachable while the addresses that they advertise are not."""
    for number, partition in topic.partitions.items():
        position = TopicPartition(name, number)
        try:
            retrying(timeout)(consumer.get_watermark_offsets, position, timeout=timeout)
        except KafkaException as error:
            broker = cluster.brokers.get(partition.leader)
            address = f"{broker.host}:{broker.port}" if broker else "no broker"
            cause = errors.explain(consumer, error)
            text = f"the leader of partition {number}, {address}, is unreachable from here: {cause};"
            return CheckResult("leaders", False, f"{text} check advertised.listeners of the broker")
    return CheckResult("leaders", True, "the leaders of all partitions are reachable")


def _check_store(settings: Settings, topics: Sequence[str]) -> list[CheckResult]:
    """Of every collection; what is true for all of them is said once. Ends with the first that is unavailable."""
    if not topics:
        with DataStorage(settings.mongodb, settings.document) as storage:
            return storage.check()[:1]  # whether it is reachable
    collections = {settings.mongodb.collection_of(topic): topic for topic in reversed(topics)}
    found: dict[CheckResult, list[str]] = {}
    for name, topic in collections.items():
        of_topic = settings.of_topic(topic)
        with DataStorage(of_topic.mongodb, of_topic.document) as storage:
            results = storage.check()
        for result in results:
            found.setdefault(result, []).append(name)
        if not results[0].ok:
            return results
    return [
        result if len(names) == len(collections) else result._replace(text=f"{result.text} ({', '.join(names)})")
        for result, names in found.items()
    ]
