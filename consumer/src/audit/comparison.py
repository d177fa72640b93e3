"""Compares a topic, as far as a group has committed it, with its dead letters and its store."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from threading import Event
from typing import TypeVar

from src.audit.content import contents
from src.audit.ledger import DeadLetteredMessage, Expiry, Ledger
from src.audit.progress import Progress
from src.audit.report import Report, deleted_by_retention, notes
from src.data_processor import DataProcessor, processor_for
from src.dead_letters.dead_letter import original_position, original_timestamp, read_replay_marker
from src.kafka.topic_reader import OffsetRange, TopicReader, number_of_offsets
from src.model.record import Record
from src.settings import Settings
from src.storage import DataStorage
from src.utils.progress import ProgressLine

Item = TypeVar("Item")

WAIT_INTERVAL = 1.0  # seconds


def _pause(seconds: float) -> None:
    Event().wait(seconds)


class Audit:
    """Reads only, in this order: committed offsets, topic, dead letters, store.

    Every committed message must therefore be dead-lettered or stored, however much is settled meanwhile. In each
    partition, it begins with the first message at the time `since`, or later.
    """

    def __init__(
        self,
        settings: Settings,
        reader: TopicReader,
        storage: DataStorage,
        *,
        since: float | None = None,
        processor: DataProcessor | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        pause: Callable[[float], object] = _pause,
        show: ProgressLine | None = None,
    ) -> None:
        self._settings = settings
        self._topic = settings.kafka.topic
        self._reader = reader
        self._storage = storage
        self._since = since
        self._processor = processor or processor_for(settings)
        self._clock = clock
        self._now = now
        self._pause = pause
        self._show = show or ProgressLine("audit", quiet=True)

    def wait(self, seconds: float) -> None:
        """Until the group has committed every message that is in the topic now, or the time is over."""
        deadline = self._clock() + seconds
        ends = {partition: available.end for partition, available in self._progress().available.items()}
        while self._clock() < deadline and self._has_pending_messages(ends):
            self._pause(WAIT_INTERVAL)

    def run(self) -> Report:
        """Raises ConsumerError if Kafka, the store or the schema registry cannot be read."""
        with Ledger(self._topic, upserts=self._settings.document.write != "insert") as ledger:
            progress = self._progress()
            for batch in self._read("topic", self._topic, progress.settled):
                found = contents(self._processor, self._storage.validated, batch)
                ledger.add_produced(zip(batch, found, strict=True))
            pending = sum(map(len, self._read("pending messages", self._topic, progress.pending)))
            expired_offsets = deleted_by_retention(self._offset_ranges(self._topic))
            dead_letters = self._offset_ranges(self._settings.kafka.dead_letter_topic)
            for batch in self._read("dead letters", self._settings.kafka.dead_letter_topic, dead_letters):
                ledger.add_replay_markers(filter(None, map(read_replay_marker, batch)))
                ledger.add_dead_lettered(_dead_lettered(batch))
            for page in self._tracked("store", self._storage.scan()):
                ledger.add_stored(page)
            ends = {partition: available.end for partition, available in self._offset_ranges(self._topic).items()}
            findings = ledger.findings(self._expiry(), ends)
            remarks = notes(progress, findings, dead_letters, in_memory=ledger.in_memory)
            return Report(self._settings, findings, pending, expired_offsets, tuple(remarks))

    def _progress(self) -> Progress:
        partitions = self._reader.existing_partitions(self._topic)
        committed = self._reader.committed(self._topic, partitions)
        available = self._reader.offset_ranges(self._topic, partitions)
        return Progress(committed, available, self._first_offsets(available))

    def _first_offsets(self, available: Mapping[int, OffsetRange]) -> dict[int, int]:
        if self._since is None:
            return {partition: range_.first for partition, range_ in available.items()}
        offsets = self._reader.offsets_at(self._since, self._topic, list(available))
        return {partition: available[partition].end if each is None else each for partition, each in offsets.items()}

    def _has_pending_messages(self, ends: Mapping[int, int]) -> bool:
        """Reads, because the last offsets may be those of transaction markers, which are never committed."""
        ranges = {
            partition: OffsetRange(pending.first, min(pending.end, ends.get(partition, 0)))
            for partition, pending in self._progress().pending.items()
        }
        with closing(self._reader.read(self._topic, ranges)) as records:
            return next(records, None) is not None

    def _offset_ranges(self, topic: str) -> dict[int, OffsetRange]:
        return self._reader.offset_ranges(topic, self._reader.partitions(topic))

    def _read(self, task: str, topic: str, ranges: Mapping[int, OffsetRange]) -> Iterator[list[Record]]:
        return self._tracked(task, self._reader.read_batches(topic, ranges), number_of_offsets(ranges))

    def _tracked(self, task: str, pages: Iterable[list[Item]], total: int | None = None) -> Iterator[list[Item]]:
        """The pages, each of which is done when the next one is asked for."""
        with self._show.task(task, total) as add:
            for page in pages:
                yield page
                add(len(page))

    def _expiry(self) -> Expiry | None:
        ttl = self._storage.ttl_seconds
        return None if ttl is None else Expiry(self._now() - ttl, ttl)


def _dead_lettered(records: Iterable[Record]) -> Iterator[DeadLetteredMessage]:
    for record in records:
        if read_replay_marker(record) is None:
            yield DeadLetteredMessage(
                record.position, original_position(record.headers), original_timestamp(record.headers)
            )
