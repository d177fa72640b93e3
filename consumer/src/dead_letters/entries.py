"""The dead-lettered messages: one entry for each, however many dead letters it has. No Kafka here."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from src.dead_letters.dead_letter import (
    REASON,
    Replays,
    header_text,
    is_discard_marker,
    message_identity,
    original_position,
    read_replay_marker,
    read_replays,
)
from src.model.position import MessagePosition
from src.model.record import Record

VALUE_PREFIX_BYTES = 200  # an entry keeps no more of a value, because all entries are in memory


class State(StrEnum):
    WAITING = "waiting"
    """Neither replayed nor discarded."""
    REPLAYED = "replayed"
    DISCARDED = "discarded"
    FOREIGN = "foreign"
    """Written by another program, or from another topic."""


@dataclass(frozen=True)
class Entry:
    """A dead-lettered message.

    `dead_letter` and `dead_lettered_at` (milliseconds since the epoch) are those of its last dead letter.
    """

    identity: str
    state: State
    reason: str
    position: MessagePosition | None
    dead_letter: MessagePosition
    dead_lettered_at: int | None
    key: bytes | None
    value_prefix: bytes | None
    value_size: int
    replays: Replays
    earlier: tuple[MessagePosition, ...] = ()
    """Its other dead letters, in the dead-letter topic."""

    @property
    def copies(self) -> int:
        """The number of its dead letters."""
        return len(self.dead_letters)

    @property
    def dead_letters(self) -> tuple[MessagePosition, ...]:
        return (*self.earlier, self.dead_letter)


@dataclass(frozen=True)
class Filter:
    """`topic`, `partition` and `offset` are those of the original message; times are seconds since the epoch.

    `dead_letter` is the position of one of its dead letters.
    """

    states: Collection[State]
    reasons: Sequence[str] = ()
    since: float | None = None
    until: float | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    dead_letter: MessagePosition | None = None

    def apply(self, entries: Iterable[Entry]) -> list[Entry]:
        """The matching entries, oldest first."""
        return sorted(
            filter(self._matches, entries), key=lambda entry: (entry.dead_lettered_at or 0, entry.dead_letter)
        )

    def _matches(self, entry: Entry) -> bool:
        topic, partition, offset = entry.position or (None, None, None)
        return (
            entry.state in self.states
            and (not self.reasons or entry.reason in self.reasons)
            and self._matches_time(entry.dead_lettered_at)
            and self.partition in (None, partition)
            and self.offset in (None, offset)
            and self.topic in (None, topic)
            and self.dead_letter in (None, *entry.dead_letters)
        )

    def _matches_time(self, dead_lettered_at: int | None) -> bool:
        if self.since is None and self.until is None:
            return True
        if dead_lettered_at is None:
            return False
        seconds = dead_lettered_at / 1000
        return (self.since is None or seconds >= self.since) and (self.until is None or seconds < self.until)


def read_entries(records: Iterable[Record], reads: Callable[[str], bool]) -> list[Entry]:
    """The entries of all records in the dead-letter topic. Those from topics that are not read are foreign."""
    entries: dict[str, Entry] = {}
    markers: dict[str, State] = {}
    for record in records:
        identity = read_replay_marker(record)
        if identity is None:
            entry = _entry(record, reads)
            previous = entries.get(entry.identity)
            entries[entry.identity] = replace(entry, earlier=previous.dead_letters) if previous else entry
        elif is_discard_marker(record):
            markers.setdefault(identity, State.DISCARDED)
        else:
            markers[identity] = State.REPLAYED
    return [replace(e, state=markers[e.identity]) if e.identity in markers else e for e in entries.values()]


def entry_identity(record: Record) -> str:
    """Of the message that the dead letter contains."""
    return message_identity(record.headers) or f"foreign {record.partition}:{record.offset}"


def _entry(record: Record, reads: Callable[[str], bool]) -> Entry:
    position = original_position(record.headers)
    return Entry(
        identity=entry_identity(record),
        state=State.WAITING if position is not None and reads(position.topic) else State.FOREIGN,
        reason=header_text(record.headers, REASON) or "",
        position=position,
        dead_letter=record.position,
        dead_lettered_at=record.timestamp,
        key=record.key,
        value_prefix=None if record.value is None else record.value[:VALUE_PREFIX_BYTES],
        value_size=len(record.value or b""),
        replays=read_replays(record.headers),
    )
