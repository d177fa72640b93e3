"""`--check`: checks the settings, Kafka and the store."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AclOperation, AdminClient, ClusterMetadata, TopicMetadata

from src.dead_letters.topic import DeadLetterTopic
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
    """The last error that the client has reported by itself: why it cannot connect, where a request only timed out."""

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
    results += _check_kafka(settings.kafka, timeout, admin)
    with DataStorage(settings.mongodb, settings.document) as storage:
        results += storage.check()
    width = max(len(result.name) for result in results)
    for result in results:
        show(f"{result.label:<4}  {result.name:<{width}}  {result.text}")
    return 0 if all(result.ok for result in results) else 2


def _check_kafka(settings: KafkaSettings, timeout: float, new_admin: NewAdmin) -> list[CheckResult]:
    """The dead-letter topic is checked only if the brokers are reachable, so that the check ends within seconds."""
    results = list(_check_cluster(settings, timeout, new_admin))
    if results[0].ok:
        dead_letters = DeadLetterTopic(settings, admin=new_admin)
        results += dead_letters.check(timeout)
        dead_letters.close()
    return results


def _check_cluster(settings: KafkaSettings, timeout: float, new_admin: NewAdmin) -> Iterator[CheckResult]:
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
        yield from _check_topic(consumer, errors, admin, cluster, settings.topic, timeout)
        yield check_group_operations(admin, settings.group_id, timeout)
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
