"""What is compared: a program that stores a topic's messages. The contract is for the peers in `peers/`, too.

A contender is one command, whose process may have children. It consumes BENCH_TOPIC from the earliest offset and stores
one document per message, with the message's id as `_id`, until SIGTERM. The collection exists with its indexes. What
has been stored is counted at the store, so the program prints nothing. It is started in a session of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from local.plan import ROOT


@dataclass(frozen=True)
class Job:
    """What a contender has to do; it gets these in its environment."""

    bootstrap: str
    topic: str
    group: str
    mongodb_uri: str
    database: str
    collection: str
    batch: int

    @property
    def environment(self) -> dict[str, str]:
        return {
            "BENCH_BOOTSTRAP": self.bootstrap,
            "BENCH_TOPIC": self.topic,
            "BENCH_GROUP": self.group,
            "BENCH_MONGODB_URI": self.mongodb_uri,
            "BENCH_DATABASE": self.database,
            "BENCH_COLLECTION": self.collection,
            "BENCH_BATCH": str(self.batch),
        }


Command = Callable[[Job, Path], Sequence[str]]
"""The command for a job; it may write files to the folder, which is the job's own."""


def _nothing_to_prepare() -> None:
    pass


@dataclass(frozen=True)
class Contender:
    """`prepare` is called before the first run, and raises CannotRun if the contender cannot be installed here."""

    name: str
    command: Command
    batches: Sequence[int] = (500,)
    prepare: Callable[[], None] = _nothing_to_prepare
    folder: Path = ROOT
    """Where it is started."""
    stores: frozenset[str] = frozenset({"mongodb"})
    """The kinds of stores that it can write to: mongodb, sqlite."""
    share: float = 1.0
    """Of the messages: a slow contender is measured with fewer, a fast one with more."""
    on_embedded: bool = True
    """Whether it works with the embedded broker."""
    guarantee: str = "none"
    note: str = ""
