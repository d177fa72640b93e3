"""A member of a Kafka consumer group: polls for records, and keeps the assignment up to date.

Every call on the client is made by the thread that polls; rebalance callbacks run inside `poll` and `close`.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Any, NamedTuple, Self, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as PartitionOffset
from confluent_kafka.admin import AdminClient

from src.kafka.assignment import Assignment, OutOfRange
from src.kafka.committer import OffsetCommitter
from src.kafka.fetcher import Fetcher
from src.kafka.lag import LOOKUP_INTERVAL, LagMonitor
from src.kafka.member_settings import member_settings, subscription
from src.kafka.membership import CLOSE_TIMEOUT, MembershipWatchdog, close_in_background
from src.kafka.message_headers import check_client
from src.kafka.messages import event_partition, partition_of, reason, records_of
from src.kafka.offset_reset import OffsetReset
from src.kafka.read_errors import ReadErrors
from src.kafka.sasl import SaslCredentials
from src.kafka.statistics import ClusterStatistics
from src.kafka.topic_monitor import TopicMonitor
from src.model.errors import ConsumerError, SourceError
from src.model.position import TopicPartition
from src.model.record import Record
from src.settings import ConsumerSettings, KafkaSettings
from src.utils.config import ConfigurationError
from src.utils.metrics import ConsumerMetrics

logger = logging.getLogger(__name__)

LAG_INTERVAL = 1.0  # seconds between two updates of the lag

_REBALANCES = 2  # a client that is outside its group may still rejoin within this many rebalances
_MAX_ABANDONED = 3  # clients that did not close in time; instead of abandoning another, the process exits
_UNREADABLE = (KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError._NOT_IMPLEMENTED)
_UNREACHABLE = (KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT)


class Timing(NamedTuple):
    """In seconds."""

    statistics_interval: float = 2.0
    lookup_interval: float = LOOKUP_INTERVAL
    close_timeout: float = CLOSE_TIMEOUT
    joining_timeout: float = 15.0
    """After which it is logged, again and again, that the member waits to join the group."""


DEFAULT_TIMING = Timing()


def _nothing() -> None:
    pass


class GroupMember:
    """Reads the topics as a member of the group. Commits only what the assignment reports as due."""

    def __init__(
        self,
        kafka: KafkaSettings,
        consumer: ConsumerSettings,
        metrics: ConsumerMetrics,
        *,
        assignment: Assignment | None = None,
        clock: Callable[[], float] = time.monotonic,
        client: Callable[..., Consumer] = Consumer,
        admin: Callable[[dict[str, Any]], AdminClient] = AdminClient,
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        check_client()
        self.assignment = assignment or Assignment()
        self._kafka = kafka
        self._consumer = consumer
        self._metrics = metrics
        self._clock = clock
        self._new_client = client
        self._timing = timing
        self._credentials = SaslCredentials(kafka)
        self._before_revoke: Callable[[], None] = _nothing
        self._abandoned: list[Thread] = []
        self._paused = False
        self._failure: Exception | None = None
        self._last_lag = clock() - LAG_INTERVAL
        try:
            # its errors are not logged: the consumer client reports them too
            self._topic_monitor = TopicMonitor(
                lambda: admin({**kafka.client_settings, "log_level": 2}), self._monitored_topics, clock=clock
            )
            self._errors = ReadErrors(kafka, self.assignment, self._topic_monitor)
            self._open()
        except (KafkaException, ValueError, TypeError) as error:
            raise ConfigurationError(f"kafka.client: {reason(error)}") from error
        rebalance_timeout = int(member_settings(kafka)["max.poll.interval.ms"]) / 1000
        self._watchdog = MembershipWatchdog(_REBALANCES * rebalance_timeout, clock)
        self._joining_watchdog = MembershipWatchdog(timing.joining_timeout, clock)

    def subscribe(self, before_revoke: Callable[[], None]) -> Self:
        """Join the group; partitions are assigned in the polls that follow.

        `before_revoke` is called inside `poll` and `close` before partitions are revoked: the last opportunity to
        settle their records.
        """
        self._before_revoke = before_revoke
        self._client.subscribe(
            subscription(self._kafka),
            on_assign=self._ignore_if_replaced(self._on_assign),
            on_revoke=self._ignore_if_replaced(self._on_revoke),
            on_lost=self._ignore_if_replaced(self._on_lost),
        )
        return self

    def poll(self, limit: int, timeout: float) -> Sequence[Record]:
        """Up to `limit` records; waits up to `timeout` seconds for the first. Raises SourceError.

        The assignment counts them as in flight until they are settled.
        """
        if self._watchdog.expired(self._statistics) and not self._errors.current:
            self._recreate_client()
        if not self._statistics.joined and self._joining_watchdog.expired(self._statistics):
            logger.warning("not in the consumer group yet", extra={"reason": self._waiting_to_join})
        self._credentials.renew_after_failed_login(self._client, self._topic_monitor)
        with self._deferring_errors():
            self._offset_reset.handle_gaps()
            self._errors.clear_if_readable_again()
            if self._paused or self._fetcher.held:
                self._lag.look_up_latest_if_due()
        first = self._client.poll(timeout)
        self._raise_failure()
        if first is None:
            return []
        records = self._records([first])  # numbered before the next call, in which the assignment may change
        if limit > 1:
            more = self._client.consume(limit - 1, 0)
            self._raise_failure()
            records += self._records(more)
        return self.assignment.track(records)

    def commit_if_due(self) -> None:
        """Commit the settled offsets, once per interval; does not wait for the response."""
        self._committer.commit_if_due()

    def commit_soon(self) -> None:
        """The next `commit_if_due` does not wait for the interval."""
        self._committer.commit_soon()

    def update_lag_if_due(self) -> None:
        if self._clock() - self._last_lag >= LAG_INTERVAL:
            self.update_lag()

    def update_lag(self) -> None:
        """Also advances over offsets without a message."""
        self._last_lag = self._clock()
        self.assignment.advance_to_eof()
        self._lag.show()

    def pause(self) -> None:
        """Fetch nothing, but stay in the group. Partitions that are assigned later are paused as well."""
        self._paused = True
        self._fetcher.pause(self.assignment.readable)

    def resume(self) -> None:
        self._paused = False
        self._statistics.clear_latest()
        self._fetcher.resume(self.assignment.readable)

    def hold(self, partitions: frozenset[TopicPartition]) -> None:
        """Fetch nothing of these partitions from now on, and again of those held before."""
        if partitions != self._fetcher.held:
            self._fetcher.hold(partitions, self.assignment.readable)

    def readiness_failures(self) -> list[str]:
        """Why no messages can arrive; empty while they can. Safe to call from any thread."""
        statistics = self._statistics
        joining = None if statistics.joined or statistics.unreachable else self._waiting_to_join
        failures = (statistics.unreachable, *self._errors.current, joining, *self.assignment.gaps.values())
        return [failure for failure in failures if failure]

    def close(self) -> None:
        """Leave the group: partitions are revoked, and what is settled is committed."""
        if self._statistics.in_group:
            self._client.close()
        else:
            close_in_background(self._client, self._timing.close_timeout)
        self._topic_monitor.close()
        if self._failure is not None:
            logger.error("error while leaving the group", extra={"reason": reason(self._failure)})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- the client

    def _open(self) -> None:
        """Create a client, and the objects that use it."""
        self._statistics = statistics = ClusterStatistics(self._kafka.servers)
        self._client = client = self._new_client(
            {
                **member_settings(self._kafka),
                "statistics.interval.ms": int(self._timing.statistics_interval * 1000),
                "on_commit": self._ignore_if_replaced(self._on_commit),
                "error_cb": self._ignore_if_replaced(self._on_error),
                "stats_cb": statistics.update,
            }
        )
        assignment, metrics = self.assignment, self._metrics
        self._fetcher = fetcher = Fetcher(client, paused=self._paused)
        self._offset_reset = OffsetReset(
            client,
            assignment,
            fetcher,
            self._topic_monitor,
            metrics,
            on_offset_gap=self._consumer.on_offset_gap,
        )
        self._committer = OffsetCommitter(
            client,
            assignment,
            metrics,
            topic_id=self._topic_monitor.topic_id,
            interval=self._consumer.offset_commit_frequency_ms / 1000,
            clock=self._clock,
        )
        self._lag = LagMonitor(
            client,
            assignment,
            statistics,
            metrics,
            lookup_interval=self._timing.lookup_interval,
            clock=self._clock,
        )

    @property
    def _waiting_to_join(self) -> str:
        """librdkafka waits silently for brokers that do not support the group protocol."""
        text = "waiting to join the consumer group"
        if self._kafka.group_protocol == "classic":
            return text
        return f"{text}; kafka.group_protocol `consumer` requires Kafka 4.0"

    def _monitored_topics(self) -> Collection[str]:
        """Those of a pattern are known once partitions of them are assigned."""
        return self._kafka.known_topics or {partition.topic for partition in self.assignment.partitions}

    def _ignore_if_replaced(self, callback: Callable[..., None]) -> Callable[..., None]:
        """A client that was replaced may still call back."""
        statistics = self._statistics

        def call(*arguments: Any) -> None:
            if self._statistics is statistics:
                callback(*arguments)

        return call

    def _recreate_client(self) -> None:
        """After a broker was unresponsive, librdkafka sometimes does not find the group coordinator again; a new client
        does. Raises SourceError if too many previous clients have not closed."""
        self._abandoned = [closing for closing in self._abandoned if closing.is_alive()]
        if len(self._abandoned) == _MAX_ABANDONED:
            raise SourceError(f"group membership lost, and {_MAX_ABANDONED} previous clients have not closed")
        logger.warning("group membership lost, recreating the client", extra={"group": self._kafka.group_id})
        if partitions := self.assignment.partitions:
            self._lose(partitions)
        self._errors.on_client_replaced()
        self._abandoned.append(close_in_background(self._client))
        self._open()
        self.subscribe(self._before_revoke)

    # -- messages and error events

    def _records(self, messages: Sequence[Message]) -> list[Record]:
        """Error events are handled in order: what follows an unreadable message in its partition is not read."""
        records: list[Record] = []
        start = 0
        for index in [index for index, message in enumerate(messages) if message.error() is not None]:
            records += self._read(messages[start:index])
            start = index + 1
            event = messages[index]
            self._on_error_event(cast(KafkaError, event.error()), event_partition(event), event.offset())
        records += self._read(messages[start:])
        if records:
            self._errors.on_records(records)
        return records

    def _read(self, messages: Sequence[Message]) -> list[Record]:
        records = records_of(messages, self.assignment.readable)
        if self.assignment.errors:
            self.assignment.clear_errors({record.topic_partition for record in records})
        return records

    def _on_error_event(self, error: KafkaError, partition: TopicPartition, offset: int | None) -> None:
        """Handle an event that the client returned in place of a message."""
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            if self._is_read(partition):
                self.assignment[partition].eof_offset = offset
                self.assignment[partition].error = None
        elif error.fatal() or code == KafkaError._FATAL:  # in place of a message it has the code only
            raise SourceError(f"fatal error of the Kafka client: {error.str()}")
        elif code == KafkaError._AUTO_OFFSET_RESET:
            if partition in self.assignment:
                self.assignment[partition].out_of_range = OutOfRange(offset)
        elif code in _UNREADABLE and partition in self.assignment:  # the client may skip the message
            text = f"offset {offset} cannot be read: {error.str()}"
            logger.error("unreadable message", extra={**partition._asdict(), "reason": text})
            self._offset_reset.stop(partition, text)
        else:
            self._errors.record(error, partition)
            logger.warning("Kafka returned an error", extra={"topic": partition.topic, "reason": error.str()})

    def _is_read(self, partition: TopicPartition) -> bool:
        return partition in self.assignment and self.assignment[partition].gap is None

    # -- rebalances

    def _on_assign(self, _client: Consumer, positions: list[PartitionOffset]) -> None:
        with self._deferring_errors():
            self._statistics.joined = True
            partitions = _partitions(positions)
            self._errors.on_assign(partitions)
            self._offset_reset.start(partitions)
            self._report("assigned", partitions)

    def _on_revoke(self, _client: Consumer, positions: list[PartitionOffset]) -> None:
        partitions = _partitions(positions)
        with self._deferring_errors():
            self._before_revoke()
            self._committer.revoke(partitions)
            self._report("revoked", partitions)
        self._release(partitions)

    def _on_lost(self, _client: Consumer, positions: list[PartitionOffset]) -> None:
        """The partitions may already belong to another member: nothing may be committed for them."""
        partitions = _partitions(positions)
        self._statistics.joined = False
        self._lose(partitions)
        self._release(partitions)

    def _lose(self, partitions: Sequence[TopicPartition]) -> None:
        self.assignment.revoke(partitions)
        self._lag.forget(partitions)
        self._report("lost", partitions)

    def _release(self, partitions: Sequence[TopicPartition]) -> None:
        self.assignment.revoke(partitions)
        self._lag.forget(partitions)
        with self._deferring_errors():
            self._fetcher.stop(partitions)

    def _report(self, event: str, partitions: Sequence[TopicPartition]) -> None:
        assigned = [str(partition) for partition in sorted(self.assignment.partitions)]
        logger.info(
            f"partitions {event}",
            extra={"partitions": [str(each) for each in sorted(partitions)], "assigned": assigned},
        )
        self._metrics.rebalances[event].inc()
        self._metrics.assigned_partitions.set(len(assigned))

    # -- callbacks and failures

    def _on_commit(self, error: KafkaError | None, positions: list[PartitionOffset]) -> None:
        self._committer.on_commit(error, positions)

    def _on_error(self, error: KafkaError) -> None:
        """An error of the client as a whole; those of a partition are returned in place of its messages."""
        if error.fatal():
            self._failure = SourceError(f"fatal error of the Kafka client: {error.str()}")
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            logger.debug("all brokers are down")  # the reason came just before
        elif error.code() in _UNREACHABLE:
            text = self._statistics.record_error(error.str(), unresolved=error.code() == KafkaError._RESOLVE)
            logger.warning("broker unreachable", extra={"reason": text})
        else:
            self._statistics.record_error(error.str())
            logger.warning("Kafka client error", extra={"reason": error.str()})
            self._credentials.record_error(error)

    @contextmanager
    def _deferring_errors(self) -> Iterator[None]:
        """An exception that left a callback would be lost or garbled: the surrounding poll raises it instead."""
        try:
            yield
        except (KafkaException, ConsumerError) as error:
            self._failure = error

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if isinstance(failure, ConsumerError):
            raise failure
        if failure is not None:
            raise SourceError(reason(failure)) from failure


def _partitions(positions: Sequence[PartitionOffset]) -> list[TopicPartition]:
    return [partition_of(position) for position in positions]
