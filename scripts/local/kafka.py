"""The Kafka of a run: the embedded broker behind a throttle, or a real one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from local.broker import RETENTION_BYTES, EmbeddedBroker
from local.connectivity import host_port, kafka_addresses
from local.offsets import OffsetReader, Progress
from local.options import Options
from local.plan import Names
from local.produce_throttle import ProduceThrottle, Window
from local.topics import Topics

UNSETTLED_BYTES = RETENTION_BYTES * 4 // 5  # in total, so that no single partition reaches its limit
REBALANCE_DELAY_MS = 2000  # consumers that start together join at once; a later one stops the group for seconds


class Kafka(Protocol):
    @property
    def address(self) -> str: ...

    def progress(self) -> Progress:
        """Raises CannotRun."""

    def keep_topics(self) -> None:
        """From now on the topics are kept, even if the run fails."""


class RealKafka:
    def __init__(self, address: str, reader: OffsetReader, topics: Topics) -> None:
        self.address = address
        self._reader = reader
        self._topics = topics

    def progress(self) -> Progress:
        return self._reader.read()

    def keep_topics(self) -> None:
        self._topics.keep()


class EmbeddedKafka:
    """Each call of `progress` lets the throttle pass as many bytes as have been settled since the last call."""

    def __init__(self, throttle: ProduceThrottle, window: Window, reader: OffsetReader) -> None:
        self.address = host_port(throttle.address)
        self._throttle = throttle
        self._window = window
        self._reader = reader

    def progress(self) -> Progress:
        answered = self._throttle.answered  # before the offsets are read, so that they cover at least these bytes
        progress = self._reader.read()
        self._window.mark(answered, progress.end)
        self._window.settle(progress.committed)
        self._throttle.allow(self._window.allowed)
        return progress

    def keep_topics(self) -> None:
        """They end with the broker."""


@contextmanager
def kafka(options: Options, names: Names, unsettled_bytes: int = UNSETTLED_BYTES) -> Iterator[Kafka]:
    """The Kafka that the options ask for, with both topics. Raises CannotRun."""
    if options.kafka:
        topics = Topics(options.kafka, names)
        with topics.deleted_on_failure():
            partitions = topics.create(options.partitions)
            reader = OffsetReader(options.kafka, names.topic, names.group, partitions)
            yield RealKafka(options.kafka, reader, topics)
        return
    partitions_of = {names.topic: options.partitions, names.dead_letter_topic: 1}
    window = Window(unsettled_bytes)
    with (
        EmbeddedBroker(partitions_of, rebalance_delay_ms=REBALANCE_DELAY_MS) as broker,
        ProduceThrottle(kafka_addresses(broker.address)[0], names.topic, window.allowed) as throttle,
    ):
        address = host_port(throttle.address)
        yield EmbeddedKafka(throttle, window, OffsetReader(address, names.topic, names.group, options.partitions))
