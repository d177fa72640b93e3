"""Where messages come from: one member of a Kafka consumer group.

Every call on the client is made by the loop's thread; rebalance callbacks run inside `poll` and `close`.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol, Self

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from src.cluster_view import ClusterView, Ends
from src.errors import ConsumerError, SourceError
from src.kafka_messages import partition_of, reason, record_of
from src.record import Record
from src.settings import KafkaSettings
from src.topic_identity import TopicIdentity
from src.utils.config import ConfigurationError

logger = logging.getLogger(__name__)

STATISTICS_EVERY = 2.0  # seconds
ENDS_EVERY = 10.0  # seconds between two questions for the partitions' ends while nothing is fetched
ENDS_TIMEOUT = 1.0  # seconds
COMMITTED_TIMEOUT = 10.0  # seconds to learn the committed offsets of new partitions

_UNREACHABLE = (KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT)


class Listener(Protocol):
    """Who is told what happens to the partitions. All of it is called by the loop's own thread, inside `poll`."""

    def assigned(self, committed: Mapping[int, int | None], assignment: int) -> None:
        """These are ours now; their records carry the assignment's number."""

    def revoking(self, partitions: Collection[int]) -> None:
        """These go to another member: the last moment to commit what is settled, by `commit_now`."""

    def lost(self, partitions: Collection[int]) -> None:
        """These belong to another member already; nothing of them may be committed."""

    def stopped(self, partition: int) -> None:
        """This one's committed offset is gone, and it is not read until somebody decides."""

    def skipped(self, partition: int, offsets: int, position: int) -> None:
        """This one goes on at `position`, its oldest message, past so many offsets that are gone."""

    def committed(self, offsets: Mapping[int, int]) -> None:
        """Kafka has these."""

    def refused(self, offsets: Mapping[int, int]) -> None:
        """Kafka has not taken these; they stay due."""


class KafkaSource:
    """Reads the topic as a member of the group; nothing is committed but by `commit` and `commit_now`."""

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        on_offset_gap: str = "stop",
        statistics_every: float = STATISTICS_EVERY,
        ends_every: float = ENDS_EVERY,
        consumer: Callable[..., Consumer] = Consumer,
        admin: Callable[[dict[str, Any]], AdminClient] = AdminClient,
    ) -> None:
        self.committing = False
        self._topic = settings.topic
        self._on_offset_gap = on_offset_gap
        self._view = ClusterView(settings.servers, settings.topic)
        try:
            self._consumer = consumer(
                {
                    **client_settings(settings),
                    "statistics.interval.ms": int(statistics_every * 1000),
                    "on_commit": self._on_commit,
                    "error_cb": self._on_error,
                    "stats_cb": self._view.update,
                }
            )
            # it says nothing of its troubles, which the consumer has as well
            self._identity = TopicIdentity(admin({**settings.client_settings, "log_level": 2}), settings.topic)
        except (KafkaException, ValueError, TypeError) as error:
            raise ConfigurationError(f"kafka.client: {reason(error)}") from error
        self._assignments: dict[int, int] = {}
        self._number = 0
        self._topic_ids: dict[int, str] = {}
        self._gaps: dict[int, str] = {}
        self._complaint: str | None = None
        self._paused = False
        self._ends_every = ends_every
        self._ends_asked_at = 0.0
        self._failure: Exception | None = None

    def subscribe(self, listener: Listener) -> Self:
        """Join the group; the partitions come with the polls that follow."""
        self._listener = listener
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        return self

    def poll(self, limit: int, timeout: float) -> list[Record]:
        """What has arrived, up to `limit`; waits up to `timeout` seconds for the first. Raises SourceError."""
        first = self._consumer.poll(timeout)
        self._raise_failure()
        self._compare_identity()
        self._ask_for_ends()
        if first is None:
            return []
        records = self._records([first])  # stamped before the next call, in which the assignment may change
        if limit > 1:
            more = self._consumer.consume(limit - 1, 0)
            self._raise_failure()
            records += self._records(more)
        return records

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Ask Kafka to keep these; the listener hears the answer in a later poll."""
        positions = self._positions(offsets)
        self.committing = True
        try:
            self._consumer.commit(offsets=positions, asynchronous=True)
        except KafkaException as error:
            self._on_commit(error.args[0], positions)

    def commit_now(self, offsets: Mapping[int, int]) -> None:
        """Have Kafka keep these, and wait for its answer."""
        positions = self._positions(offsets)
        try:
            answers = self._consumer.commit(offsets=positions, asynchronous=False)
        except KafkaException as error:
            self._answered(error.args[0], positions)
        else:
            self._answered(None, answers)

    def pause(self) -> None:
        """Read nothing more; stay in the group. Partitions that come later are paused as well."""
        self._paused = True
        self._consumer.pause(self._readable())

    def resume(self) -> None:
        self._paused = False
        self._view.fetching()
        self._consumer.resume(self._readable())

    def ends(self, partition: int) -> Ends:
        """Where the partition begins and ends, as of some seconds ago; no request is made."""
        return self._view.ends(partition)

    @property
    def gaps(self) -> Collection[str]:
        """The partitions that stand still because their committed offset is gone, and what to know of each."""
        return tuple(self._gaps.values())

    def hindrances(self) -> list[str]:
        """Why no messages can come; empty while they can. Safe to call from another thread."""
        waiting = None if self._view.joined or self._view.trouble else "waiting to join the consumer group"
        return [reason for reason in (self._view.trouble, self._complaint, waiting, *self.gaps) if reason]

    def close(self) -> None:
        """Leave the group; the listener is asked first to commit what is settled."""
        self._consumer.close()
        if self._failure is not None:
            logger.error("left the group in trouble", extra={"reason": reason(self._failure)})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _records(self, messages: Sequence[Message]) -> list[Record]:
        records: list[Record] = []
        for message in messages:
            error = message.error()
            if error is not None:
                self._told(error, message)
            elif (assignment := self._assignments.get(partition_of(message))) is not None:
                records.append(record_of(message, assignment))
        if records:
            self._complaint = None
        return records

    def _told(self, error: KafkaError, message: Message) -> None:
        """An event of the client that comes in place of a message."""
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            return
        if code == KafkaError._AUTO_OFFSET_RESET:
            self._reset(partition_of(message), message.offset())
        elif error.fatal():
            raise SourceError(f"the Kafka client can't go on: {error.str()}")
        else:
            self._complaint = f"topic {self._topic}: {error.str()}"
            logger.warning("Kafka refuses", extra={"topic": self._topic, "reason": error.str()})

    # -- the assignment

    def _on_assign(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        with self._keeping_failure():
            self._view.joined = True
            self._complaint = None
            self._start(self._committed([position.partition for position in partitions]))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        with self._keeping_failure():
            self._listener.revoking([position.partition for position in partitions])
        self._let_go(consumer, partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._view.joined = False
        with self._keeping_failure():
            self._listener.lost([position.partition for position in partitions])
        self._let_go(consumer, partitions)

    def _let_go(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for position in partitions:
            for kept in (self._assignments, self._topic_ids, self._gaps):
                kept.pop(position.partition, None)
        with self._keeping_failure():
            consumer.incremental_unassign(partitions)

    def _committed(self, partitions: Sequence[int]) -> list[TopicPartition]:
        """Where the group stands. Where that can't be learnt the client looks for itself."""
        wanted = [TopicPartition(self._topic, partition) for partition in partitions]
        try:
            answers = self._consumer.committed(wanted, timeout=COMMITTED_TIMEOUT) if wanted else []
        except KafkaException as error:
            logger.warning("committed offsets not told", extra={"reason": reason(error)})
            return wanted
        return [answer if answer.error else _start(answer) for answer in answers]

    def _start(self, starts: Sequence[TopicPartition]) -> None:
        self._number += 1
        positions = [TopicPartition(start.topic, start.partition, start.offset) for start in starts]
        self._consumer.incremental_assign(positions)
        if positions:
            (self._consumer.pause if self._paused else self._consumer.resume)(positions)
        self._assignments.update(dict.fromkeys((start.partition for start in starts), self._number))
        self._topic_ids.update({start.partition: start.metadata for start in starts if start.metadata})
        committed = {start.partition: start.offset if start.offset >= 0 else None for start in starts}
        self._listener.assigned(committed, self._number)
        if self._topic_ids:
            self._identity.wait()
            self._compare_identity()

    # -- offsets that are gone

    def _reset(self, partition: int, missing: int | None) -> None:
        """The client found nothing at the offset where it was to start."""
        if missing is None or missing < 0:  # nothing was ever committed, and that could not be learnt in time
            self._restart(partition, OFFSET_BEGINNING)
        else:
            self._gap(partition, missing, f"offset {missing} is gone")

    def _compare_identity(self) -> None:
        """A topic that was deleted and made again has other messages at the same offsets."""
        self._identity.refresh()
        current = self._identity.known
        if current is None:
            return
        for partition in [p for p in self._assignments if p not in self._gaps]:
            if self._topic_ids.setdefault(partition, current) != current:
                self._gap(partition, None, "the topic was deleted and made again")

    def _gap(self, partition: int, missing: int | None, text: str) -> None:
        low = self._low(partition)
        logger.error(
            "committed offset gone",
            extra={
                "topic": self._topic,
                "partition": partition,
                "missing_offset": missing,
                "low": low,
                "high": self.ends(partition).high,
                "reason": text,
                "on_offset_gap": self._on_offset_gap,
            },
        )
        if self._on_offset_gap == "earliest":
            self._restart(partition, OFFSET_BEGINNING if low is None else low)
            if low is not None:
                self._listener.skipped(partition, 0 if missing is None else max(0, low - missing), low)
        else:
            self._gaps[partition] = f"{self._topic}[{partition}]: {text}; see consumer.on_offset_gap"
            self._consumer.pause([TopicPartition(self._topic, partition)])
            self._listener.stopped(partition)

    def _restart(self, partition: int, offset: int) -> None:
        self._topic_ids.pop(partition, None)
        self._consumer.incremental_unassign([TopicPartition(self._topic, partition)])
        self._start([TopicPartition(self._topic, partition, offset)])

    def _low(self, partition: int) -> int | None:
        """The partition's oldest offset; None where the broker does not tell it in time."""
        try:
            low, _ = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=10.0)
        except KafkaException:
            return None
        return low

    # -- commits

    def _positions(self, offsets: Mapping[int, int]) -> list[TopicPartition]:
        return [
            TopicPartition(self._topic, partition, offset, self._topic_ids.get(partition, ""))
            for partition, offset in offsets.items()
        ]

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self.committing = False
        self._answered(error, partitions)

    def _answered(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        refusals = [position.error or error for position in partitions if position.error or error]
        if refusals:
            logger.info("commit refused, tried again while the partition is ours", extra={"reason": str(refusals[0])})
            self._listener.refused({p.partition: p.offset for p in partitions if p.error or error})
        if confirmed := {p.partition: p.offset for p in partitions if not (p.error or error)}:
            self._listener.committed(confirmed)

    # -- trouble

    def _on_error(self, error: KafkaError) -> None:
        """A trouble of the whole client; one with a message's place comes in its place instead."""
        if error.fatal():
            self._failure = SourceError(f"the Kafka client can't go on: {error.str()}")
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            logger.debug("no broker reached")  # the reason came just before
        elif error.code() in _UNREACHABLE:
            reason = self._view.complain(error.str(), unresolved=error.code() == KafkaError._RESOLVE)
            logger.warning("broker not reached", extra={"reason": reason})
        else:
            self._view.complain(error.str())
            logger.warning("Kafka client in trouble", extra={"reason": error.str()})

    def _ask_for_ends(self) -> None:
        """The statistics know the ends from what is fetched, and while paused nothing is."""
        if not (self._paused and self._assignments) or time.monotonic() - self._ends_asked_at < self._ends_every:
            return
        self._ends_asked_at = time.monotonic()
        asked = [TopicPartition(self._topic, partition, OFFSET_END) for partition in self._assignments]
        with suppress(KafkaException):
            answers = self._consumer.offsets_for_times(asked, timeout=ENDS_TIMEOUT)
            self._view.tell_ends({answer.partition: answer.offset for answer in answers if not answer.error})

    def _readable(self) -> list[TopicPartition]:
        return [
            TopicPartition(self._topic, partition) for partition in self._assignments if partition not in self._gaps
        ]

    @contextmanager
    def _keeping_failure(self) -> Iterator[None]:
        """No exception leaves a callback, where it would be lost or garbled: the poll around it raises it."""
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


def client_settings(settings: KafkaSettings) -> dict[str, Any]:
    """librdkafka's keys for a member of the group."""
    return {
        # what an operator may change under kafka.client …
        "session.timeout.ms": 10_000,
        "max.poll.interval.ms": 60_000,
        "socket.timeout.ms": 10_000,
        "topic.metadata.refresh.interval.ms": 10_000,  # new partitions are seen within seconds
        "queued.min.messages": 2_000,
        "queued.max.messages.kbytes": 16_384,
        "fetch.queue.backoff.ms": 20,  # without it the short queue would throttle a catch-up
        **settings.client_settings,
        # … and what the promise rests on
        "group.id": settings.group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "partition.assignment.strategy": "cooperative-sticky",
        "logger": logging.getLogger("librdkafka"),
    }


def _start(committed: TopicPartition) -> TopicPartition:
    """Where to begin: at the committed offset, or at the beginning where nothing was committed."""
    if committed.offset != OFFSET_INVALID:
        return committed
    return TopicPartition(committed.topic, committed.partition, OFFSET_BEGINNING)
