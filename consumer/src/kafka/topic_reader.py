"""Reads topics as they are now, outside of any consumer group; nothing is ever committed."""

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import NamedTuple, Self, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from src.kafka.messages import reason, records_of
from src.kafka.retriable import RETRY_TIMEOUT, retrying
from src.kafka.statistics import ClusterStatistics
from src.model.errors import SourceError
from src.model.position import TopicPartition as Partition
from src.model.record import Record
from src.settings import KafkaSettings
from src.utils.config import ConfigurationError

REQUEST_TIMEOUT = 10.0  # seconds
READ_TIMEOUT = 30.0  # seconds without a message, before the end of the range
BATCH = 5_000


class OffsetRange(NamedTuple):
    """Offsets of one partition, from `first` up to, not including, `end`."""

    first: int
    end: int

    def __bool__(self) -> bool:
        return self.first < self.end


def number_of_offsets(ranges: Mapping[int, OffsetRange]) -> int:
    """At most so many messages are in the ranges."""
    return sum(range_.end - range_.first for range_ in ranges.values() if range_)


class TopicReader:
    """Used by one thread. Raises SourceError where the cluster is unreachable or returns an error."""

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        consumer: Callable[..., Consumer] = Consumer,
        clock: Callable[[], float] = time.monotonic,
        request_timeout: float = REQUEST_TIMEOUT,
        read_timeout: float = READ_TIMEOUT,
        retry_timeout: float = RETRY_TIMEOUT,
    ) -> None:
        self._statistics = ClusterStatistics(settings.servers)
        self._servers = settings.servers
        self._last_error: str | None = None
        self._clock = clock
        self._request_timeout = request_timeout
        self._read_timeout = read_timeout
        self._retry = retrying(retry_timeout)
        try:
            self._consumer = consumer(self._client_settings(settings), logger=logging.getLogger("librdkafka"))
        except (KafkaException, ValueError, TypeError) as error:
            raise ConfigurationError(f"kafka.client: {reason(error)}") from error

    def topics(self, settings: KafkaSettings) -> Sequence[str]:
        """The names of the topics; of a pattern, those that exist. Raises SourceError if there are none."""
        if settings.known_topics:
            return settings.known_topics
        with self._translating():
            existing = self._retry(self._consumer.list_topics, timeout=self._request_timeout).topics
        if topics := sorted(filter(settings.reads, existing)):
            return topics
        raise SourceError(f"no topic at {self._servers} matches {settings.pattern}")

    def partitions(self, topic: str) -> list[int]:
        """Empty if there is no such topic."""
        with self._translating():
            return self._retry(self._partitions, topic)

    def existing_partitions(self, topic: str) -> list[int]:
        """Raises SourceError if there is no such topic."""
        if partitions := self.partitions(topic):
            return partitions
        raise SourceError(f"there is no topic {topic} at {self._servers}")

    def committed(self, topic: str, partitions: Sequence[int]) -> dict[int, int | None]:
        """The group's offsets; None where it has committed none."""
        return self._offsets(self._consumer.committed, [TopicPartition(topic, each) for each in partitions])

    def offsets_at(self, time: float, topic: str, partitions: Sequence[int]) -> dict[int, int | None]:
        """Of the first message at this time, in seconds since 1970, or later; None where there is none."""
        milliseconds = round(time * 1000)
        requested = [TopicPartition(topic, each, milliseconds) for each in partitions]
        return self._offsets(self._consumer.offsets_for_times, requested)

    def offset_ranges(self, topic: str, partitions: Sequence[int]) -> dict[int, OffsetRange]:
        """From the oldest message to the current last stable offset, which precedes open transactions."""
        return {partition: self._offset_range(topic, partition) for partition in partitions}

    def read(self, topic: str, ranges: Mapping[int, OffsetRange]) -> Generator[Record, None, None]:
        """Every message of these ranges, in order within a partition. Messages that arrive meanwhile are not read."""
        with closing(self.read_batches(topic, ranges)) as batches:
            for batch in batches:
                yield from batch

    def read_batches(self, topic: str, ranges: Mapping[int, OffsetRange]) -> Generator[list[Record], None, None]:
        """The same messages, as many at a time as have arrived."""
        partitions = {Partition(topic, partition): 0 for partition in ranges}
        with closing(self._read(topic, ranges)) as batches:
            for batch in batches:
                yield records_of(batch, partitions)

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
            "fetch.wait.max.ms": 100,  # an empty response reports the end of a partition
            **settings.client_settings,
            "group.id": settings.group_id,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "error_cb": self._on_error,
        }

    def _partitions(self, topic: str) -> list[int]:
        """Raises KafkaException, also while the topic has no leaders.

        Requested by name: the list of all topics leaves out those that the user may not describe. A consumer's request
        creates no topic.
        """
        metadata = self._consumer.list_topics(topic, timeout=self._request_timeout).topics[topic]
        if metadata.error is None and any(partition.leader < 0 for partition in metadata.partitions.values()):
            raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
        if metadata.error is not None and metadata.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise KafkaException(metadata.error)
        return sorted(metadata.partitions)

    def _offset_range(self, topic: str, partition: int) -> OffsetRange:
        with self._translating():
            return OffsetRange(
                *self._retry(
                    self._consumer.get_watermark_offsets,
                    TopicPartition(topic, partition),
                    timeout=self._request_timeout,
                )
            )

    def _offsets(
        self, request: Callable[..., list[TopicPartition]], requested: list[TopicPartition]
    ) -> dict[int, int | None]:
        with self._translating():
            responses = self._retry(request, requested, timeout=self._request_timeout)
        for response in responses:
            if response.error:
                raise SourceError(f"no offset for {response.topic}[{response.partition}]: {response.error}")
        return {response.partition: response.offset if response.offset >= 0 else None for response in responses}

    def _end_partitions(self, topic: str, polled: Sequence[Message], unread: dict[int, int]) -> None:
        """Those of which a message beyond the range, or the end-of-partition event, has come."""
        for message in polled:
            error = message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise SourceError(f"Kafka returned an error for {message.topic()}: {error.str()}")
            partition, offset = cast(int, message.partition()), cast(int, message.offset())
            if partition in unread and (
                offset >= unread[partition]
                or (error is not None and self._is_end_of_partition(topic, partition, offset))
            ):
                del unread[partition]
                self._consumer.incremental_unassign([TopicPartition(topic, partition)])

    def _is_end_of_partition(self, topic: str, partition: int, offset: int) -> bool:
        """According to the leader: a follower that lags reports its own end."""
        return offset >= self._offset_range(topic, partition).end

    @contextmanager
    def _assigned(self, positions: list[TopicPartition]) -> Iterator[None]:
        if positions:
            self._consumer.incremental_assign(positions)
        try:
            yield
        finally:
            self._consumer.unassign()

    def _read(self, topic: str, ranges: Mapping[int, OffsetRange]) -> Generator[list[Message], None, None]:
        unread = {partition: range_.end for partition, range_ in ranges.items() if range_}
        with self._assigned([TopicPartition(topic, partition, ranges[partition].first) for partition in unread]):
            while unread:
                polled = self._poll()
                if batch := [message for message in polled if _precedes_end(unread, message)]:
                    yield batch
                if len(batch) < len(polled):
                    self._end_partitions(topic, polled, unread)

    def _poll(self) -> list[Message]:
        """Messages and end-of-partition events; waits for the first."""
        deadline = self._clock() + self._read_timeout
        while (first := self._consumer.poll(1.0)) is None:
            if self._clock() > deadline:
                raise SourceError(
                    self._describe(f"no message for {self._read_timeout:.0f} s before the end of the topic")
                )
        return [first, *self._consumer.consume(BATCH, 0)]

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            self._consumer.poll(0.5)  # the client reports the reason in a callback
            raise SourceError(self._describe(reason(error))) from error

    def _on_error(self, error: KafkaError) -> None:
        if self._last_error is None or error.code() != KafkaError._ALL_BROKERS_DOWN:  # which gives no reason
            self._last_error = self._statistics.record_error(
                error.str(), unresolved=error.code() == KafkaError._RESOLVE
            )

    def _describe(self, symptom: str) -> str:
        return f"broker {self._servers}: {self._last_error or symptom}"


def _precedes_end(ends: Mapping[int, int], message: Message) -> bool:
    """False also for events."""
    return message.error() is None and cast(int, message.offset()) < ends.get(cast(int, message.partition()), 0)
