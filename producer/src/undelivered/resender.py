"""Sending again what is in the undelivered folder. Only what Kafka has confirmed leaves it."""

import logging
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import BinaryIO, NamedTuple, Self

from src.delivery import Batch, Delivery
from src.kafka.produce_request import Failure, Fault
from src.model.message import utc_text
from src.undelivered.files import Version, is_gone, version_of
from src.undelivered.segments import SegmentRewrite, Undelivered, UndeliveredRecord, from_line, segments, taken, to_line
from src.utils.locking import LOCKS

logger = logging.getLogger(__name__)

AT_ONCE = 1000  # messages that are read, sent and settled together …
AT_ONCE_BYTES = 1024 * 1024  # … or as many as make up these
PACE = 1.0  # seconds from one such batch to the next, beside the new messages
AFTER_FAILURE = 10.0  # seconds until Kafka is tried again
LOOK_AGAIN = 5.0  # seconds until the folder is looked into again …
AFTER_TROUBLE = 60.0  # … and where something in it could not be rewritten


class Outcome(NamedTuple):
    """What became of the messages of one segment."""

    segment: Path
    sent: int = 0
    left: int = 0
    broken: int = 0
    in_use: bool = False
    passed_over: bool = False
    """Nothing in it is to go, or there was enough before it."""
    trouble: str | None = None
    """Why it can't be read, or what is left can't be written back. The segment is as it was; nothing is lost."""


class Resender:
    """Sends what lies in the folder for its topic, segment by segment, each of which is locked meanwhile.

    A message that was refused for its own sake stays, unless these are to go as well.
    """

    def __init__(
        self,
        kept: Undelivered,
        delivery: Delivery,
        *,
        tell: Callable[[Outcome], None],
        refused_too: bool = False,
        at_once: int = AT_ONCE,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.at_once = at_once
        self._kept = kept
        self._folder = kept.folder
        self._delivery = delivery
        self._tell = tell
        self._refused_too = refused_too
        self._wall_clock = wall_clock
        self._nothing_in: dict[Path, Version] = {}
        self._in_trouble: set[Path] = set()

    def batches(self, enough: Callable[[], bool]) -> Generator[Batch, None, None]:
        """Once through the folder. Each batch is on its way; ask for the next when it is settled. When there is enough,
        what is left goes back, and no batch follows.
        """
        self._in_trouble.clear()
        for path in filter(self.may_send, self._in_turn()):
            if enough():
                self._tell(Outcome(path, passed_over=True))
                continue
            try:
                yield from self._batches_of(path, enough)
            except OSError as error:
                self._meet_trouble(path, error)

    def may_send(self, path: Path) -> bool:
        """Whether something in the segment may be to go; false once it was seen that nothing is, or can."""
        try:
            return path not in self._in_trouble and self._nothing_in.get(path) != version_of(path)
        except OSError as error:
            return not isinstance(error, FileNotFoundError)  # what else it is, the one who opens it will tell

    def _in_turn(self) -> Iterator[Path]:
        """Our own come before each of the others': a run with an end waits for its own, and for these alone."""
        ours = self._kept.own
        try:
            paths = segments(self._folder)
        except OSError as error:
            self._meet_trouble(self._folder, error)
            return
        self._nothing_in = {path: self._nothing_in[path] for path in paths if path in self._nothing_in}
        yield from ours
        for path in paths:
            if path not in ours:
                yield path
                yield from self._kept.own

    def _meet_trouble(self, path: Path, error: OSError) -> None:
        self._in_trouble.add(path)
        self._tell(Outcome(path, trouble=error.strerror or str(error)))

    def _batches_of(self, path: Path, enough: Callable[[], bool]) -> Iterator[Batch]:
        with taken(path) as segment:
            if segment is None:
                if not is_gone(path):
                    self._tell(Outcome(path, in_use=True))
            elif self._concerns_us(segment):
                yield from self._send(path, segment, enough)
            else:
                self._nothing_in[path] = version_of(path)
                self._tell(Outcome(path, passed_over=True))

    def _send(self, path: Path, segment: BinaryIO, enough: Callable[[], bool]) -> Iterator[Batch]:
        sent = 0
        with SegmentRewrite(path) as remainder:
            while lines := self._next_lines(segment):
                if enough():
                    _return_unsent(lines, remainder)
                elif messages := [kept.message for kept in self._sorted_out(lines, remainder)]:
                    batch = self._delivery.dispatch_again(messages)
                    yield batch
                    sent += batch.delivered
                    self._return(batch.given_up, remainder)
        self._tell(Outcome(path, sent, remainder.lines, remainder.broken))

    def _next_lines(self, segment: BinaryIO) -> list[bytes]:
        """They are cut at newline bytes alone: a value may hold what Python's text files take for a line end."""
        lines: list[bytes] = []
        size = 0
        while len(lines) < self.at_once and size < AT_ONCE_BYTES and (line := segment.readline()):
            lines.append(line)
            size += len(line)
        return lines

    def _sorted_out(self, lines: Iterable[bytes], remainder: SegmentRewrite) -> Iterator[UndeliveredRecord]:
        """The messages that are to go; the others stay, and what is no message is put aside."""
        for line in lines:
            kept = from_line(line)
            if kept is None:
                remainder.put_aside(line)
            elif self._is_to_go(kept):
                yield kept
            else:
                remainder.add(line)

    def _concerns_us(self, segment: BinaryIO) -> bool:
        """An empty one, too: it was left where a disk was full."""
        empty = segment.seek(0, os.SEEK_END) == 0
        segment.seek(0)
        found = empty or any(kept is None or self._is_to_go(kept) for kept in map(from_line, segment))
        segment.seek(0)
        return found

    def _is_to_go(self, kept: UndeliveredRecord) -> bool:
        return kept.topic == self._kept.topic and (self._refused_too or not kept.refused)

    def _return(self, failures: Sequence[Failure], remainder: SegmentRewrite) -> None:
        """What was given up once more stays, with the new reason."""
        now = utc_text(self._wall_clock())
        for failure in failures:
            remainder.add(to_line(failure, self._kept.topic, now))


def _return_unsent(lines: Iterable[bytes], remainder: SegmentRewrite) -> None:
    for line in lines:
        remainder.add(line)


class BackgroundResender:
    """Empties the folder beside the new messages, at a moderate pace. Where Kafka does not deliver, a single message
    tries it now and then.

    On Windows it sends nothing: there it can't be told whose segment is whose.
    """

    def __init__(
        self,
        undelivered: Undelivered,
        delivery: Delivery,
        *,
        stop: Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.trouble: str | None = None
        self._trouble_met: str | None = None
        self._undelivered = undelivered
        self._delivery = delivery
        self._stop = stop
        self._clock = clock
        self._resender = Resender(undelivered, delivery, tell=self._take_note)
        self._batches = self._resender.batches(stop.is_set)
        self._batch: Batch | None = None
        self._due = clock()

    @property
    def on_its_way(self) -> int:
        return self._batch.outstanding if self._batch else 0

    @property
    def unfinished(self) -> bool:
        """Whether messages that this process kept are still to be sent, and Kafka takes them."""
        if not LOCKS or self.trouble or not self._delivery.delivers:
            return False
        return any(self._resender.may_send(path) for path in self._undelivered.own)

    def turn(self) -> None:
        """Send the next of them, if it is time."""
        if self._batch and self._batch.settled:
            if any(failure.fault is Fault.WORLD for failure in self._batch.given_up):
                self._due = self._clock() + AFTER_FAILURE
            self._batch = None
        if LOCKS and self._batch is None and self._clock() >= self._due and self._delivery.has_room_again:
            self._send_next()

    def close(self) -> None:
        """What is left goes back into its segment. To be called when nothing is on its way any more."""
        if not self.on_its_way:
            next(self._batches, None)
        self._batches.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _send_next(self) -> None:
        self._resender.at_once = AT_ONCE if self._delivery.delivers else 1
        self._batch = next(self._batches, None)
        self._due = self._clock() + PACE
        if self._batch is None:
            self._start_again()

    def _start_again(self) -> None:
        self.trouble, self._trouble_met = self._trouble_met, None
        self._due = self._clock() + (AFTER_TROUBLE if self.trouble else LOOK_AGAIN)
        self._batches = self._resender.batches(self._stop.is_set)

    def _take_note(self, outcome: Outcome) -> None:
        facts = {"segment": outcome.segment.name, "sent": outcome.sent, "left": outcome.left}
        if outcome.trouble:
            self._trouble_met = f"undelivered messages can't be sent again: {outcome.segment}: {outcome.trouble}"
            logger.error("undelivered messages can't be sent again", extra={**facts, "reason": outcome.trouble})
        elif outcome.broken:
            logger.warning("broken lines put aside", extra={**facts, "broken": outcome.broken})
        elif outcome.sent:
            logger.info("undelivered messages sent again", extra=facts)
