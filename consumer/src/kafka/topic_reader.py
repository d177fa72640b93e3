"""A topic as it is now, read from outside: no member of any group, and nothing is ever committed."""

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Self, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from src.kafka.messages import reason, record_of
from src.kafka.statistics import ClusterStatistics
from src.model.errors import SourceError
from src.model.record import Record
from src.settings import KafkaSettings
from src.utils.config import ConfigurationError

ANSWER_TIMEOUT = 10.0  # seconds for one question to the cluster
PATIENCE = 30.0  # seconds without a message, while some are still to come
BATCH = 5_000
COORDINATOR_MOVES = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
"""What is answered for a moment after a broker's start, and while the group goes from one broker to another."""


class OffsetRange(NamedTuple):
    """Offsets of one partition, from the first up to the end, which is not among them."""

    first: int
    end: int

    def __bool__(self) -> bool:
        return self.first < self.end


class TopicReader:
    """Tells what a cluster's topics hold at this moment. Raises SourceError where the cluster does not answer."""

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        consumer: Callable[..., Consumer] = Consumer,
        clock: Callable[[], float] = time.monotonic,
        timeout: float = ANSWER_TIMEOUT,
        patience: float = PATIENCE,
    ) -> None:
        self._view = ClusterStatistics(settings.servers, settings.topic)
        self._servers = settings.servers
        self._complaint: str | None = None
        self._clock = clock
        self._timeout = timeout
        self._patience = patience
        self._settled_group = Retrying(
            retry=retry_if_exception(_coordinator_moves),
            wait=wait_fixed(0.2),
            stop=stop_after_delay(patience),
            reraise=True,
        )
        try:
            self._consumer = consumer(self._client_settings(settings), logger=logging.getLogger("librdkafka"))
        except (KafkaException, ValueError, TypeError) as error:
            raise ConfigurationError(f"kafka.client: {reason(error)}") from error

    def partitions(self, topic: str) -> list[int]:
        """Empty where there is no such topic. All topics are asked for: asking for one might make it."""
        with self._translating():
            topics = self._consumer.list_topics(timeout=self._timeout).topics
        return sorted(topics[topic].partitions) if topic in topics else []

    def committed(self, topic: str, partitions: Sequence[int]) -> dict[int, int | None]:
        """The group's offsets; None where it has committed none."""
        asked = [TopicPartition(topic, partition) for partition in partitions]
        with self._translating():
            answers = self._settled_group(self._consumer.committed, asked, timeout=self._timeout)
        for answer in answers:
            if answer.error:
                raise SourceError(f"the committed offset of {topic}[{answer.partition}] is not told: {answer.error}")
        return {answer.partition: answer.offset if answer.offset >= 0 else None for answer in answers}

    def spans(self, topic: str, partitions: Sequence[int]) -> dict[int, OffsetRange]:
        """From the oldest message that is left to the end, as they are now; open transactions lie past the end."""
        return {partition: self._span(topic, partition) for partition in partitions}

    def read(self, topic: str, spans: Mapping[int, OffsetRange]) -> Generator[Record, None, None]:
        """Every message of these spans, in order within a partition. What arrives meanwhile is left alone."""
        unread = {partition: span.end for partition, span in spans.items() if span}
        with self._assigned([TopicPartition(topic, partition, spans[partition].first) for partition in unread]):
            while unread:
                for message in self._arrived():
                    partition, offset = cast(int, message.partition()), cast(int, message.offset())
                    if partition not in unread:
                        continue
                    if message.error() is None and offset < unread[partition]:
                        yield record_of(message)
                    elif offset >= unread[partition] or self._is_the_end(topic, partition, offset):
                        del unread[partition]
                        self._consumer.incremental_unassign([TopicPartition(topic, partition)])

    def close(self) -> None:
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _client_settings(self, settings: KafkaSettings) -> dict[str, object]:
        return {
            "socket.timeout.ms": 10_000,
            "queued.max.messages.kbytes": 32_768,
            "fetch.wait.max.ms": 100,  # the end of a partition is told by an empty answer
            **settings.client_settings,
            "group.id": settings.group_id,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "error_cb": self._on_error,
        }

    def _span(self, topic: str, partition: int) -> OffsetRange:
        with self._translating():
            return OffsetRange(
                *self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=self._timeout)
            )

    def _is_the_end(self, topic: str, partition: int, offset: int) -> bool:
        """As the partition's leader tells it: a replica that lags says so of its own end."""
        return offset >= self._span(topic, partition).end

    @contextmanager
    def _assigned(self, positions: list[TopicPartition]) -> Iterator[None]:
        if positions:
            self._consumer.incremental_assign(positions)
        try:
            yield
        finally:
            self._consumer.unassign()

    def _arrived(self) -> Iterator[Message]:
        """Messages, and the ends of partitions; waits for the first."""
        deadline = self._clock() + self._patience
        while (first := self._consumer.poll(1.0)) is None:
            if self._clock() > deadline:
                raise SourceError(self._trouble(f"no message for {self._patience:.0f} s, while some are still to come"))
        for message in (first, *self._consumer.consume(BATCH, 0)):
            error = message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise SourceError(f"Kafka refuses {message.topic()}: {error.str()}")
            yield message

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            self._consumer.poll(0.5)  # lets the client say why
            raise SourceError(self._trouble(reason(error))) from error

    def _on_error(self, error: KafkaError) -> None:
        if self._complaint is None or error.code() != KafkaError._ALL_BROKERS_DOWN:  # which gives no reason
            self._complaint = self._view.complain(error.str(), unresolved=error.code() == KafkaError._RESOLVE)

    def _trouble(self, symptom: str) -> str:
        return f"broker {self._servers}: {self._complaint or symptom}"


def _coordinator_moves(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() in COORDINATOR_MOVES
