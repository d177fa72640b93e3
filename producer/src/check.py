"""`--check`: checks everything that the producer depends on. Sends nothing; takes at most 25 s.

Creates the undelivered folder where it does not exist: nothing else proves that it can be created.
"""

import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient, TopicDescription, TopicMetadata

from src.kafka.publisher import error_text
from src.kafka.statistics import ClusterStatistics
from src.settings import VARIABLES, KafkaSettings, Settings
from src.undelivered.folder import check_writable
from src.utils.config import ConfigurationError
from src.utils.settings_check import warnings_about

METADATA_TIMEOUT = 5.0  # seconds
RETRY_INTERVAL = 0.2
CONNECT_TIMEOUT = 2.0  # seconds for one advertised address …
CONNECT_ALL_TIMEOUT = 5.0  # … and for all of them

NewAdmin = Callable[[dict[str, Any]], AdminClient]


class CheckResult(NamedTuple):
    """A warning has passed, and is shown as one."""

    subject: str
    passed: bool
    detail: str
    warning: bool = False

    @property
    def label(self) -> str:
        return ("warn" if self.warning else "ok") if self.passed else "FAIL"


def check(
    settings: Settings, file: Path, admin: NewAdmin = AdminClient, environ: Mapping[str, str] | None = None
) -> int:
    """Print a table of results; returns 0 if all checks passed, else 2."""
    warnings = warnings_about(VARIABLES, settings.kafka.client, environ or {})
    results = [
        CheckResult("settings", True, f"{file} and the environment are valid"),
        *(CheckResult("settings", True, text, warning=True) for text in warnings),
        _folder(Path(settings.producer.undelivered_dir)),
        *_kafka(settings.kafka, admin),
    ]
    width = max(len(result.subject) for result in results)
    for result in results:
        print(f"{result.label:<4}  {result.subject:<{width}}  {result.detail}")
    return 0 if all(result.passed for result in results) else 2


def _folder(path: Path) -> CheckResult:
    try:
        check_writable(path)
    except ConfigurationError as error:
        return CheckResult("undelivered folder", False, str(error))
    return CheckResult("undelivered folder", True, f"{path} is writable")


def _kafka(settings: KafkaSettings, admin: NewAdmin) -> Iterator[CheckResult]:
    statistics = ClusterStatistics(settings.servers, settings.topic)

    def on_error(error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # gives no reason
            return
        statistics.record_error(error.str(), unresolved=error.code() == KafkaError._RESOLVE)

    try:
        config = {**settings.client_settings, "error_cb": on_error}
        client = Producer(config, logger=_silent_logger())
    except (KafkaException, ValueError, TypeError) as error:
        yield CheckResult("kafka.client", False, error_text(error))
        return
    try:
        metadata = client.list_topics(timeout=METADATA_TIMEOUT)
    except KafkaException as error:
        statistics.record_error(f"{error_text(error)}; if the brokers require TLS or SASL, set KAFKA_SECURITY_PROTOCOL")
        client.poll(0)  # serves `on_error`: what the client has reported says more
        yield CheckResult("broker", False, statistics.unavailable_reason or "")
        return
    yield CheckResult("broker", True, f"{settings.servers} is reachable")
    yield from _advertised_addresses([(broker.host, broker.port) for broker in metadata.brokers.values()])
    yield from _topic(client, admin({**settings.client_settings, "log_level": 2}), settings.topic)


def _silent_logger() -> logging.Logger:
    """The client's log lines repeat what the table says."""
    silent = logging.getLogger("librdkafka.check")
    silent.setLevel(logging.CRITICAL)
    return silent


def _topic(client: Producer, admin: AdminClient, name: str) -> Iterator[CheckResult]:
    try:
        topic = _find_topic(client, admin, name)
    except KafkaException as error:
        yield CheckResult("topic", False, f"{name}: {error_text(error)}; the user needs an ACL with Write")
        return
    if topic is None:
        yield CheckResult("topic", False, f"{name} does not exist; create it, or set KAFKA_TOPIC")
        return
    yield CheckResult("topic", True, f"{name} has {len(topic.partitions)} partitions")
    yield _write_permission(_description(admin, name), name)
    without_leader = [number for number, partition in topic.partitions.items() if partition.leader < 0]
    yield CheckResult("leaders", not without_leader, f"partitions without leader: {without_leader or 'none'}")


def _find_topic(client: Producer, admin: AdminClient, name: str) -> TopicMetadata | None:
    """None if there is no such topic. Waits a few seconds for one that was created a moment ago, and for its leaders.

    All topics are requested: a request for one might create it. Raises KafkaException.
    """
    deadline = time.monotonic() + METADATA_TIMEOUT
    while True:
        topics: dict[str, TopicMetadata] = client.list_topics(timeout=METADATA_TIMEOUT).topics
        topic = topics.get(name)
        if topic is None or topic.error is not None:  # left out where the user may not describe it
            _raise_if_unauthorized(_description(admin, name))
        elif all(partition.leader >= 0 for partition in topic.partitions.values()):
            return topic
        if time.monotonic() > deadline:
            return topic
        Event().wait(RETRY_INTERVAL)


def _description(admin: AdminClient, name: str) -> Future[TopicDescription]:
    topics = TopicCollection([name])
    responses = admin.describe_topics(topics, include_authorized_operations=True, request_timeout=METADATA_TIMEOUT)
    return responses[name]


def _raise_if_unauthorized(description: Future[TopicDescription]) -> None:
    error = description.exception(2 * METADATA_TIMEOUT)
    if isinstance(error, KafkaException) and error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        raise error


def _write_permission(description: Future[TopicDescription], name: str) -> CheckResult:
    error = description.exception(2 * METADATA_TIMEOUT)
    authorized = None if error else description.result().authorized_operations
    if not authorized:
        return CheckResult("permissions", True, "the broker does not list authorized operations")
    if AclOperation.WRITE in authorized:
        return CheckResult("permissions", True, f"Write on topic {name}")
    return CheckResult("permissions", False, f"not authorized for Write on topic {name}; add an ACL for the user")


def _advertised_addresses(
    addresses: list[tuple[str, int]], clock: Callable[[], float] = time.monotonic
) -> Iterator[CheckResult]:
    """After the bootstrap, clients use the addresses that the brokers advertise."""
    deadline = clock() + CONNECT_ALL_TIMEOUT
    for host, port in addresses:
        timeout = min(CONNECT_TIMEOUT, deadline - clock())
        yield CheckResult("advertised address", *_connection(host, port, timeout))


def _connection(host: str, port: int, timeout: float) -> tuple[bool, str]:
    if timeout <= 0:
        return False, f"{host}:{port} not checked: the time limit was reached"
    try:
        socket.create_connection((host, port), timeout).close()
    except OSError as error:
        return False, (
            f"the broker advertises {host}:{port}, which is unreachable from here"
            f" ({error.strerror or error}); correct the broker's advertised.listeners"
        )
    return True, f"{host}:{port} is reachable"
