"""The Kafka of the bench, and topics that are filled once for all contenders."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from bench.producers import produce
from local.broker import EmbeddedBroker
from local.errors import CannotRun
from local.offsets import KAFKA_TIMEOUT
from local.plan import Names, timestamp
from local.topics import Topics

PARTITIONS = 6
REBALANCE_DELAY_MS = 5000  # of the embedded broker: replicas join at once, even if one starts later


class Kafka:
    """Topics have names of their own. On a real server they are deleted when the bench ends."""

    def __init__(self, address: str, broker: EmbeddedBroker | None, folder: Path) -> None:
        self.address = address
        self.embedded = broker is not None
        self._broker = broker
        self._folder = folder
        self._prefix = f"bench-{timestamp()}"
        self._topics: list[Names] = []
        self._filled: dict[tuple[int, int, int], str] = {}

    def expect_members(self, count: int) -> None:
        """Consumers of a group that are about to start. Kafka's own delay is 3 s, whatever their number."""
        if self._broker:
            self._broker.delay_rebalances(REBALANCE_DELAY_MS if count > 1 else 0)

    def create_topic(self, partitions: int = PARTITIONS) -> str:
        """An empty topic and its dead-letter topic. Raises CannotRun."""
        name = f"{self._prefix}-{len(self._topics) + 1}"
        names = Names(name, name, name)
        self._topics.append(names)
        if self._broker:
            self._broker.create_topic(names.topic, partitions)
            self._broker.create_topic(names.dead_letter_topic, 1)
        else:
            Topics(self.address, names).create(partitions)
        return name

    def filled(self, messages: int, *, partitions: int = PARTITIONS, padding: int = 0) -> str:
        """A topic with this number of messages, as our producer sends them. Raises CannotRun.

        With `padding` each has a further field of this size.
        """
        wanted = messages, partitions, padding
        if wanted not in self._filled:
            topic = self.create_topic(partitions)
            _require_success(produce(self.address, topic, messages, self._folder / f"fill-{topic}", padding))
            self._require_all(topic, messages, partitions)
            self._filled[wanted] = topic
        return self._filled[wanted]

    def delete_topics(self) -> None:
        if self._topics and not self.embedded:
            admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
            names = [topic for each in self._topics for topic in (each.topic, each.dead_letter_topic)]
            for deletion in admin.delete_topics(names, operation_timeout=KAFKA_TIMEOUT).values():
                deletion.exception(2 * KAFKA_TIMEOUT)

    def _require_all(self, topic: str, messages: int, count: int) -> None:
        """The embedded broker silently drops what is too much for it."""
        reader = Consumer({"bootstrap.servers": self.address, "group.id": topic, "log_level": 0})
        partitions = [TopicPartition(topic, number) for number in range(count)]
        ranges = [reader.get_watermark_offsets(partition, timeout=KAFKA_TIMEOUT) for partition in partitions]
        reader.close()
        found = sum(high - low for low, high in filter(None, ranges))
        if found < messages:
            raise CannotRun(
                f"only {found:,} of {messages:,} messages are in the topic: the embedded broker keeps 5 MiB per"
                " partition; use fewer --messages, or a real --kafka"
            )


def _require_success(done: CompletedProcess[str]) -> None:
    if done.returncode:
        raise CannotRun(f"the producer failed: {(done.stderr or done.stdout).strip()[-500:]}")


@contextmanager
def kafka(address: str | None, folder: Path) -> Iterator[Kafka]:
    """A real one at this address, or the embedded broker."""
    if address:
        found = Kafka(address, None, folder)
        try:
            yield found
        finally:
            found.delete_topics()
        return
    with EmbeddedBroker({}) as broker:
        yield Kafka(broker.address, broker, folder)
