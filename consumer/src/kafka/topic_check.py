"""Whether a topic exists, and which operations Kafka authorizes: for `--check`."""

import time
from collections.abc import Sequence
from threading import Event
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient, TopicMetadata

from src.kafka.retriable import RETRY_INTERVAL
from src.model.check_result import CheckResult

_AUTHORIZATION_ERRORS = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)


def find_topic(admin: AdminClient, topic: str, timeout: float) -> TopicMetadata | None:
    """None if there is no such topic. Waits up to `timeout` seconds for one that was created a moment ago, and for its
    leaders. Raises KafkaException, also where the user may not describe it.

    All topics are requested: a request for one might create it.
    """
    deadline = time.monotonic() + timeout
    while True:
        metadata = admin.list_topics(timeout=timeout).topics.get(topic)
        found = metadata if metadata is not None and metadata.partitions and metadata.error is None else None
        if found and all(partition.leader >= 0 for partition in found.partitions.values()):
            return found
        if found is None:
            _raise_if_unauthorized(admin, topic, metadata, timeout)
        if time.monotonic() > deadline:
            return found
        Event().wait(RETRY_INTERVAL)


def check_topic_operations(
    name: str, admin: AdminClient, topic: str, needed: Sequence[AclOperation], timeout: float
) -> CheckResult:
    return _check(name, f"topic {topic}", needed, _described(admin, topic, timeout), timeout)


def check_group_operations(admin: AdminClient, group: str, timeout: float) -> CheckResult:
    responses = admin.describe_consumer_groups([group], include_authorized_operations=True, request_timeout=timeout)
    return _check("group permissions", f"group {group}", [AclOperation.READ], responses[group], timeout)


def _described(admin: AdminClient, topic: str, timeout: float) -> Any:
    topics = TopicCollection([topic])
    return admin.describe_topics(topics, include_authorized_operations=True, request_timeout=timeout)[topic]


def _raise_if_unauthorized(admin: AdminClient, topic: str, metadata: TopicMetadata | None, timeout: float) -> None:
    """A topic that the user may not describe is left out of the list of all topics."""
    if metadata is not None and metadata.error is not None and metadata.error.code() in _AUTHORIZATION_ERRORS:
        raise KafkaException(metadata.error)
    try:
        _described(admin, topic, timeout).result(2 * timeout)
    except TimeoutError:
        return
    except KafkaException as error:
        if error.args[0].code() in _AUTHORIZATION_ERRORS:
            raise


def _check(name: str, resource: str, needed: Sequence[AclOperation], response: Any, timeout: float) -> CheckResult:
    try:
        authorized = response.result(2 * timeout).authorized_operations
    except (KafkaException, TimeoutError) as error:
        denied = isinstance(error, KafkaException) and error.args[0].code() in _AUTHORIZATION_ERRORS
        authorized = [AclOperation.ANY] if denied else None
    if not authorized:  # before Kafka 2.3
        return CheckResult(name, True, "the broker does not list authorized operations")
    missing = [operation for operation in needed if operation not in authorized]
    if missing:
        return CheckResult(name, False, f"not authorized for {_names(missing)} on {resource}; add an ACL for the user")
    return CheckResult(name, True, f"{_names(needed)} on {resource}")


def _names(operations: Sequence[AclOperation]) -> str:
    """As kafka-acls writes them."""
    return ", ".join("".join(word.capitalize() for word in operation.name.split("_")) for operation in operations)
