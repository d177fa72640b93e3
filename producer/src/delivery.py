"""Delivery: sees to it that each message handed over is delivered, or kept in the undelivered file.

Nothing here waits but `turn`, for delivery reports, and no longer than it is told: the caller keeps its pace.
"""

import heapq
import itertools
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from tenacity import RetryCallState, Retrying, wait_exponential_jitter

from src.kafka.produce_request import Failure, Fault, ProduceRequest
from src.model.errors import BrokerError, UndeliveredFileError
from src.model.message import Encoded
from src.utils.metrics import ProducerMetrics

logger = logging.getLogger(__name__)

TURN = 0.1  # seconds that a turn waits at most, so that a request to stop is heard
GRACE = 5.0  # seconds for what is in flight when asked to stop
MAX_MESSAGES = 50_000  # on their way at a time; more wait until these are settled …
MAX_BYTES = 64 * 1024 * 1024  # … and likewise more bytes
KEEP_AGAIN = 1.0  # seconds after which a file that could not be written is tried again
LONGEST_DELAY = 60.0  # seconds between two tries, unless the first delay is longer
PURGED_WITHIN = 1.0  # seconds for the reports of what was in flight when it was abandoned
SHOWN_KEYS = 20  # of messages that are lost
SILENCE = 30.0  # seconds with messages on their way and no report, after which the service is not ready


class Publisher(Protocol):
    """What is needed of Kafka; KafkaPublisher is it."""

    @property
    def trouble(self) -> str | None: ...

    def send(self, messages: Sequence[Encoded]) -> ProduceRequest: ...

    def settled(self, timeout: float) -> Sequence[ProduceRequest]: ...

    def purge(self) -> None: ...

    def close(self) -> None: ...


class UndeliveredStore(Protocol):
    """Where messages go that were given up; Undelivered is it."""

    def keep(self, failures: Sequence[Failure]) -> None: ...


@dataclass(frozen=True)
class RetryPolicy:
    max_retries: int | None
    """None: as often as it takes."""
    initial_delay: float  # seconds

    def allows(self, retry: int) -> bool:
        return self.max_retries is None or retry <= self.max_retries

    def delay(self, retry: int) -> float:
        """Seconds before the retry with this number, from 1: doubled each time, capped, and no two producers alike."""
        wait = wait_exponential_jitter(
            multiplier=self.initial_delay, max=max(LONGEST_DELAY, self.initial_delay), jitter=self.initial_delay / 4
        )
        state = RetryCallState(Retrying(), None, (), {})
        state.attempt_number = retry
        return wait(state)


class Batch:
    """Messages that were handed over together. Settled once each is delivered or given up.

    Those that were given up before, and so are counted, come `again`.
    """

    def __init__(
        self, messages: Sequence[Encoded], started: float, given_up: list[Failure], *, again: bool = False
    ) -> None:
        self.size = len(messages)
        self.bytes = _size(messages)
        self.started = started
        self.given_up = given_up
        self.again = again
        self.delivered = 0
        self.undelivered = 0

    @property
    def outstanding(self) -> int:
        return self.size - self.delivered - self.undelivered

    @property
    def settled(self) -> bool:
        return not self.outstanding


@dataclass(frozen=True)
class SendAttempt:
    """Messages of one batch that travel together; `retry` counts the times they travelled before."""

    batch: Batch
    messages: Sequence[Encoded]
    retry: int = 0
    alone: bool = False
    failures: Sequence[Failure] = ()
    """What became of these messages the last time, while they wait to be sent again."""


class Delivery:
    """Used by one thread; `readiness_failures` and `outstanding` may be read by any."""

    def __init__(
        self,
        publisher: Publisher,
        undelivered: UndeliveredStore,
        policy: RetryPolicy,
        metrics: ProducerMetrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        stop: Event | None = None,
    ) -> None:
        self.delivered = 0
        self.undelivered = 0
        self.outstanding = 0
        self._outstanding_bytes = 0
        self._publisher = publisher
        self._keeper = undelivered
        self._policy = policy
        self._metrics = metrics
        self._clock = clock
        self._stop = stop or Event()
        self._in_flight: dict[ProduceRequest, SendAttempt] = {}
        self._ready: deque[SendAttempt] = deque()  # as soon as the client has room
        self._suspects: deque[SendAttempt] = deque()  # each alone, with nothing else in flight
        self._retries: list[tuple[float, int, SendAttempt]] = []  # a heap: due time, order, parcel
        self._order = itertools.count()
        self._given_up: list[Failure] = []
        self._not_kept: Batch | None = None  # what could not be kept, and is sent again instead
        self._keep_at = 0.0
        self._file_trouble: str | None = None
        self._last_failure: str | None = None
        self._last_report = clock()

    @property
    def has_room(self) -> bool:
        """Whether more messages should be handed over now."""
        return self.has_room_again and not (self._given_up or self._file_trouble)

    @property
    def has_room_again(self) -> bool:
        """Whether messages of the undelivered folder may be handed over: also while no more can be kept there."""
        return (
            self.outstanding < MAX_MESSAGES
            and self._outstanding_bytes < MAX_BYTES
            and not (self._ready or self._suspects)
        )

    @property
    def fails(self) -> bool:
        """Whether Kafka did not take what it was given last."""
        return self._last_failure is not None

    @property
    def delivers(self) -> bool:
        return not (self.fails or self._publisher.trouble)

    def dispatch(self, messages: Sequence[Encoded]) -> Batch:
        """Send these, as the turns go by; the batch tells what became of them. What is given up is kept."""
        return self._start(Batch(messages, self._clock(), self._given_up), messages)

    def dispatch_again(self, messages: Sequence[Encoded]) -> Batch:
        """Send these, which are in the undelivered folder. What is given up once more is left to the batch's owner."""
        return self._start(Batch(messages, self._clock(), [], again=True), messages)

    def deliver(self, messages: Sequence[Encoded]) -> Batch:
        """Send these and wait until each is delivered or given up, which a request to stop hastens."""
        return self.see_through(self.dispatch(messages))

    def see_through(self, batch: Batch) -> Batch:
        """Wait until each of its messages is delivered or given up, which a request to stop hastens."""
        try:
            while not (batch.settled or self._stop.is_set()):
                self.turn(TURN)
        except BrokerError as error:
            logger.error("Kafka client failed", extra={"reason": str(error)})
        if not batch.settled:
            self.finish()
        return batch

    def turn(self, timeout: float) -> None:
        """Take in delivery reports, for up to `timeout` seconds if there are none; send again what is due; keep what
        was given up. Raises BrokerError.
        """
        self._settle(self._publisher.settled(min(timeout, TURN)))
        self._wake_retries()
        self._ship()
        self._keep_given_up()

    def finish(self, grace: float = GRACE) -> None:
        """Give what is in flight so many seconds, none where no broker is there; keep the rest in the undelivered file.

        Raises UndeliveredFileError where that can't be done.
        """
        self._stop.set()
        self._give_up_waiting()
        with suppress(BrokerError):
            self._await_reports(grace, as_long_as=lambda: not self._publisher.trouble)
        self._abandon()
        self._keep_given_up(at_last=True)

    def readiness_failures(self) -> list[str]:
        """Why messages are not being delivered; empty while they are."""
        silence = self._clock() - self._last_report
        silent = f"no delivery report for {silence:.0f} s" if self.outstanding and silence > SILENCE else None
        causes = (self._publisher.trouble, self._file_trouble, self._last_failure, silent)
        reasons = [cause for cause in causes if cause]
        if reasons and not self.has_room:
            reasons.append(f"no new messages are taken: {self.outstanding} are on their way")
        return reasons

    # -- on the way out

    def _start(self, batch: Batch, messages: Sequence[Encoded]) -> Batch:
        self._take_in(batch)
        self._ready.append(SendAttempt(batch, messages))
        self._ship()
        return batch

    def _take_in(self, batch: Batch) -> None:
        if not self.outstanding:
            self._last_report = batch.started  # nothing was on its way until now, so nothing was late
        self.outstanding += batch.size
        self._outstanding_bytes += batch.bytes
        self._metrics.batch_size.observe(batch.size)

    def _ship(self) -> None:
        while self._ready:
            parcel = self._ready.popleft()
            rest = self._hand_over(parcel)
            if rest:
                self._ready.appendleft(SendAttempt(parcel.batch, rest, parcel.retry))
                return
        if self._suspects and not self._in_flight:
            self._hand_over(self._suspects.popleft())

    def _hand_over(self, parcel: SendAttempt) -> Sequence[Encoded]:
        """Send the parcel; returns what the client has no room for."""
        shipment = self._publisher.send(parcel.messages)
        self._in_flight[shipment] = parcel
        return parcel.messages[shipment.size :]

    def _wake_retries(self) -> None:
        now = self._clock()
        while self._retries and self._retries[0][0] <= now:
            self._ready.append(heapq.heappop(self._retries)[2])

    def _put_off(self, batch: Batch, failures: Sequence[Failure], retry: int) -> None:
        self._metrics.retries.inc(len(failures))
        logger.warning("not delivered, to be sent again", extra={"reason": failures[0].reason, "retry": retry})
        due = self._clock() + self._policy.delay(retry)
        again = SendAttempt(batch, [failure.message for failure in failures], retry, failures=failures)
        heapq.heappush(self._retries, (due, next(self._order), again))

    # -- on the way back

    def _settle(self, shipments: Iterable[ProduceRequest]) -> None:
        known = len(self._given_up)
        for shipment in shipments:
            self._settle_one(self._in_flight.pop(shipment), shipment)
        for reason, count in Counter(failure.reason for failure in self._given_up[known:]).items():
            logger.error("messages given up", extra={"reason": reason, "messages": count})

    def _settle_one(self, parcel: SendAttempt, shipment: ProduceRequest) -> None:
        if shipment.size:
            self._last_report = self._clock()
        if shipment.delivered:
            self._last_failure = None
            self._account(parcel.batch, shipment.delivered_bytes, delivered=shipment.delivered)
        failures = [_judged(failure, parcel) for failure in shipment.failures]
        self._last_failure = next(
            (failure.reason for failure in failures if failure.fault is Fault.WORLD), self._last_failure
        )
        given_up = [failure for failure in failures if self._is_hopeless(failure, parcel)]
        others = [failure for failure in failures if not self._is_hopeless(failure, parcel)]
        suspects = [failure.message for failure in others if failure.fault is Fault.COMPANY]
        again = [failure for failure in others if failure.fault is Fault.WORLD]
        self._suspects.extend(SendAttempt(parcel.batch, [message], parcel.retry, alone=True) for message in suspects)
        if given_up:
            self._give_up(parcel.batch, given_up)
        if again:
            self._put_off(parcel.batch, again, parcel.retry + 1)

    def _is_hopeless(self, failure: Failure, parcel: SendAttempt) -> bool:
        if self._stop.is_set() or failure.fault is Fault.MESSAGE:
            return True
        return failure.fault is Fault.WORLD and not self._policy.allows(parcel.retry + 1)

    def _account(self, batch: Batch, size: int, *, delivered: int = 0, undelivered: int = 0) -> None:
        """So many messages of the batch, and so many bytes, are on their way no more."""
        batch.delivered += delivered
        batch.undelivered += undelivered
        self.outstanding -= delivered + undelivered
        self._outstanding_bytes -= size
        self._metrics.delivered.inc(delivered)
        if not batch.again:
            self.delivered += delivered
            self.undelivered += undelivered
            self._metrics.failed.inc(undelivered)
        if batch.settled:
            self._metrics.send_latency.observe(self._clock() - batch.started)

    # -- giving up

    def _give_up(self, batch: Batch, failures: Sequence[Failure]) -> None:
        batch.given_up += failures
        self._account(batch, _size(each.message for each in failures), undelivered=len(failures))

    def _give_up_waiting(self) -> None:
        """What is not in flight now will not be sent any more."""
        waiting = [*self._ready, *self._suspects, *(parcel for _, _, parcel in self._retries)]
        for queue in (self._ready, self._suspects, self._retries):
            queue.clear()
        for parcel in waiting:
            reason = "stopped before it was sent" + (" again" if parcel.retry or parcel.alone else "")
            self._give_up(parcel.batch, [Failure(message, Fault.WORLD, reason) for message in parcel.messages])

    def _await_reports(self, seconds: float, as_long_as: Callable[[], bool] = lambda: True) -> None:
        deadline = self._clock() + seconds
        while self._in_flight and self._clock() < deadline and as_long_as():
            self._settle(self._publisher.settled(TURN))

    def _abandon(self) -> None:
        """Nothing is in flight any more; the reports say what may have arrived."""
        if not self._in_flight:
            return
        self._publisher.purge()
        with suppress(BrokerError):
            self._await_reports(PURGED_WITHIN)
        for shipment in self._in_flight:
            shipment.write_off("stopped without a delivery report; it may be in the topic")
        self._settle(list(self._in_flight))

    def _keep_given_up(self, *, at_last: bool = False) -> None:
        if self._not_kept and self._not_kept.settled and not self._given_up:
            self._not_kept = self._file_trouble = None  # Kafka has taken what the file could not
        if self._clock() < self._keep_at and not at_last:
            return
        waiting = self._waiting_unkept()
        if not (self._given_up or waiting):
            return
        try:
            self._keeper.keep([*self._given_up, *waiting])
        except UndeliveredFileError as error:
            self._file_trouble = f"undelivered messages can't be kept: {error}"
            self._keep_at = self._clock() + KEEP_AGAIN
            logger.error("undelivered messages can't be kept", extra={"reason": str(error)})
            if at_last:
                logger.critical("messages lost", extra={"messages": len(self._given_up), "keys": self._first_keys()})
                raise
            self._send_instead()
        else:
            self._file_trouble = None
            self._given_up.clear()
            self._withdraw_unkept(waiting)

    def _waiting_unkept(self) -> list[Failure]:
        """What could not be kept and is not under way just now: the file is tried with it, too."""
        if not self._not_kept or self._not_kept.settled:
            return []
        return [
            failure for _, _, parcel in self._retries if parcel.batch is self._not_kept for failure in parcel.failures
        ]

    def _withdraw_unkept(self, waiting: Sequence[Failure]) -> None:
        """They are kept by now, and Kafka is not tried with them any more."""
        if self._not_kept and waiting:
            self._retries = [entry for entry in self._retries if entry[2].batch is not self._not_kept]
            heapq.heapify(self._retries)
            self._account(self._not_kept, _size(each.message for each in waiting), undelivered=len(waiting))

    def _send_instead(self) -> None:
        """What can't be kept is not given up: Kafka may be back before the file is."""
        again = [failure for failure in self._given_up if failure.fault is Fault.WORLD]
        if again and (self._not_kept is None or self._not_kept.settled):
            messages = [failure.message for failure in again]
            self._given_up[:] = [failure for failure in self._given_up if failure.fault is not Fault.WORLD]
            self._not_kept = Batch(messages, self._clock(), self._given_up, again=True)
            self._take_in(self._not_kept)
            self._put_off(self._not_kept, again, retry=1)

    def _first_keys(self) -> list[str]:
        return [(failure.message.key or b"").decode(errors="replace") for failure in self._given_up[:SHOWN_KEYS]]


def _size(messages: Iterable[Encoded]) -> int:
    return sum(message.size for message in messages)


def _judged(failure: Failure, parcel: SendAttempt) -> Failure:
    """What is refused alone, too, is to blame itself."""
    return failure._replace(fault=Fault.MESSAGE) if failure.fault is Fault.COMPANY and parcel.alone else failure
