"""The dead-letter topic as people see it: one entry a message, however often it was parked. No Kafka here."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from src.dead_letters.letter import REASON, Origin, Replays, identity, read_note, read_origin, read_replays, text_of
from src.model.record import Record

BEGINNING = 200  # bytes of the value that an entry keeps: all the entries are in memory at once


class State(StrEnum):
    WAITING = "waiting"
    SENT_BACK = "sent back"
    FOREIGN = "foreign"
    """Another program's, or from another topic."""


class Place(NamedTuple):
    """Where a letter lies in the dead-letter topic."""

    partition: int
    offset: int


@dataclass(frozen=True)
class Entry:
    """A parked message; `place` and `parked_at` (milliseconds since 1970) are those of its last letter."""

    identity: str
    state: State
    reason: str
    origin: Origin | None
    place: Place
    parked_at: int | None
    key: bytes | None
    value: bytes | None
    size: int
    replays: Replays
    letters: int = 1


@dataclass(frozen=True)
class Selection:
    """Which entries are meant. `partition` and `offset` are those of the message, not of its letter."""

    states: Collection[State]
    reasons: Sequence[str] = ()
    since: float | None = None
    until: float | None = None
    partition: int | None = None
    offset: int | None = None

    def of(self, entries: Iterable[Entry]) -> list[Entry]:
        """Those that are meant, in the order in which they were parked."""
        return sorted(filter(self._means, entries), key=lambda entry: (entry.parked_at or 0, entry.place))

    def _means(self, entry: Entry) -> bool:
        return (
            entry.state in self.states
            and (not self.reasons or entry.reason in self.reasons)
            and self._means_time(entry.parked_at)
            and (self.partition is None or (entry.origin is not None and entry.origin.partition == self.partition))
            and (self.offset is None or (entry.origin is not None and entry.origin.offset == self.offset))
        )

    def _means_time(self, parked_at: int | None) -> bool:
        if self.since is None and self.until is None:
            return True
        if parked_at is None:
            return False
        seconds = parked_at / 1000
        return (self.since is None or seconds >= self.since) and (self.until is None or seconds < self.until)


def entries(records: Iterable[Record], topic: str) -> list[Entry]:
    """What the records of the dead-letter topic say of the messages of a topic, and what else lies there."""
    found: dict[str, Entry] = {}
    sent_back: set[str] = set()
    for record in records:
        noted = read_note(record)
        if noted is not None:
            sent_back.add(noted)
            continue
        entry = _entry(record, topic)
        before = found.get(entry.identity)
        found[entry.identity] = replace(entry, letters=before.letters + 1) if before else entry
    return [replace(e, state=State.SENT_BACK) if e.identity in sent_back else e for e in found.values()]


def _entry(record: Record, topic: str) -> Entry:
    origin = read_origin(record.headers)
    place = Place(record.partition, record.offset)
    return Entry(
        identity=identity(record.headers) or f"letter {place.partition}:{place.offset}",
        state=State.WAITING if origin is not None and origin.topic == topic else State.FOREIGN,
        reason=text_of(record.headers, REASON) or "",
        origin=origin,
        place=place,
        parked_at=record.timestamp,
        key=record.key,
        value=None if record.value is None else record.value[:BEGINNING],
        size=len(record.value or b""),
        replays=read_replays(record.headers),
    )
