"""What the parts of the bench share: servers, stores, sizes and a folder."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TypeVar

from bench.contender import Job
from bench.kafka import Kafka
from bench.options import Options, Sizes
from bench.stores import DATABASE, AcknowledgingStore, SqliteStore, Store

SMALL = 1_000
"""Messages of the runs whose CPU time is taken for that of the start, and subtracted."""

Entry = TypeVar("Entry")


@dataclass
class Workbench:
    options: Options
    kafka: Kafka
    acknowledging: AcknowledgingStore
    sqlite: SqliteStore
    further_stores: Sequence[Store]
    folder: Path
    show: Callable[[str], None]
    """Show what is being measured."""
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    @property
    def sizes(self) -> Sizes:
        return self.options.sizes

    def turns(self, entries: Sequence[Entry], rounds: int | None = None) -> Iterator[tuple[int, Entry]]:
        """Each entry once in every round, with the number of the round."""
        for number in range(1, (rounds or self.sizes.rounds) + 1):
            for entry in entries:
                yield number, entry

    @property
    def stores(self) -> list[Store]:
        return [self.acknowledging, *self.further_stores, self.sqlite]

    def job(self, topic: str, store: Store, batch: int) -> tuple[Job, Path]:
        """With a new group and collection, and the folder of the job."""
        number = next(self._numbers)
        name = f"{topic}-run{number}"
        job = Job(self.kafka.address, topic, name, store.uri(name), DATABASE, name, batch)
        return job, self.runs / f"run{number}"

    @property
    def runs(self) -> Path:
        """Logs and settings of the processes."""
        return self.folder / "runs"
