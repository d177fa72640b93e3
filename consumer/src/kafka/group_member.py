"""Where messages come from: one member of a Kafka consumer group.

Every call on the client is made by the loop's thread; rebalance callbacks run inside `poll` and `close`.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Any, Protocol, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from src.kafka.membership import CLOSED_WITHIN, MembershipWatchdog, close_in_background
from src.kafka.messages import partition_of, reason, record_of
from src.kafka.offset_lookup import OffsetLookup
from src.kafka.statistics import ClusterStatistics, Watermarks
from src.kafka.topic_identity import TopicIdentity, is_topic_id
from src.model.errors import ConsumerError, SourceError
from src.model.record import Record
from src.settings import KafkaSettings
from src.utils.config import ConfigurationError

logger = logging.getLogger(__name__)

STATISTICS_EVERY = 2.0  # seconds
ENDS_EVERY = 10.0  # seconds between two questions for the partitions' ends while nothing is fetched

_REBALANCES = 2  # so many may follow on each other before a client without a group counts as lost
_LEFT_BEHIND = 3  # clients that don't close; with one more the process had better start afresh
_WHOLE_TOPIC = -1  # the partition of a complaint about no one of them
_MADE_AGAIN = "the topic was deleted and made again; see consumer.on_offset_gap"
_UNREADABLE = (KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError._NOT_IMPLEMENTED)
_UNREACHABLE = (KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT)


class Listener(Protocol):
    """Who is told what happens to the partitions. All of it is called by the loop's own thread, inside `poll`."""

    def assigned(self, committed: Mapping[int, int | None], assignment: int) -> None:
        """These are ours now; their records carry the assignment's number."""

    def begun(self, positions: Mapping[int, int]) -> None:
        """Of these nothing is committed: they are read from here, their oldest message."""

    def revoking(self, partitions: Collection[int]) -> None:
        """These go to another member: the last moment to commit what is settled, by `commit_now`."""

    def lost(self, partitions: Collection[int]) -> None:
        """These belong to another member already; nothing of them may be committed."""

    def replaced(self, partitions: Collection[int]) -> None:
        """The topic was made again: what was read of these was another's. They stand still until somebody decides."""

    def skipped(self, partition: int, offsets: int, position: int) -> None:
        """This one goes on at `position`, past so many offsets that are gone; what came before them still counts."""

    def committed(self, offsets: Mapping[int, int]) -> None:
        """Kafka has these."""

    def refused(self, offsets: Mapping[int, int]) -> None:
        """Kafka has not taken these; they stay due."""


class GroupMember:
    """Reads the topic as a member of the group; nothing is committed but by `commit` and `commit_now`."""

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        on_offset_gap: str = "stop",
        statistics_every: float = STATISTICS_EVERY,
        ends_every: float = ENDS_EVERY,
        clock: Callable[[], float] = time.monotonic,
        consumer: Callable[..., Consumer] = Consumer,
        admin: Callable[[dict[str, Any]], AdminClient] = AdminClient,
    ) -> None:
        self.committing = False
        self._topic = settings.topic
        self._on_offset_gap = on_offset_gap
        self._servers = settings.servers
        self._client_settings = {
            **client_settings(settings),
            "statistics.interval.ms": int(statistics_every * 1000),
        }
        self._make_client = consumer
        try:
            self._open()
            # it says nothing of its troubles, which the consumer has as well
            asking = admin({**settings.client_settings, "log_level": 2})
        except (KafkaException, ValueError, TypeError) as error:
            raise ConfigurationError(f"kafka.client: {reason(error)}") from error
        self._identity = TopicIdentity(asking, settings.topic, clock=clock)
        self._stray = MembershipWatchdog(_REBALANCES * int(self._client_settings["max.poll.interval.ms"]) / 1000, clock)
        self._closing: list[Thread] = []
        self._assignments: dict[int, int] = {}
        self._number = 0
        self._topic_ids: dict[int, str] = {}
        self._ends_met: dict[int, int] = {}
        self._missing: dict[int, int | None] = {}
        self._gaps: dict[int, str] = {}
        self._complaints: dict[int, str] = {}
        self._paused = False
        self._clock = clock
        self._ends_every = ends_every
        self._ends_asked_at = 0.0
        self._failure: Exception | None = None

    def subscribe(self, listener: Listener) -> Self:
        """Join the group; the partitions come with the polls that follow."""
        self._listener = listener
        self._consumer.subscribe(
            [self._topic],
            on_assign=self._heard(self._on_assign),
            on_revoke=self._heard(self._on_revoke),
            on_lost=self._heard(self._on_lost),
        )
        return self

    def poll(self, limit: int, timeout: float) -> list[Record]:
        """What has arrived, up to `limit`; waits up to `timeout` seconds for the first. Raises SourceError."""
        if self._stray.notices(self._view) and not self._complaints:
            self._join_anew()
        with self._keeping_failure():
            self._look_for_gaps()
            self._ask_for_ends()
        first = self._consumer.poll(timeout)
        self._raise_failure()
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

    def ends(self, partition: int) -> Watermarks:
        """Where the partition begins and ends, as of some seconds ago; no request is made. Unknown in a gap."""
        return Watermarks(None, None) if partition in self._gaps else self._view.ends(partition)

    @property
    def ends_met(self) -> Mapping[int, int]:
        """Where each partition ended when all of it was read: every record before it was returned by `poll`. Before it
        may lie what is none, as a transaction's markers and what it aborted."""
        return self._ends_met

    @property
    def gaps(self) -> Collection[str]:
        """The partitions that stand still because their committed offset is gone, and what to know of each."""
        return tuple(self._gaps.values())

    def readiness_failures(self) -> list[str]:
        """Why no messages can come; empty while they can. Safe to call from another thread."""
        waiting = None if self._view.joined or self._view.trouble else "waiting to join the consumer group"
        complaints = tuple(self._complaints.values())
        return [reason for reason in (self._view.trouble, *complaints, waiting, *self.gaps) if reason]

    def close(self) -> None:
        """Leave the group; the listener is asked first to commit what is settled."""
        if self._view.in_group:
            self._consumer.close()
        else:
            close_in_background(self._consumer, CLOSED_WITHIN)
        self._identity.close()
        if self._failure is not None:
            logger.error("left the group in trouble", extra={"reason": reason(self._failure)})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- the client

    def _open(self) -> None:
        """A client with a view of its own. What an earlier one still has to say is not heard."""
        self._view = view = ClusterStatistics(self._servers, self._topic)
        self._consumer = self._make_client(
            {
                **self._client_settings,
                "on_commit": self._heard(self._on_commit),
                "error_cb": self._heard(self._on_error),
                "stats_cb": view.update,
            }
        )
        self._offsets = OffsetLookup(self._consumer, self._topic)

    def _heard(self, callback: Callable[..., None]) -> Callable[..., None]:
        view = self._view

        def hear(*said: Any) -> None:
            if self._view is view:
                callback(*said)

        return hear

    def _join_anew(self) -> None:
        """The client has lost its group for longer than it takes to find it again, which librdkafka has been seen to do
        after a broker that did not answer; another one finds it. Raises SourceError where too many don't even close."""
        self._closing = [closing for closing in self._closing if closing.is_alive()]
        if len(self._closing) == _LEFT_BEHIND:
            raise SourceError(f"the Kafka client finds no group, and the {_LEFT_BEHIND} before it do not close")
        logger.warning("the Kafka client is in no group, another one joins", extra={"topic": self._topic})
        if self._assignments:
            self._listener.lost(tuple(self._assignments))
        for kept in self._kept_by_partition:
            kept.clear()
        self.committing = False
        self._closing.append(close_in_background(self._consumer))
        self._open()
        self.subscribe(self._listener)

    # -- what it returns

    def _records(self, messages: Sequence[Message]) -> list[Record]:
        records: list[Record] = []
        for message in messages:
            partition, error = partition_of(message), message.error()
            if error is not None:
                self._told(error, partition, message.offset())
            elif self._reads(partition):
                records.append(record_of(message, self._assignments[partition]))
                self._complaints.pop(partition, None)
        if records:
            self._complaints.pop(_WHOLE_TOPIC, None)
        return records

    def _told(self, error: KafkaError, partition: int, offset: int | None) -> None:
        """An event of the client that comes in place of a message."""
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            if offset is not None and self._reads(partition):
                self._ends_met[partition] = offset
            return
        if error.fatal():
            raise SourceError(f"the Kafka client can't go on: {error.str()}")
        if code == KafkaError._AUTO_OFFSET_RESET:
            if partition in self._assignments:
                self._missing[partition] = offset
        elif code in _UNREADABLE and partition in self._assignments:  # the client may skip the message
            text = f"offset {offset} can't be read: {error.str()}"
            logger.error("unreadable message", extra={"topic": self._topic, "partition": partition, "reason": text})
            self._stop({partition: text})
        else:
            self._complaints[partition] = f"topic {self._topic}: {error.str()}"
            logger.warning("Kafka refuses", extra={"topic": self._topic, "reason": error.str()})

    # -- the assignment

    def _on_assign(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        with self._keeping_failure():
            self._view.joined = True
            self._complaints.clear()
            numbers = [position.partition for position in partitions]
            self._start(self._offsets.committed(numbers))
            self._identity.renew()
            self._compare_identity(numbers)

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
            for kept in self._kept_by_partition:
                kept.pop(position.partition, None)
        with self._keeping_failure():
            consumer.incremental_unassign(partitions)

    def _start(self, starts: Sequence[TopicPartition]) -> None:
        """Read these from there; those of which nothing is committed from their oldest message."""
        self._number += 1
        begins = self._offsets.begins([start.partition for start in starts if start.offset == OFFSET_BEGINNING])
        self._place({start.partition: begins.get(start.partition, start.offset) for start in starts})
        self._assignments.update((start.partition, self._number) for start in starts)
        for start in starts:
            self._ends_met.pop(start.partition, None)
        self._topic_ids.update({start.partition: start.metadata for start in starts if is_topic_id(start.metadata)})
        committed = {start.partition: start.offset if start.offset >= 0 else None for start in starts}
        self._listener.assigned(committed, self._number)
        self._listener.begun(begins)

    def _restart(self, partitions: Collection[int]) -> None:
        """From their oldest messages, under a new number: what came under the old one counts no more."""
        for partition in partitions:
            self._topic_ids.pop(partition, None)
        self._consumer.incremental_unassign(self._at(partitions))
        self._start([TopicPartition(self._topic, partition, OFFSET_BEGINNING) for partition in partitions])

    def _place(self, offsets: Mapping[int, int]) -> None:
        positions = [TopicPartition(self._topic, partition, offset) for partition, offset in offsets.items()]
        self._consumer.incremental_assign(positions)
        if positions:
            (self._consumer.pause if self._paused else self._consumer.resume)(positions)

    # -- offsets that are gone

    def _look_for_gaps(self) -> None:
        """Asked before anything is fetched: all that was fetched is in hand by now, under the number it came with."""
        self._identity.refresh()
        if self._missing:
            self._identity.renew()  # an offset may be gone with its topic
        self._compare_identity(self._assignments)
        while self._missing:
            self._meet_gap(*self._missing.popitem())

    def _compare_identity(self, partitions: Collection[int]) -> None:
        """A topic that was deleted and made again has other messages at the same offsets."""
        current = self._identity.known
        if current is None:
            return
        changed = [p for p in partitions if p not in self._gaps and self._topic_ids.setdefault(p, current) != current]
        if not changed:
            return
        for partition, ends in self._offsets.spans(changed).items():
            self._missing.pop(partition, None)
            self._report(partition, None, ends, _MADE_AGAIN)
        if self._on_offset_gap == "earliest":
            self._restart(changed)
        else:
            self._stop(dict.fromkeys(changed, _MADE_AGAIN))
            self._listener.replaced(changed)

    def _meet_gap(self, partition: int, missing: int | None) -> None:
        """The client found nothing at the offset where it was to read on."""
        if missing is None or missing < 0:  # nothing was ever committed, and that could not be learnt in time
            self._restart([partition])
            return
        text = f"offset {missing} is gone; see consumer.on_offset_gap"
        ends = self._offsets.spans([partition])[partition]
        self._report(partition, missing, ends, text)
        if self._on_offset_gap != "earliest":
            self._stop({partition: text})
        elif ends.low is None or ends.low < missing:  # the end has gone, not the beginning
            self._restart([partition])
        else:
            self._consumer.incremental_unassign(self._at([partition]))
            self._place({partition: ends.low})
            self._listener.skipped(partition, ends.low - missing, ends.low)

    def _report(self, partition: int, missing: int | None, ends: Watermarks, text: str) -> None:
        logger.error(
            "committed offset gone",
            extra={
                "topic": self._topic,
                "partition": partition,
                "missing_offset": missing,
                "low": ends.low,
                "high": ends.high,
                "reason": text,
                "on_offset_gap": self._on_offset_gap,
            },
        )

    def _stop(self, reasons: Mapping[int, str]) -> None:
        for partition, text in reasons.items():
            self._gaps[partition] = f"{self._topic}[{partition}]: {text}"
        self._consumer.pause(self._at(reasons))

    # -- commits

    def _positions(self, offsets: Mapping[int, int]) -> list[TopicPartition]:
        """With the topic's id beside each: its own, or the one that is known."""
        current = self._identity.known or ""
        return [
            TopicPartition(self._topic, partition, offset, self._topic_ids.get(partition, current))
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
            logger.warning("broker unreachable", extra={"reason": reason})
        else:
            self._view.complain(error.str())
            logger.warning("Kafka client in trouble", extra={"reason": error.str()})

    def _ask_for_ends(self) -> None:
        """The statistics know the ends from what is fetched, and while paused nothing is."""
        if not (self._paused and self._assignments) or self._clock() - self._ends_asked_at < self._ends_every:
            return
        self._ends_asked_at = self._clock()
        if ends := self._offsets.ends(self._assignments):
            self._view.tell_ends(ends)

    @property
    def _kept_by_partition(self) -> Sequence[dict[int, Any]]:
        return self._assignments, self._topic_ids, self._ends_met, self._missing, self._gaps, self._complaints

    def _reads(self, partition: int) -> bool:
        return partition in self._assignments and partition not in self._gaps

    def _readable(self) -> list[TopicPartition]:
        return self._at([partition for partition in self._assignments if self._reads(partition)])

    def _at(self, partitions: Collection[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, partition) for partition in partitions]

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
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "partition.assignment.strategy": "cooperative-sticky",
        "logger": logging.getLogger("librdkafka"),
    }
