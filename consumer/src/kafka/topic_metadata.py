"""Whether a topic exists, and what the user may do with it."""

from collections.abc import Iterable, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient, TopicMetadata

_REFUSALS = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)


def topic_metadata(consumer: Consumer, topic: str, timeout: float) -> TopicMetadata | None:
    """None if there is no such topic. Raises KafkaException where the user may not describe it, and while it has no
    leaders.

    The topic is requested by name: of those that the user may not describe, only then is it said. A consumer's request
    does not create it.
    """
    metadata = consumer.list_topics(topic, timeout=timeout).topics[topic]
    if metadata.error is not None and metadata.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        return None
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    if any(partition.leader < 0 for partition in metadata.partitions.values()) or not metadata.partitions:
        raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
    return metadata


def missing_operations(
    admin: AdminClient, topic: str, needed: Sequence[AclOperation], timeout: float
) -> Sequence[AclOperation]:
    """Those that the user is not authorized for; empty where the broker does not list them (before Kafka 2.3)."""
    answers = admin.describe_topics(
        TopicCollection([topic]), include_authorized_operations=True, request_timeout=timeout
    )
    return _missing(answers[topic], needed, timeout)


def missing_group_operations(
    admin: AdminClient, group: str, needed: Sequence[AclOperation], timeout: float
) -> Sequence[AclOperation]:
    """All of them where the user may not even describe the group."""
    answers = admin.describe_consumer_groups([group], include_authorized_operations=True, request_timeout=timeout)
    return _missing(answers[group], needed, timeout)


def missing_cluster_operations(
    admin: AdminClient, needed: Sequence[AclOperation], timeout: float
) -> Sequence[AclOperation]:
    answer = admin.describe_cluster(include_authorized_operations=True, request_timeout=timeout)
    return _missing(answer, needed, timeout)


def _missing(answer: Any, needed: Iterable[AclOperation], timeout: float) -> Sequence[AclOperation]:
    try:
        authorized = answer.result(2 * timeout).authorized_operations
    except TimeoutError:
        return ()
    except KafkaException as error:
        return tuple(needed) if error.args[0].code() in _REFUSALS else ()
    return [operation for operation in needed if authorized and operation not in authorized]
