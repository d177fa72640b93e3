"""Resends the messages in the undelivered folder; only those that Kafka acknowledges are removed from it."""

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from src.delivery.batch import Batch
from src.delivery.delivery import Delivery
from src.model.delivery_failure import DeliveryFailure
from src.undelivered.files import Version, is_gone, version_of
from src.undelivered.folder import UndeliveredFolder
from src.undelivered.record import UndeliveredRecord, from_line, to_line
from src.undelivered.segments import SegmentRewrite, locked_segment, segment_paths
from src.utils.text import utc_text

BATCH_SIZE = 1000  # messages that are read and sent together …
BATCH_BYTES = 1024 * 1024  # … or as many as make up this size


class SegmentResult(NamedTuple):
    """The outcome of the messages of one segment."""

    segment: Path
    sent: int = 0
    left: int = 0
    corrupt: int = 0
    in_use: bool = False
    skipped: bool = False
    """None of its messages is to be sent, or resending was stopped before it."""
    error: str | None = None
    """Why it cannot be read or rewritten. The segment is unchanged; no message is lost."""


class Resender:
    """Sends the messages for its topic, segment by segment; a segment is locked while its messages are in flight.

    A message that Kafka rejected for its own sake remains, unless `include_rejected`.
    """

    def __init__(
        self,
        folder: UndeliveredFolder,
        delivery: Delivery,
        *,
        on_result: Callable[[SegmentResult], None],
        include_rejected: bool = False,
        batch_size: int = BATCH_SIZE,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.batch_size = batch_size
        self._folder = folder
        self._delivery = delivery
        self._on_result = on_result
        self._include_rejected = include_rejected
        self._wall_clock = wall_clock
        self._nothing_to_send: dict[Path, Version] = {}
        self._failed: set[Path] = set()

    def batches(self, stopped: Callable[[], bool]) -> Generator[Batch, None, None]:
        """One pass over the folder. Each batch is in flight; ask for the next one when it is settled.

        Once `stopped`, the rest is written back and no further batch follows.
        """
        self._failed.clear()
        for path in filter(self.may_send, self._paths()):
            if stopped():
                self._on_result(SegmentResult(path, skipped=True))
                continue
            try:
                yield from self._batches_of(path, stopped)
            except OSError as error:
                self._record_error(path, error)

    def may_send(self, path: Path) -> bool:
        """Whether the segment may hold messages to send; False once it was read and holds none, or has failed."""
        try:
            return path not in self._failed and self._nothing_to_send.get(path) != version_of(path)
        except OSError as error:
            return not isinstance(error, FileNotFoundError)  # any other error is reported when it is opened

    def _paths(self) -> Iterator[Path]:
        """Own segments come before each segment of another process: a finite run waits only for its own."""
        own = self._folder.own
        try:
            paths = segment_paths(self._folder.path)
        except OSError as error:
            self._record_error(self._folder.path, error)
            return
        self._nothing_to_send = {path: self._nothing_to_send[path] for path in paths if path in self._nothing_to_send}
        yield from own
        for path in paths:
            if path not in own:
                yield path
                yield from self._folder.own

    def _record_error(self, path: Path, error: OSError) -> None:
        self._failed.add(path)
        self._on_result(SegmentResult(path, error=error.strerror or str(error)))

    def _batches_of(self, path: Path, stopped: Callable[[], bool]) -> Iterator[Batch]:
        with locked_segment(path) as segment:
            if segment is None:
                if not is_gone(path):
                    self._on_result(SegmentResult(path, in_use=True))
            elif self._needs_resend(segment):
                yield from self._resend(path, segment, stopped)
            else:
                self._nothing_to_send[path] = version_of(path)
                self._on_result(SegmentResult(path, skipped=True))

    def _resend(self, path: Path, segment: BinaryIO, stopped: Callable[[], bool]) -> Iterator[Batch]:
        sent = 0
        with SegmentRewrite(path) as rewrite:
            while lines := self._next_lines(segment):
                if stopped():
                    _keep(lines, rewrite)
                elif records := [record.producer_record for record in self._select(lines, rewrite)]:
                    batch = self._delivery.resend(records)
                    yield batch
                    sent += batch.delivered
                    self._write_back(batch.failures, rewrite)
        self._on_result(SegmentResult(path, sent, rewrite.lines, rewrite.corrupt))

    def _next_lines(self, segment: BinaryIO) -> list[bytes]:
        """Split at newline bytes only: a value may contain other characters that Python's text files split at."""
        lines: list[bytes] = []
        size = 0
        while len(lines) < self.batch_size and size < BATCH_BYTES and (line := segment.readline()):
            lines.append(line)
            size += len(line)
        return lines

    def _select(self, lines: Iterable[bytes], rewrite: SegmentRewrite) -> Iterator[UndeliveredRecord]:
        """The records to send; the others stay in the segment, and corrupt lines are moved out of it."""
        for line in lines:
            record = from_line(line)
            if record is None:
                rewrite.add_corrupt(line)
            elif self._is_selected(record):
                yield record
            else:
                rewrite.add(line)

    def _needs_resend(self, segment: BinaryIO) -> bool:
        """True for an empty segment, too, as a full disk leaves behind: the rewrite deletes it."""
        empty = segment.seek(0, os.SEEK_END) == 0
        segment.seek(0)
        found = empty or any(record is None or self._is_selected(record) for record in map(from_line, segment))
        segment.seek(0)
        return found

    def _is_selected(self, record: UndeliveredRecord) -> bool:
        return record.topic == self._folder.topic and (self._include_rejected or not record.rejected)

    def _write_back(self, failures: Sequence[DeliveryFailure], rewrite: SegmentRewrite) -> None:
        """Messages that failed again remain, with the new reason."""
        now = utc_text(self._wall_clock())
        for failure in failures:
            rewrite.add(to_line(failure, self._folder.topic, now))


def _keep(lines: Iterable[bytes], rewrite: SegmentRewrite) -> None:
    for line in lines:
        rewrite.add(line)
