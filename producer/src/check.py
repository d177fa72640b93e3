"""`--check`: checks everything that the producer depends on. Sends nothing; takes at most 15 s.

Creates the undelivered folder where it does not exist: nothing else proves that it can be created.
"""

import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from src.kafka.publisher import error_text
from src.kafka.statistics import ClusterStatistics
from src.settings import KafkaSettings, Settings
from src.undelivered.folder import check_writable
from src.utils.config import ConfigurationError

METADATA_TIMEOUT = 5.0  # seconds
CONNECT_TIMEOUT = 2.0  # seconds for one advertised address …
CONNECT_ALL_TIMEOUT = 5.0  # … and for all of them


class CheckResult(NamedTuple):
    subject: str
    passed: bool
    detail: str


def check(settings: Settings, file: Path) -> int:
    """Print a table of results; returns 0 if all checks passed, else 2."""
    results = [
        CheckResult("settings", True, f"{file} and the environment are valid"),
        _folder(Path(settings.producer.undelivered_dir)),
        *_kafka(settings.kafka),
    ]
    width = max(len(result.subject) for result in results)
    for subject, passed, detail in results:
        print(f"{'ok  ' if passed else 'FAIL'}  {subject:<{width}}  {detail}")
    return 0 if all(result.passed for result in results) else 2


def _folder(path: Path) -> CheckResult:
    try:
        check_writable(path)
    except ConfigurationError as error:
        return CheckResult("undelivered folder", False, str(error))
    return CheckResult("undelivered folder", True, f"{path} is writable")


def _kafka(settings: KafkaSettings) -> Iterator[CheckResult]:
    statistics = ClusterStatistics(settings.servers)

    def on_error(error: KafkaError) -> None:
        statistics.record_error(error.str(), unresolved=error.code() == KafkaError._RESOLVE)

    try:
        config = {**settings.client_settings, "error_cb": on_error}
        client = Producer(config, logger=_silent_logger())
    except (KafkaException, ValueError, TypeError) as error:
        yield CheckResult("kafka.client", False, error_text(error))
        return
    try:
        metadata = client.list_topics(timeout=METADATA_TIMEOUT)
    except KafkaException:
        client.poll(0)
        yield CheckResult("broker", False, statistics.unavailable_reason or "")
        return
    yield CheckResult("broker", True, f"{settings.servers} is reachable")
    yield from _advertised_addresses([(broker.host, broker.port) for broker in metadata.brokers.values()])
    yield _topic(settings.topic, {name: len(topic.partitions) for name, topic in metadata.topics.items()})


def _silent_logger() -> logging.Logger:
    """The client's log lines repeat what the table says."""
    silent = logging.getLogger("librdkafka.check")
    silent.setLevel(logging.CRITICAL)
    return silent


def _topic(name: str, partitions: dict[str, int]) -> CheckResult:
    if name not in partitions:
        return CheckResult("topic", False, f"{name} does not exist; create it, or set KAFKA_TOPIC")
    return CheckResult("topic", True, f"{name} has {partitions[name]} partitions")


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
