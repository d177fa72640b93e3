"""A store in a SQLite file, for a machine without MongoDB. Its queries are answered as MongoDB would.

Several processes may write at once; each thread has a connection of its own.
"""

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from src.model.errors import StorageUnavailable
from src.model.verdict import KEY_TAKEN, STORED, Outcome, Verdict
from src.settings import MongoSettings
from src.stores.document import Document, StoredMessage, as_text, dated, milliseconds
from src.stores.query import Query, Sort, in_order, is_condition, matcher
from src.utils.config import ConfigurationError

logger = logging.getLogger(__name__)

SCHEME = "sqlite://"
BUSY_TIMEOUT = 30.0  # seconds that a writer waits for the others
MOST_VARIABLES = 900  # in one statement; old versions of SQLite take 999

# A primary key over rowids: WITHOUT ROWID is half as fast with random ids. The columns beside the document are for
# the indexes and the audit; one is NULL where the document has nothing there, or a value of another type.
SCHEMA = """
CREATE TABLE IF NOT EXISTS {table} (
    id TEXT NOT NULL PRIMARY KEY, created_at INTEGER, name TEXT, source TEXT,
    topic TEXT, "partition" INTEGER, "offset" INTEGER, document TEXT NOT NULL
)
"""
HAS_TABLE = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
INDEXES = {"created_at": "created_at", "name": "name", "source": "source, created_at"}
CREATE_INDEX = "CREATE INDEX IF NOT EXISTS {index} ON {table} ({columns})"
INSERT = "INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"
DOCUMENTS = "SELECT document FROM {table}"
DOCUMENT = "SELECT document FROM {table} WHERE id = ?"
ORIGINS = """
SELECT id, topic, "partition", "offset", json_extract(document, '$.kafka.timestamp') FROM {table}
"""

TAKEN = Verdict(Outcome.FAILED, KEY_TAKEN, sqlite3.IntegrityError("the id is there already"))

CAUSES = {
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_FULL: "disk_full",
    sqlite3.SQLITE_IOERR: "disk_error",
    sqlite3.SQLITE_CORRUPT: "corrupted",
    sqlite3.SQLITE_NOTADB: "corrupted",
    sqlite3.SQLITE_READONLY: "not_authorized",
}

PRIMARY_CODE = 0xFF  # the part of an error code that is not about its particulars


class SqliteStore:
    """What DataStorage asks of a store, in one table of a file."""

    def __init__(self, settings: MongoSettings, *, busy_timeout: float = BUSY_TIMEOUT) -> None:
        self._path = _path(settings.uri.reveal())
        self._collection = settings.collection
        self._busy_timeout = busy_timeout
        self._mine = threading.local()
        self._connections: list[sqlite3.Connection] = []
        if settings.ttl_days is not None:
            logger.warning("SQLite keeps documents for ever", extra={"unused": "mongodb.ttl_days"})

    def insert(self, documents: Sequence[Document]) -> list[Verdict]:
        rows = [_row(document) for document in documents]
        statement = self._sql(INSERT)
        with _translated(), self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            return [STORED if connection.execute(statement, row).rowcount else TAKEN for row in rows]

    def fetch(self, ids: Sequence[str]) -> list[Document]:
        statement = self._sql(DOCUMENT)
        with _translated():
            connection = self._connection()
            return [_document(text) for each in ids for (text,) in connection.execute(statement, (each,))]

    def find(self, query: Query, limit: int | None, sort: Sort | None) -> list[Document]:
        matches = matcher(query)
        clauses, values = _narrowed(query)
        where = f" WHERE {' AND '.join(clauses)}" if clauses else ""
        with _translated():
            rows = self._connection().execute(self._sql(DOCUMENTS) + where, values)
            return in_order((document for (text,) in rows if matches(document := _document(text))), sort, limit)

    def scan(self) -> Iterator[StoredMessage]:
        with _translated():
            for identifier, topic, partition, offset, time in self._connection().execute(self._sql(ORIGINS)):
                yield StoredMessage(identifier, topic, partition, offset, milliseconds(time))

    def ping(self) -> None:
        with _translated():
            self._connection().execute("SELECT 1 FROM sqlite_master").fetchone()

    def ensure_indexes(self) -> None:
        with _translated(), self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            for name, columns in INDEXES.items():
                index = _quoted(f"{self._collection}_{name}")
                connection.execute(self._sql(CREATE_INDEX, index=index, columns=columns))

    def check(self) -> list[tuple[str, bool, str]]:
        if not self._path.exists():
            folder = self._path.absolute().parent
            fine = os.access(folder, os.W_OK | os.X_OK)
            sentence = "will be made" if fine else f"can't be made: no folder {folder}, or no right to write there"
            return [("store reachable", fine, f"the SQLite file {self._path} {sentence}")]
        try:
            with _translated(), self._connection() as connection:
                connection.execute("BEGIN IMMEDIATE")
        except StorageUnavailable as error:
            return [("store reachable", False, str(error))]
        return [
            ("store reachable", True, f"the SQLite file {self._path}"),
            ("rights to write", True, f"table {self._collection}"),
            ("durability", True, "synced to the disk before a message counts as stored"),
        ]

    def ttl_seconds(self) -> float | None:
        return None

    def close(self) -> None:
        while self._connections:
            self._connections.pop().close()

    def _connection(self) -> sqlite3.Connection:
        """This thread's own."""
        if not hasattr(self._mine, "connection"):
            self._mine.connection = self._connected()
        mine: sqlite3.Connection = self._mine.connection
        return mine

    def _connected(self) -> sqlite3.Connection:
        """A new connection, which `close` may end from another thread."""
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
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")
        if not connection.execute(HAS_TABLE, (self._collection,)).fetchone():
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(self._sql(SCHEMA))

    def _sql(self, statement: str, **names: str) -> str:
        return statement.format(table=_quoted(self._collection), **names)


def _path(uri: str) -> Path:
    """`sqlite:///a/path` is relative, `sqlite:////a/path` absolute."""
    location = uri.removeprefix(SCHEME)
    name = location.removeprefix("/")
    if not location.startswith("/") or not name or name == ":memory:":
        raise ConfigurationError("mongodb.uri: a SQLite store is sqlite:///relative/path or sqlite:////absolute/path")
    return Path(name)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Readers and the writer do not wait for one another. Of those that come at once, one sets it for all."""
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & PRIMARY_CODE != sqlite3.SQLITE_BUSY:
            raise


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _row(document: Document) -> tuple[Any, ...]:
    metadata = document.get("metadata")
    return (
        document["id"],
        milliseconds(document.get("created_at")),
        _text(document.get("name")),
        _text(metadata.get("source")) if isinstance(metadata, dict) else None,
        *StoredMessage.of(document["id"], document.get("kafka"))[1:4],
        msgspec.json.encode(as_text(document)).decode(),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _document(text: str) -> Document:
    try:
        return dated(msgspec.json.decode(text), lambda date: datetime.fromisoformat(str(date)))
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        raise StorageUnavailable("corrupted", f"SQLite holds a document that can't be read: {error}") from error


# The part of a query that an index can answer; what it lets through is looked at document by document.

COMPARISONS = {"$eq": "=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
COLUMNS = {"id": "id", "created_at": "created_at", "name": "name", "metadata.source": "source"}
OF_ANY_TYPE = frozenset({"name", "source"})  # NULL may hide a list with a fitting text in it


def _narrowed(query: Query) -> tuple[list[str], list[str | int]]:
    """Clauses, and the values for their variables."""
    clauses, values = [], []
    for field, condition in query.items():
        conditions = condition.items() if is_condition(condition) else [("$eq", condition)]
        for operator, operand in conditions if field in COLUMNS else ():
            clause, variables = _clause(COLUMNS[field], operator, operand)
            clauses += [clause] if clause else []
            values += variables
    return clauses, values


def _clause(column: str, operator: str, operand: Any) -> tuple[str, list[str | int]]:
    """Empty where SQL has no say."""
    operands = operand if operator == "$in" else [operand]
    variables = [_variable(column, each) for each in operands]
    known = [variable for variable in variables if variable is not None]
    if len(known) < len(variables) or len(known) > MOST_VARIABLES:
        return "", []
    if operator == "$in":
        clause = f"{column} IN ({', '.join('?' * len(known))})"
    elif operator in COMPARISONS:
        clause = f"{column} {COMPARISONS[operator]} ?"
    else:
        return "", []
    return (f"({clause} OR {column} IS NULL)" if column in OF_ANY_TYPE else clause), known


def _variable(column: str, operand: object) -> str | int | None:
    if column == "created_at":
        return milliseconds(operand) if isinstance(operand, datetime) else None
    return _text(operand)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & PRIMARY_CODE
        raise StorageUnavailable(CAUSES.get(code, "unreachable"), f"SQLite: {error}") from error
