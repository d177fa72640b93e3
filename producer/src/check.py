"""`--check`: is everything there that the producer needs? Sends nothing, takes 15 s at most.

It makes the undelivered folder where there is none: only so it is known that it can be made.
"""

import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from src.kafka.publisher import text_of
from src.kafka.statistics import ClusterStatistics
from src.settings import KafkaSettings, Settings
from src.undelivered.segments import prove_writable
from src.utils.config import ConfigurationError

METADATA_TIMEOUT = 5.0  # seconds
CONNECT_TIMEOUT = 2.0  # seconds for one advertised address …
CONNECT_ALL = 5.0  # … and for all of them


class Finding(NamedTuple):
    what: str
    good: bool
    text: str


def check(settings: Settings, file: Path) -> int:
    """Print a table of what was found; 0 if all is well, else 2."""
    findings = [
        Finding("settings", True, f"{file} and the environment are valid"),
        _folder(Path(settings.producer.undelivered_dir)),
        *_kafka(settings.kafka),
    ]
    width = max(len(finding.what) for finding in findings)
    for what, good, text in findings:
        print(f"{'ok  ' if good else 'FAIL'}  {what:<{width}}  {text}")
    return 0 if all(finding.good for finding in findings) else 2


def _folder(path: Path) -> Finding:
    try:
        prove_writable(path)
    except ConfigurationError as error:
        return Finding("undelivered folder", False, str(error))
    return Finding("undelivered folder", True, f"{path} is writable")


def _kafka(settings: KafkaSettings) -> Iterator[Finding]:
    view = ClusterStatistics(settings.servers)

    def on_error(error: KafkaError) -> None:
        view.complain(error.str(), unresolved=error.code() == KafkaError._RESOLVE)

    try:
        config = {**settings.client_settings, "error_cb": on_error}
        client = Producer(config, logger=_quiet())
    except (KafkaException, ValueError, TypeError) as error:
        yield Finding("kafka.client", False, text_of(error))
        return
    try:
        metadata = client.list_topics(timeout=METADATA_TIMEOUT)
    except KafkaException:
        client.poll(0)
        yield Finding("broker", False, view.trouble or "")
        return
    yield Finding("broker", True, f"{settings.servers} answers")
    yield from _advertised([(broker.host, broker.port) for broker in metadata.brokers.values()])
    yield _topic(settings.topic, {name: len(topic.partitions) for name, topic in metadata.topics.items()})


def _quiet() -> logging.Logger:
    """For the client's own lines: the table says what is in them."""
    quiet = logging.getLogger("librdkafka.check")
    quiet.setLevel(logging.CRITICAL)
    return quiet


def _topic(name: str, partitions: dict[str, int]) -> Finding:
    if name not in partitions:
        return Finding("topic", False, f"{name} is not there: create it, or set KAFKA_TOPIC")
    return Finding("topic", True, f"{name} has {partitions[name]} partitions")


def _advertised(addresses: list[tuple[str, int]], clock: Callable[[], float] = time.monotonic) -> Iterator[Finding]:
    """The bootstrap address only tells where to go on: from there clients use what the brokers advertise."""
    deadline = clock() + CONNECT_ALL
    for host, port in addresses:
        timeout = min(CONNECT_TIMEOUT, deadline - clock())
        yield Finding("advertised address", *_connection(host, port, timeout))


def _connection(host: str, port: int, timeout: float) -> tuple[bool, str]:
    if timeout <= 0:
        return False, f"{host}:{port} not tried, the others took too long"
    try:
        socket.create_connection((host, port), timeout).close()
    except OSError as error:
        return False, (
            f"the broker sends clients to {host}:{port}, which can't be reached from here"
            f" ({error.strerror or error}): change advertised.listeners of the broker"
        )
    return True, f"{host}:{port} can be reached"
