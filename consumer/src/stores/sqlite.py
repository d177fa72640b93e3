"""A store in a SQLite file, for a machine without MongoDB. Queries have the same results as in MongoDB.

Several processes may write at the same time; each thread has its own connection.
"""

import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from src.model.check_result import CheckResult
from src.model.errors import InvalidMessage, StorageUnavailable
from src.model.position import MessagePosition
from src.model.verdict import DUPLICATE_KEY, STORED, Outcome, Verdict
from src.settings import MongoSettings
from src.stores.document import (
    DEFAULT_SCHEMA,
    Document,
    DocumentBatch,
    Identity,
    Schema,
    StoredMessage,
    as_date,
    as_identity,
    convert_dates,
    dates_as_text,
    epoch_milliseconds,
    identity_of,
    milliseconds,
)
from src.stores.matching import in_order, matcher
from src.stores.order import Overwrites, may_overwrite
from src.stores.query import Query, Sort
from src.stores.sqlite_filter import text_or_none, where_clauses
from src.stores.store import Write
from src.utils.config import ConfigurationError

logger = logging.getLogger(__name__)

SCHEME = "sqlite://"
PAGE = 10_000  # rows of a scan in one call
BUSY_TIMEOUT = 30.0  # seconds to wait for the lock of another writer

# WITHOUT ROWID would be half as fast with random ids. `id` has no type: 1 and '1' are different ids. The columns after
# it are for the indexes and the audit; a column is NULL where the document has no such field, or a value of another
# type. `dates` has the paths of the texts in the document that are dates; NULL is `created_at`, if it exists.
CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS {table} (
    id NOT NULL PRIMARY KEY, created_at INTEGER, name TEXT, source TEXT,
    topic TEXT, "partition" INTEGER, "offset" INTEGER, document TEXT NOT NULL, dates TEXT
)
"""
COLUMNS = "SELECT name FROM pragma_table_info(?)"
UPGRADE = (
    "ALTER TABLE {table} RENAME TO {former}",
    CREATE_TABLE,
    "INSERT INTO {table} SELECT *, NULL FROM {former}",
    "DROP TABLE {former}",
)
"""Of a table that was created before its last column existed."""
INDEXES = {"created_at": "created_at", "name": "name", "source": "source, created_at"}
CREATE_INDEX = "CREATE INDEX IF NOT EXISTS {index} ON {table} ({columns})"
INSERT = "INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"
REPLACE = "INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
DOCUMENTS = "SELECT document, dates FROM {table}"
DOCUMENT = "SELECT document, dates FROM {table} WHERE id = ?"
IDS = "SELECT id, document FROM {table}"

ID_TAKEN = Verdict(Outcome.FAILED, DUPLICATE_KEY, sqlite3.IntegrityError("the id is taken"))

CAUSES = {
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_FULL: "disk_full",
    sqlite3.SQLITE_IOERR: "disk_error",
    sqlite3.SQLITE_CORRUPT: "corrupted",
    sqlite3.SQLITE_NOTADB: "corrupted",
    sqlite3.SQLITE_READONLY: "not_authorized",
}

PRIMARY_CODE = 0xFF  # masks the primary error code of an extended one


class SqliteStore:
    """Implements the Store protocol, with one table for each collection."""

    def __init__(
        self, settings: MongoSettings, schema: Schema = DEFAULT_SCHEMA, *, busy_timeout: float = BUSY_TIMEOUT
    ) -> None:
        self._schema = schema
        self._path = _path(settings.uri.reveal())
        self._collection = settings.collection
        self._busy_timeout = busy_timeout
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        if settings.ttl_days is not None:
            logger.warning("SQLite store has no TTL", extra={"ignored_setting": "mongodb.ttl_days"})

    def insert(self, batch: DocumentBatch) -> list[Verdict]:
        rows = [_row(batch.fields(index)) for index in range(len(batch.documents))]
        statement = self._sql(INSERT)
        with _translated_errors(), self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            return [STORED if connection.execute(statement, row).rowcount else ID_TAKEN for row in rows]

    def write(self, writes: Sequence[Write], over: Overwrites) -> list[Verdict]:
        with _translated_errors(), self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            return [self._write(connection, each, over) for each in writes]

    def fetch(self, ids: Sequence[Identity]) -> list[Document]:
        statement = self._sql(DOCUMENT)
        with _translated_errors():
            connection = self._connection()
            return [_document(*row) for each in ids for row in connection.execute(statement, (each,))]

    def find(self, query: Query, limit: int | None, sort: Sort | None) -> list[Document]:
        matches = matcher(query)
        clauses, parameters = where_clauses(query, self._schema.identity_field)
        where = f" WHERE {' AND '.join(clauses)}" if clauses else ""
        with _translated_errors():
            rows = self._connection().execute(self._sql(DOCUMENTS) + where, parameters)
            return in_order((document for row in rows if matches(document := _document(*row))), sort, limit)

    def scan(self) -> Iterator[list[StoredMessage]]:
        with _translated_errors():
            rows = self._connection().execute(self._sql(IDS))
            while page := rows.fetchmany(PAGE):
                yield [_stored_message(*row) for row in page]

    def ping(self) -> None:
        with _translated_errors():
            self._connection().execute("SELECT 1 FROM sqlite_master").fetchone()

    def ensure_indexes(self) -> None:
        with _translated_errors(), self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            for name, columns in INDEXES.items():
                index = _quoted(f"{self._collection}_{name}")
                connection.execute(self._sql(CREATE_INDEX, index=index, columns=columns))

    def check(self) -> list[CheckResult]:
        if not self._path.exists():
            folder = self._path.absolute().parent
            ok = os.access(folder, os.W_OK | os.X_OK)
            text = "will be created" if ok else f"cannot be created: {folder} does not exist or is not writable"
            return [CheckResult("store reachable", ok, f"the SQLite file {self._path} {text}")]
        try:
            with _translated_errors(), self._connection() as connection:
                connection.execute("BEGIN IMMEDIATE")
        except StorageUnavailable as error:
            return [CheckResult("store reachable", False, str(error))]
        return [
            CheckResult("store reachable", True, f"the SQLite file {self._path}"),
            CheckResult("write permission", True, f"table {self._collection}"),
            CheckResult("durability", True, "synced to the disk before a message counts as stored"),
        ]

    def ttl_seconds(self) -> float | None:
        return None

    def close(self) -> None:
        while self._connections:
            self._connections.pop().close()

    def _write(self, connection: sqlite3.Connection, write: Write, over: Overwrites) -> Verdict:
        document = write.document
        for row in connection.execute(self._sql(DOCUMENT), (identity_of(document),)):
            stored = _document(*row)
            if not may_overwrite(stored, document, over):
                return ID_TAKEN
            document = {**stored, **document} if write.merge else document
        connection.execute(self._sql(REPLACE), _row(document))
        return STORED

    def _connection(self) -> sqlite3.Connection:
        """The connection of this thread."""
        if not hasattr(self._local, "connection"):
            self._local.connection = self._connect()
        connection: sqlite3.Connection = self._local.connection
        return connection

    def _connect(self) -> sqlite3.Connection:
        """A new connection, which any thread may close."""
        connection = sqlite3.connect(
            self._path, timeout=self._busy_timeout, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(connection)
        except sqlite3.Error:
            connection.close()
            raise
        self._connections.append(connection)
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        _use_write_ahead_log(connection)
        connection.execute("PRAGMA synchronous = FULL")
        if not self._is_current(connection):
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                self._create_table(connection)

    def _is_current(self, connection: sqlite3.Connection) -> bool:
        return ("dates",) in connection.execute(COLUMNS, (self._collection,))

    def _create_table(self, connection: sqlite3.Connection) -> None:
        exists = connection.execute(COLUMNS, (self._collection,)).fetchone()
        statements = UPGRADE if exists and not self._is_current(connection) else (CREATE_TABLE,)
        for statement in statements:
            connection.execute(self._sql(statement, former=_quoted(f"{self._collection} (former)")))

    def _sql(self, statement: str, **names: str) -> str:
        return statement.format(table=_quoted(self._collection), **names)


def _path(uri: str) -> Path:
    """`sqlite:///a/path` is relative, `sqlite:////a/path` is absolute."""
    path = uri.removeprefix(SCHEME)
    name = path.removeprefix("/")
    if not path.startswith("/") or not name or name == ":memory:":
        raise ConfigurationError("mongodb.uri: use sqlite:///relative/path or sqlite:////absolute/path")
    return Path(name)


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """So that readers and the writer do not wait for each other. Of several connections, one sets it for all."""
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & PRIMARY_CODE != sqlite3.SQLITE_BUSY:
            raise


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _row(document: Document) -> tuple[Any, ...]:
    metadata, identity = document.get("metadata"), identity_of(document)
    return (
        identity,
        epoch_milliseconds(document.get("created_at")),
        text_or_none(document.get("name")),
        text_or_none(metadata.get("source")) if isinstance(metadata, dict) else None,
        *(StoredMessage.of(identity, document.get("kafka")).position or (None, None, None)),
        msgspec.json.encode(dates_as_text(document)).decode(),
        _paths_of_dates(document),
    )


def _paths_of_dates(document: Document) -> str | None:
    paths = [path for name, value in document.items() if name != "kafka" for path in _dates_in(value, (name,))]
    usual = [("created_at",)] if "created_at" in document else []
    return None if paths == usual else json.dumps(paths)


def _dates_in(value: object, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, datetime):
        yield path
    elif isinstance(value, dict | list | tuple):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _dates_in(inner, (*path, key))


class _Origin(Struct):
    topic: str
    partition: int
    offset: int
    timestamp: Annotated[datetime, Meta(tz=True)]


class _Scanned(Struct):
    """What a scan reads of a document that the consumer has written."""

    kafka: _Origin


_decode_scanned = msgspec.json.Decoder(_Scanned).decode


def _stored_message(identifier: object, text: str) -> StoredMessage:
    try:
        origin = _decode_scanned(text).kafka
    except msgspec.ValidationError:  # another program has written it
        return StoredMessage.of(identifier, msgspec.json.decode(text, type=dict).get("kafka"))
    position = MessagePosition(origin.topic, origin.partition, origin.offset)
    return StoredMessage(as_identity(identifier), position, milliseconds(origin.timestamp))


def _document(text: str, paths: str | None) -> Document:
    try:
        document = convert_dates(msgspec.json.decode(text), DEFAULT_SCHEMA.date_converters if paths is None else ())
        for *parents, last in json.loads(paths or "[]"):
            fields = reduce(getitem, parents, document)
            fields[last] = as_date(fields[last], "date")
        return document
    except (ValueError, TypeError, LookupError, InvalidMessage) as error:
        raise StorageUnavailable("corrupted", f"SQLite has a document that cannot be decoded: {error}") from error


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & PRIMARY_CODE
        raise StorageUnavailable(CAUSES.get(code, "unreachable"), f"SQLite: {error}") from error
    except msgspec.DecodeError as error:
        raise StorageUnavailable("corrupted", f"SQLite has a document that cannot be decoded: {error}") from error
