"""Records the produced, dead-lettered and stored messages, and compares them. Uses neither Kafka nor the store.

The ledger is a private SQLite database in a temporary file, so that memory use does not depend on the size of the
topic. Ids are stored completely, UUIDs as 16 bytes.
"""

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self, TypeGuard

from src.audit import queries
from src.audit.content import id_and_hash, pack_id, unpack_id
from src.audit.findings import MAX_EXAMPLES, Example, Findings
from src.model.errors import ConsumerError
from src.model.position import MessagePosition
from src.model.record import Record
from src.stores.document import StoredMessage

_PARTITION_SHIFT = 47  # a position is one integer, SQLite's row key: 2^47 offsets in each of 2^16 partitions
_UNKNOWN_POSITION = -1
_CACHE_KIB = 64 * 1024


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
    """Records the messages of one topic; messages of other topics are foreign."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
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

    def add_produced(self, records: Iterable[Record]) -> None:
        """Records of the topic."""
        rows = ((_pack(record.position), *id_and_hash(record.value), record.timestamp) for record in records)
        self._insert("INSERT OR IGNORE INTO produced VALUES (?, ?, ?, ?)", rows)

    def add_dead_lettered(self, messages: Iterable[DeadLetteredMessage]) -> None:
        self._insert("INSERT OR IGNORE INTO dead_lettered VALUES (?, ?, ?)", self._dead_lettered_rows(messages))

    def add_stored(self, messages: Iterable[StoredMessage]) -> None:
        self._insert("INSERT OR IGNORE INTO stored VALUES (?, ?, ?)", self._stored_rows(messages))

    def findings(self, expiry: Expiry | None = None) -> Findings:
        """To be called once.

        The TTL applies to the time at which a message was received, which only its document recorded. The message's own
        timestamp is used instead: an old message that was sent late and lost counts as expired.
        """
        with _disk_errors_translated():
            self._exclude_former_topics()
            self._classify_missing(expiry)
            for statement in queries.FIND_TWICE:
                self._database.execute(statement)
            return Findings(
                produced=self._count(queries.COUNT_PRODUCED),
                stored=self._count(queries.COUNT_STORED),
                duplicates=self._count(queries.COUNT_MISSING, "duplicate"),
                dead_lettered=self._count(queries.COUNT_DEAD_LETTERED),
                expired=self._count(queries.COUNT_MISSING, "expired"),
                lost=self._count(queries.COUNT_MISSING, "lost"),
                twice=self._count(queries.COUNT_TWICE),
                repeated=self._count(queries.COUNT_REPEATED),
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

    def _stored_rows(self, messages: Iterable[StoredMessage]) -> Iterator[tuple[int, bytes | str, int | None]]:
        """Of a foreign document the id is recorded: a message with this id is not lost."""
        for message in messages:
            if self._is_of_topic(message.position):
                yield _pack(message.position), pack_id(message.id), message.timestamp
            else:
                self._foreign_documents += 1
                yield _UNKNOWN_POSITION, pack_id(message.id), None

    def _is_of_topic(self, position: MessagePosition | None) -> TypeGuard[MessagePosition]:
        return (
            position is not None
            and position.topic == self._topic
            and 0 <= position.partition < 1 << 16
            and 0 <= position.offset < 1 << _PARTITION_SHIFT
        )

    def _insert(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with _disk_errors_translated():
            self._database.executemany(statement, rows)

    def _exclude_former_topics(self) -> None:
        documents = self._database.execute(queries.EXCLUDE_DOCUMENTS_OF_FORMER_TOPICS)
        dead_letters = self._database.execute(queries.EXCLUDE_DEAD_LETTERS_OF_FORMER_TOPICS)
        self._foreign_documents += documents.rowcount
        self._foreign_dead_letters += dead_letters.rowcount

    def _classify_missing(self, expiry: Expiry | None) -> None:
        self._database.execute(queries.FIND_MISSING)
        self._database.execute(queries.INDEX_MISSING)
        if expiry is not None:
            milliseconds = {"deleted_before": expiry.deleted_before * 1000, "ttl": expiry.ttl * 1000}
            self._database.execute(queries.FIND_EXPIRED, milliseconds)
            self._database.execute(queries.FIND_EXPIRED_DUPLICATES, milliseconds)
        self._database.execute(queries.FIND_DUPLICATES)

    def _count(self, query: str, *parameters: str) -> int:
        return int(self._database.execute(query, parameters).fetchone()[0])

    def _examples(self, query: str) -> tuple[Example, ...]:
        rows = self._database.execute(query, (MAX_EXAMPLES,))
        return tuple(Example(*_unpack(position), unpack_id(packed), problem) for position, packed, problem in rows)


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
