"""The audit's ledger: what was produced, parked and stored, and what follows from it. No Kafka and no store here.

It lies in a private SQLite database in a temporary file, so that memory stays flat however long the topic is, and
each verdict is a query. Ids are kept whole, UUIDs as their 16 bytes; no verdict on an id rests on a hash.
"""

import hashlib
import re
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, TypeGuard
from uuid import UUID

import msgspec

from src.model.errors import ConsumerError, InvalidMessage
from src.stores.document import canonical_json, convert_dates

EXAMPLES = 20  # how many lost or doubled messages are shown

_PARTITION_SHIFT = 47  # a position is one number, for SQLite's row key: 2^47 offsets in each of 2^16 partitions
_NOWHERE = -1  # of a document that is kept for its id alone
_CACHE_KIB = 64 * 1024
_SPEC_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

_TABLES = """
    CREATE TABLE produced (position INTEGER PRIMARY KEY, id, content INTEGER, time INTEGER);
    CREATE TABLE parked (position INTEGER, letter INTEGER, time INTEGER, PRIMARY KEY (position, letter)) WITHOUT ROWID;
    CREATE TABLE stored (position INTEGER, id, time INTEGER, PRIMARY KEY (position, id)) WITHOUT ROWID;
    CREATE TABLE missing (position INTEGER PRIMARY KEY, id, content INTEGER, time INTEGER, fate TEXT);
    CREATE TABLE twice (position INTEGER, how TEXT);
"""

_PRODUCED = "SELECT count(*) FROM produced"
_STORED = """
    SELECT count(*) FROM produced
     WHERE EXISTS (SELECT 1 FROM stored WHERE stored.position = produced.position)"""
_DEAD_LETTERED = """
    SELECT count(*) FROM produced
     WHERE EXISTS (SELECT 1 FROM parked WHERE parked.position = produced.position)
       AND NOT EXISTS (SELECT 1 FROM stored WHERE stored.position = produced.position)"""
_REPEATED = "SELECT count(*) FROM (SELECT 1 FROM parked GROUP BY position, time HAVING count(*) > 1)"

# A topic that was deleted and made again has other messages at the same places: their times tell them apart.
_DISOWN_DOCUMENTS = """
    UPDATE OR REPLACE stored SET position = -1 WHERE EXISTS (
        SELECT 1 FROM produced WHERE produced.position = stored.position AND produced.time <> stored.time)"""
_DISOWN_LETTERS = """
    DELETE FROM parked WHERE EXISTS (
        SELECT 1 FROM produced WHERE produced.position = parked.position AND produced.time <> parked.time)"""

# Neither a document nor a dead letter comes from this message's own place.
_FIND_MISSING = """
    INSERT INTO missing
    SELECT position, id, content, time, 'lost' FROM produced
     WHERE NOT EXISTS (SELECT 1 FROM stored WHERE stored.position = produced.position)
       AND NOT EXISTS (SELECT 1 FROM parked WHERE parked.position = produced.position)"""
_INDEX_MISSING = "CREATE INDEX missing_id ON missing (id)"
_FIND_EXPIRED = "UPDATE missing SET fate = 'expired' WHERE time < :before"
# ... or the same message was sent before, while its document, which has expired since, was there.
_FIND_EXPIRED_DUPLICATES = """
    UPDATE missing SET fate = 'expired' WHERE position IN (
        SELECT missing.position
          FROM produced CROSS JOIN missing ON missing.id = produced.id
         WHERE produced.time < :before AND produced.content = missing.content
           AND missing.time BETWEEN produced.time AND produced.time + :lifetime)"""
# ... but the same message, sent before or after, has its document. Other content under the same id is not the same
# message; where the document's own message is gone from the topic, its content can't be compared.
_FIND_DUPLICATES = """
    UPDATE missing SET fate = 'duplicate' WHERE position IN (
        SELECT missing.position
          FROM stored CROSS JOIN missing ON missing.id = stored.id
          LEFT JOIN produced ON produced.position = stored.position
         WHERE produced.content IS NULL OR produced.content = missing.content)"""
_FATE = "SELECT count(*) FROM missing WHERE fate = ?"
_LOST = """
    SELECT position, id, 'neither stored nor dead-lettered' FROM missing
     WHERE fate = 'lost' ORDER BY position LIMIT ?"""

_FIND_TWICE = (
    """
    INSERT INTO twice SELECT DISTINCT position, 'stored and dead-lettered' FROM parked
     WHERE EXISTS (SELECT 1 FROM stored WHERE stored.position = parked.position
                      AND (stored.time <> parked.time) IS NOT TRUE)""",
    """
    INSERT INTO twice SELECT position, count(*) || ' documents' FROM stored
     WHERE position >= 0 GROUP BY position, time HAVING count(*) > 1""",
    """
    INSERT INTO twice SELECT DISTINCT position, 'stored under another id' FROM stored JOIN produced USING (position)
     WHERE stored.id IS NOT produced.id""",
)
_TWICE = "SELECT count(DISTINCT position) FROM twice"
_TWICE_FIRST = """
    SELECT position, produced.id, group_concat(how, ', ') FROM twice LEFT JOIN produced USING (position)
     GROUP BY position ORDER BY position LIMIT ?"""


class NoRoom(ConsumerError):
    """The ledger's temporary file can't grow."""


class Place(NamedTuple):
    """Where in Kafka a message was, and the time that it bears, in milliseconds since 1970 where Kafka tells it."""

    topic: str
    partition: int
    offset: int
    time: int | None = None


class Expiry(NamedTuple):
    """Documents live for `lifetime`, and those from `before` are gone, by the store's TTL. Both in seconds."""

    before: float
    lifetime: float


class Example(NamedTuple):
    """A message that something is wrong with."""

    partition: int
    offset: int
    id: str | None
    problem: str


@dataclass(frozen=True)
class Findings:
    """Every message that was produced is one of stored, duplicate, dead-lettered, expired and lost.

    `twice` and `repeated` count messages too, of those or of others whose record is gone from the topic.
    """

    produced: int
    stored: int
    duplicates: int
    dead_lettered: int
    expired: int
    lost: int
    twice: int
    repeated: int
    foreign_documents: int
    foreign_letters: int
    lost_first: tuple[Example, ...] = ()
    twice_first: tuple[Example, ...] = ()


class Ledger:
    """One topic's messages and what became of them; `findings` closes the account."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._foreign_documents = 0
        self._foreign_letters = 0
        self.in_memory = not _has_room_for_files()
        self._database = sqlite3.connect(":memory:" if self.in_memory else "")
        self._database.executescript(
            f"""
            PRAGMA temp_store = {"MEMORY" if self.in_memory else "FILE"};
            PRAGMA cache_size = -{_CACHE_KIB};
            PRAGMA journal_mode = OFF;
            PRAGMA synchronous = OFF;
            {_TABLES}"""
        )

    def add_produced(self, messages: Iterable[tuple[Place, bytes | None]]) -> None:
        """Committed messages of the topic: place and value."""
        rows = ((_position(place), *_identity(value), place.time) for place, value in messages)
        self._insert("INSERT OR IGNORE INTO produced VALUES (?, ?, ?, ?)", rows)

    def add_parked(self, letters: Iterable[tuple[Place, Place | None]]) -> None:
        """Dead letters: the letter's own place, and the parked message's where it has one."""
        self._insert("INSERT OR IGNORE INTO parked VALUES (?, ?, ?)", self._own_letters(letters))

    def add_stored(self, documents: Iterable[tuple[object, Place | None]]) -> None:
        """Documents: their id, and the place of the message that each was made from."""
        self._insert("INSERT OR IGNORE INTO stored VALUES (?, ?, ?)", self._documents(documents))

    def findings(self, expiry: Expiry | None = None) -> Findings:
        """What became of each. Call it once.

        The TTL goes by when a message was received, which its document alone knew; what became of it is told by the
        time that the message bears. An old message that is sent late and lost is taken for expired.
        """
        with _saying_no_room():
            self._disown_former_topics()
            self._sort_out_missing(expiry)
            for statement in _FIND_TWICE:
                self._database.execute(statement)
            return Findings(
                produced=self._count(_PRODUCED),
                stored=self._count(_STORED),
                duplicates=self._count(_FATE, "duplicate"),
                dead_lettered=self._count(_DEAD_LETTERED),
                expired=self._count(_FATE, "expired"),
                lost=self._count(_FATE, "lost"),
                twice=self._count(_TWICE),
                repeated=self._count(_REPEATED),
                foreign_documents=self._foreign_documents,
                foreign_letters=self._foreign_letters,
                lost_first=self._examples(_LOST),
                twice_first=self._examples(_TWICE_FIRST),
            )

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _own_letters(self, letters: Iterable[tuple[Place, Place | None]]) -> Iterator[tuple[int, int, int | None]]:
        for letter, origin in letters:
            if self._is_ours(origin):
                yield _position(origin), _position(letter), origin.time
            else:
                self._foreign_letters += 1

    def _documents(
        self, documents: Iterable[tuple[object, Place | None]]
    ) -> Iterator[tuple[int, bytes | str, int | None]]:
        """A foreign document is kept for its id alone: the message with that id is not lost."""
        for identifier, origin in documents:
            if self._is_ours(origin):
                yield _position(origin), _packed(identifier), origin.time
            else:
                self._foreign_documents += 1
                yield _NOWHERE, _packed(identifier), None

    def _is_ours(self, place: Place | None) -> TypeGuard[Place]:
        return (
            place is not None
            and place.topic == self._topic
            and 0 <= place.partition < 1 << 16
            and 0 <= place.offset < 1 << _PARTITION_SHIFT
        )

    def _insert(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with _saying_no_room():
            self._database.executemany(statement, rows)

    def _disown_former_topics(self) -> None:
        self._foreign_documents += self._database.execute(_DISOWN_DOCUMENTS).rowcount
        self._foreign_letters += self._database.execute(_DISOWN_LETTERS).rowcount

    def _sort_out_missing(self, expiry: Expiry | None) -> None:
        self._database.execute(_FIND_MISSING)
        self._database.execute(_INDEX_MISSING)
        if expiry is not None:
            milliseconds = {"before": expiry.before * 1000, "lifetime": expiry.lifetime * 1000}
            self._database.execute(_FIND_EXPIRED, milliseconds)
            self._database.execute(_FIND_EXPIRED_DUPLICATES, milliseconds)
        self._database.execute(_FIND_DUPLICATES)

    def _count(self, query: str, *parameters: str) -> int:
        return int(self._database.execute(query, parameters).fetchone()[0])

    def _examples(self, query: str) -> tuple[Example, ...]:
        rows = self._database.execute(query, (EXAMPLES,))
        return tuple(Example(*_parts(position), _unpacked(packed), problem) for position, packed, problem in rows)


def _position(place: Place) -> int:
    return place.partition << _PARTITION_SHIFT | place.offset


def _parts(position: int) -> tuple[int, int]:
    return position >> _PARTITION_SHIFT, position & (1 << _PARTITION_SHIFT) - 1


def _identity(value: bytes | None) -> tuple[bytes | str | None, int]:
    """The message's id, where it has one, and 64 bits of its content: equal for what the store takes for equal."""
    data = value or b""
    try:
        message = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None, _bits(data)
    return _id_of(message), _bits(_content(message) or data)


def _id_of(message: Mapping[str, Any]) -> bytes | str | None:
    identifier = message.get("id")
    return _packed(identifier) if isinstance(identifier, str) else None


def _content(message: Mapping[str, Any]) -> bytes | None:
    """What the store compares; None for what it can't hold. Without a date to read it is had twenty times faster."""
    created_at = message.get("created_at")
    try:
        if created_at is None or (isinstance(created_at, str) and _SPEC_DATE.fullmatch(created_at)):
            return msgspec.json.encode(message, order="sorted")
        return canonical_json(convert_dates(message))
    except (msgspec.MsgspecError, InvalidMessage, UnicodeError, OverflowError, RecursionError):
        return None


def _bits(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), signed=True)


def _packed(identifier: object) -> bytes | str:
    """A UUID as its 16 bytes, anything else as text; SQLite never takes one for the other."""
    text = identifier if isinstance(identifier, str) else repr(identifier)
    return bytes.fromhex(text.replace("-", "")) if _CANONICAL_UUID.fullmatch(text) else text


def _unpacked(packed: bytes | str | None) -> str | None:
    return str(UUID(bytes=packed)) if isinstance(packed, bytes) else packed


def _has_room_for_files() -> bool:
    try:
        with tempfile.TemporaryFile():
            return True
    except OSError:
        return False


@contextmanager
def _saying_no_room() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise NoRoom(
            f"the audit's temporary file can't grow ({error}): set SQLITE_TMPDIR to a folder with more room"
        ) from error
