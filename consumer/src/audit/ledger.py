"""Records the produced, dead-lettered and stored messages, and compares them. Uses neither Kafka nor the store.

The ledger is a private SQLite database in a temporary file, so that memory use does not depend on the size of the
topic. Almost every message has one document, with its id, or is skipped, and is compared in memory, one range of
positions at a time. What remains, and everything with the same ids, is copied into tables, for the queries.
"""

import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple, Self, TypeGuard

from src.audit import queries
from src.audit.content import TOMBSTONE, Content
from src.audit.findings import MAX_EXAMPLES, Example, Findings
from src.audit.pages import Key, Pages, PositionRange
from src.model.errors import ConsumerError
from src.model.position import MessagePosition
from src.model.record import Record
from src.stores.document import StoredMessage

_PARTITION_SHIFT = 47  # a position is one integer, SQLite's row key: 2^47 offsets in each of 2^16 partitions
_PARTITIONS, _OFFSETS = 1 << 16, 1 << _PARTITION_SHIFT
_CACHE_KIB = 64 * 1024
_MAX_IDS = 100_000  # in memory

ProducedMessage = tuple[Record, Content]
"""A message of the topic."""


class LedgerFull(ConsumerError):
    """The temporary file cannot grow."""


class DeadLetteredMessage(NamedTuple):
    """The position of a dead letter, and the position and timestamp of its message, None if unknown."""

    dead_letter: MessagePosition
    position: MessagePosition | None = None
    timestamp: int | None = None


class Expiry(NamedTuple):
    """The store deletes documents after `ttl` seconds, and has deleted those from before `deleted_before`."""

    deleted_before: float
    ttl: float


class Ledger:
    """Records the messages of one topic; messages of other topics are foreign.

    With `upserts` a newer message with the id of a stored one has replaced its document, or deleted it.
    """

    def __init__(self, topic: str, *, upserts: bool = False) -> None:
        self._topic = topic
        self._upserts = upserts
        self._foreign_documents = 0
        self._foreign_dead_letters = 0
        self.in_memory = not _can_create_files()
        self._database = sqlite3.connect(":memory:" if self.in_memory else "")
        self._database.executescript(
            f"""
            PRAGMA temp_store = {"MEMORY" if self.in_memory else "FILE"};
            PRAGMA cache_size = -{_CACHE_KIB};
            PRAGMA journal_mode = OFF;
            PRAGMA synchronous = OFF;
            {queries.TABLES}"""
        )
        self._pages = Pages(self._database)
        self._regular: Counter[str] = Counter()  # messages that are in no table

    def add_produced(self, messages: Iterable[ProducedMessage]) -> None:
        """Messages of the topic. A page at a time, as the store's documents: each call has a cost of its own."""
        with _disk_errors_translated():
            self._pages.add_produced(
                (record.partition << _PARTITION_SHIFT | record.offset, identity, record.timestamp, content)
                for record, (identity, content) in messages
            )

    def add_dead_lettered(self, messages: Iterable[DeadLetteredMessage]) -> None:
        with _disk_errors_translated():
            self._database.executemany(queries.ADD_DEAD_LETTERED, self._dead_lettered_rows(messages))

    def add_replay_markers(self, identities: Iterable[str]) -> None:
        """Of messages, of whatever topic, whose dead letters were replayed or discarded."""
        with _disk_errors_translated():
            self._database.executemany(queries.ADD_REPLAY_MARKER, ((identity,) for identity in identities))

    def add_stored(self, messages: Iterable[StoredMessage]) -> None:
        with _disk_errors_translated():
            self._pages.add_stored(self._keys(messages))

    def findings(self, expiry: Expiry | None = None, ends: Mapping[int, int] = MappingProxyType({})) -> Findings:
        """To be called once. `ends` are the offsets at which the partitions end: what is beyond is of a former topic.

        The TTL applies to the time at which a message was received, which only its document recorded. The message's own
        timestamp is used instead: an old message that was sent late and lost counts as expired.
        """
        with _disk_errors_translated():
            self._copy_irregular()
            self._exclude_former_topics()
            self._database.execute(queries.FIND_MISSING)
            self._copy_same_ids()
            self._classify_missing(expiry, ends)
            for statement in queries.FIND_TWICE:
                self._database.execute(statement, {"topic": self._topic})
            marked = self._count(queries.COUNT_MARKED, TOMBSTONE)
            return Findings(
                produced=self._regular.total() + self._count(queries.COUNT_PRODUCED),
                stored=self._regular["stored"] + self._count(queries.COUNT_STORED) - marked,
                duplicates=self._count(queries.COUNT_MISSING, "duplicate"),
                superseded=self._count(queries.COUNT_MISSING, "superseded"),
                deleted=self._regular["deleted"] + marked + self._count(queries.COUNT_MISSING, "deleted"),
                dead_lettered=self._count(queries.COUNT_DEAD_LETTERED),
                skipped=self._regular["skipped"] + self._count(queries.COUNT_MISSING, "skipped"),
                expired=self._count(queries.COUNT_MISSING, "expired"),
                lost=self._count(queries.COUNT_MISSING, "lost") + self._count(queries.COUNT_MISSING, "outdated"),
                twice=self._count(queries.COUNT_TWICE),
                repeated=self._count(queries.COUNT_REPEATED),
                other_ids=self._count(queries.COUNT_OTHER_IDS),
                foreign_documents=self._foreign_documents,
                foreign_dead_letters=self._foreign_dead_letters,
                lost_first=self._examples(queries.FIRST_LOST),
                twice_first=self._examples(queries.FIRST_TWICE),
            )

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _dead_lettered_rows(self, messages: Iterable[DeadLetteredMessage]) -> Iterator[tuple[int, int, int | None]]:
        for message in messages:
            if self._is_of_topic(message.position):
                yield _pack(message.position), _pack(message.dead_letter), message.timestamp
            else:
                self._foreign_dead_letters += 1

    def _keys(self, messages: Iterable[StoredMessage]) -> Iterator[Key]:
        """A foreign document has a negative position. Its id is recorded: a message with this id is not lost."""
        for identifier, position, timestamp in messages:
            if self._is_of_topic(position):
                yield _pack(position), identifier, timestamp
            else:
                self._foreign_documents += 1
                yield -self._foreign_documents, identifier, timestamp if position else None

    def _is_of_topic(self, position: MessagePosition | None) -> TypeGuard[MessagePosition]:
        if position is None:
            return False
        topic, partition, offset = position
        return topic == self._topic and 0 <= partition < _PARTITIONS and 0 <= offset < _OFFSETS

    def _copy_irregular(self) -> None:
        """Into the tables: what is neither a message with its document nor skipped."""
        for range_ in self._pages.ranges():
            irregular = range_.irregular(self._dead_lettered_or_copied(range_))
            if irregular:
                self._copy(range_, irregular)
            self._regular.update(_numbers(range_.contents_without(irregular)))

    def _copy_same_ids(self) -> None:
        """Into the tables: the other messages and documents with the ids of missing ones; if these are many, all."""
        ids = {identifier for (identifier,) in self._database.execute(queries.MISSING_IDS, (_MAX_IDS + 1,))}
        for range_ in self._pages.ranges() if ids else ():
            irregular = range_.irregular(self._dead_lettered_or_copied(range_))
            keys = {
                key
                for key in (range_.produced.keys() | range_.stored) - irregular
                if key[1] in ids or (len(ids) > _MAX_IDS and key[1] is not None)
            }
            self._regular.subtract(_numbers(self._copy(range_, keys)))

    def _dead_lettered_or_copied(self, range_: PositionRange) -> Set[int]:
        rows = self._database.execute(
            queries.DEAD_LETTERED_OR_COPIED_BETWEEN, {"first": range_.first, "last": range_.last}
        )
        return {position for (position,) in rows}

    def _copy(self, range_: PositionRange, keys: Set[Key]) -> list[int | None]:
        """Returns the contents of the messages that are in the tables now."""
        produced = [(*key, range_.produced[key]) for key in keys & range_.produced.keys()]
        self._database.executemany(queries.ADD_STORED, keys & range_.stored)
        self._database.executemany(queries.ADD_PRODUCED, produced)
        return [message[3] for message in produced]

    def _exclude_former_topics(self) -> None:
        documents = self._database.execute(queries.EXCLUDE_DOCUMENTS_OF_FORMER_TOPICS)
        dead_letters = self._database.execute(queries.EXCLUDE_DEAD_LETTERS_OF_FORMER_TOPICS)
        self._foreign_documents += documents.rowcount
        self._foreign_dead_letters += dead_letters.rowcount

    def _classify_missing(self, expiry: Expiry | None, ends: Mapping[int, int]) -> None:
        self._database.execute(queries.INDEX_MISSING)
        if self._upserts:
            self._find_superseded(ends)
        if expiry is not None:
            milliseconds = {"deleted_before": expiry.deleted_before * 1000, "ttl": expiry.ttl * 1000}
            self._database.execute(queries.FIND_EXPIRED, milliseconds)
            if not self._upserts:
                self._database.execute(queries.FIND_EXPIRED_DUPLICATES, milliseconds)
        for statement in queries.FIND_OUTDATED if self._upserts else queries.FIND_DUPLICATES:
            self._database.execute(statement)

    def _find_superseded(self, ends: Mapping[int, int]) -> None:
        for partition, end in ends.items():
            beyond = partition << _PARTITION_SHIFT | end, (partition + 1 << _PARTITION_SHIFT) - 1
            self._database.execute(queries.EXCLUDE_DOCUMENTS_BEYOND, beyond)
        for statement in queries.FIND_SUPERSEDED:
            self._database.execute(statement)
        self._database.execute(queries.FIND_DELETED, (TOMBSTONE,))

    def _count(self, query: str, *parameters: str | int) -> int:
        return int(self._database.execute(query, parameters).fetchone()[0])

    def _examples(self, query: str) -> tuple[Example, ...]:
        rows = self._database.execute(query, (MAX_EXAMPLES,))
        return tuple(Example(*_unpack(position), identifier, problem) for position, identifier, problem in rows)


def _numbers(contents: Sequence[int | None]) -> Mapping[str, int]:
    """Of regular messages."""
    skipped, deleted = contents.count(None), contents.count(TOMBSTONE)
    return {"stored": len(contents) - skipped - deleted, "deleted": deleted, "skipped": skipped}


def _pack(position: MessagePosition) -> int:
    return position.partition << _PARTITION_SHIFT | position.offset


def _unpack(position: int) -> tuple[int, int]:
    return position >> _PARTITION_SHIFT, position & (1 << _PARTITION_SHIFT) - 1


def _can_create_files() -> bool:
    try:
        with tempfile.TemporaryFile():
            return True
    except OSError:
        return False


@contextmanager
def _disk_errors_translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise LedgerFull(
            f"the audit's temporary file cannot grow ({error}): set SQLITE_TMPDIR to a directory with more space"
        ) from error
