"""A batch writer with fakes of the store and the dead-letter topic."""

import json
from collections.abc import Sequence
from threading import Event

from src.data_processor import DataProcessor
from src.model.record import Record
from src.pipeline.batch_writer import BatchWriter, Result, WriterOptions
from src.storage import DataStorage
from tests.fake_storage import FakeStore
from tests.fakes import FakeDeadLetters, record

UNTIL_STOPPED = 10**9
"""Calls that fail in an outage, or verdicts of a store, that do not end."""


class FakeOwnership:
    """Owns all partitions except the `revoked` ones. Kafka has rejected the last commit for the `rejected` ones."""

    def __init__(self) -> None:
        self.revoked: set[int] = set()
        self.rejected: set[int] = set()

    def owns(self, record: Record) -> bool:
        return record.partition not in self.revoked

    def commits_rejected(self, record: Record) -> bool:
        return record.partition in self.rejected


class WriterWorld:
    """A dead-letter storm begins when more than half of the last `storm_window` messages of a partition would be
    dead-lettered."""

    def __init__(
        self,
        store: FakeStore | None = None,
        dead_letters: FakeDeadLetters | None = None,
        processor: DataProcessor | None = None,
        *,
        ownership: FakeOwnership | None = None,
        probe_interval: float = 0.0,
        storm_window: int = 4,
    ) -> None:
        self.store = store or FakeStore()
        self.dead_letters = dead_letters or FakeDeadLetters()
        self.stop = Event()
        self.now = 0.0
        self.retries: list[str] = []
        self.ownership = ownership or FakeOwnership()
        self.writer = BatchWriter(
            processor or DataProcessor(),
            DataStorage({}, store=self.store),
            self.dead_letters,
            self.ownership,
            WriterOptions(
                max_retries=2,
                storm_percent=50,
                storm_window=storm_window,
                probe_interval=probe_interval,
                max_backoff=0.001,
            ),
            stop=self.stop,
            on_retry=self.retries.append,
            clock=lambda: 1000.0,
            monotonic_clock=lambda: self.now,
        )

    def write(self, records: Sequence[Record]) -> list[Result]:
        """One batch, and what is due."""
        return list(self.writer.write(records))

    def write_one(self, records: Sequence[Record]) -> Result:
        """One batch, which has one result."""
        [result] = self.writer.write(records)
        return result

    def write_all(self, records: Sequence[Record]) -> list[Result]:
        """Until nothing is held back."""
        results = self.write(records)
        while self.writer.storm_guard.held:
            results += self.write(())
        return results

    @property
    def storms(self) -> dict[int, str]:
        """The partitions in a storm, each with the reason."""
        return {partition: str(storm) for (_, partition), storm in self.writer.storm_guard.failures.items()}

    @property
    def stored(self) -> list[str]:
        return list(map(str, self.store.documents))

    @property
    def dead_lettered(self) -> list[tuple[int, str, int]]:
        """Offset, reason and number of attempts."""
        return [(each.record.offset, each.reason, each.attempts) for each in self.dead_letters.rejections]


def with_id(identifier: str, offset: int, *, partition: int = 0, **fields: object) -> Record:
    return record(offset, json.dumps({"id": identifier, **fields}).encode(), partition=partition)


def broken(offsets: range, *, partition: int = 0, assignment: int = 1) -> list[Record]:
    return [record(offset, b"{", partition=partition, assignment=assignment) for offset in offsets]


def offsets(records: Sequence[Record]) -> list[int]:
    return [each.offset for each in records]
