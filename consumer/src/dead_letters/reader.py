"""Reads the dead-letter topic as it is now."""

from collections.abc import Iterable, Iterator, Sequence

from src.dead_letters.entries import Entry, read_entries
from src.kafka.topic_reader import OffsetRange, TopicReader, number_of_offsets
from src.model.position import MessagePosition
from src.model.record import Record
from src.settings import KafkaSettings
from src.utils.progress import ProgressLine


class DeadLetterReader:
    """Raises SourceError if the topic does not exist or cannot be read. What is written meanwhile is not read."""

    def __init__(self, settings: KafkaSettings, reader: TopicReader, *, progress: ProgressLine | None = None) -> None:
        self._settings = settings
        self._topic = settings.dead_letter_topic
        self._reader = reader
        self._progress = progress or ProgressLine("dead_letters", quiet=True)
        self._ranges = reader.offset_ranges(self._topic, reader.existing_partitions(self._topic))

    def entries(self) -> list[Entry]:
        return read_entries(self._read(self._ranges), self._settings.reads)

    def records(self, positions: Iterable[MessagePosition], task: str = "reading") -> Iterator[Record]:
        """The records at these positions of the dead-letter topic."""
        requested = set(positions)
        ranges: dict[int, OffsetRange] = {}
        for _, partition, offset in requested:
            first, end = ranges.get(partition, OffsetRange(offset, offset))
            ranges[partition] = OffsetRange(min(first, offset), max(end, offset + 1))
        return (record for record in self._read(ranges, task) if record.position in requested)

    def track(self, task: str, entries: Sequence[Entry]) -> Iterator[Entry]:
        """Shows the progress of what is done with the entries."""
        return self._progress.track(task, entries, len(entries))

    def _read(self, ranges: dict[int, OffsetRange], task: str = "reading") -> Iterator[Record]:
        return self._progress.track(task, self._reader.read(self._topic, ranges), number_of_offsets(ranges))
