"""Where contenders store documents, and how many are there."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pymongo

from bench.acknowledging_server import LATENCIES, PROGRESS
from local.plan import ROOT

DATABASE = "bench"
INDEXES: tuple[list[tuple[str, int]], ...] = (
    [("created_at", 1)],
    [("name", 1)],
    [("metadata.source", 1), ("created_at", 1)],
)
"""Those that the consumer creates; every contender writes with them."""


@dataclass(frozen=True)
class Progress:
    """`time` is when the last of the documents was stored, by the monotonic clock."""

    documents: int
    time: float
    sent_bytes: int | None = None
    server_cpu_seconds: float | None = None


class Store(Protocol):
    name: str
    kind: str
    """mongodb or sqlite"""

    def uri(self, collection: str) -> str: ...

    def create(self, collection: str) -> None:
        """An empty collection with its indexes."""

    def progress(self, collection: str) -> Progress: ...

    def drop(self, collection: str) -> None: ...


class AcknowledgingStore:
    """The bench's own server, which stores nothing."""

    name, kind = "acknowledging server", "mongodb"

    def __init__(self, port: int) -> None:
        self._uri = f"mongodb://127.0.0.1:{port}/"
        self._client = pymongo.MongoClient[dict[str, Any]](self._uri)
        self._database = self._client[DATABASE]

    def uri(self, _collection: str) -> str:
        return self._uri

    def create(self, collection: str) -> None:
        """It has no indexes."""

    def progress(self, collection: str) -> Progress:
        found = self._database.command(PROGRESS, collection)
        return Progress(found["documents"], found["last_write"], found["sent_bytes"], found["cpu_seconds"])

    def latencies(self, collection: str) -> list[float]:
        """From creation to arrival, of the documents since the last call; the first call starts the recording."""
        return list(self._database.command(LATENCIES, collection)["seconds"])

    def drop(self, collection: str) -> None:
        pass

    def close(self) -> None:
        self._client.close()


class MongoStore:
    name, kind = "MongoDB", "mongodb"

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._database = pymongo.MongoClient[dict[str, Any]](uri)[DATABASE]

    def uri(self, _collection: str) -> str:
        return self._uri

    def create(self, collection: str) -> None:
        for keys in INDEXES:
            self._database[collection].create_index(keys)

    def progress(self, collection: str) -> Progress:
        return Progress(self._database[collection].estimated_document_count(), time.monotonic())

    def drop(self, collection: str) -> None:
        self._database.drop_collection(collection)


class SqliteStore:
    """One file for each collection."""

    name, kind = "SQLite", "sqlite"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def uri(self, collection: str) -> str:
        return f"sqlite:///{self._file(collection)}"

    def create(self, collection: str) -> None:
        """The consumer creates the table."""
        self.drop(collection)

    def progress(self, collection: str) -> Progress:
        """Nothing is ever deleted, so the largest row number is the number of documents."""
        file = self._file(collection)
        if not file.exists():
            return Progress(0, time.monotonic())
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            try:
                (count,) = connection.execute(f'SELECT max(rowid) FROM "{collection}"').fetchone()  # noqa: S608
            except sqlite3.OperationalError:  # no table yet
                count = 0
        return Progress(count or 0, time.monotonic())

    def drop(self, collection: str) -> None:
        for file in self._folder.glob(f"{collection}.db*"):
            file.unlink()

    def _file(self, collection: str) -> Path:
        return self._folder / f"{collection}.db"


@contextmanager
def acknowledging_store() -> Iterator[AcknowledgingStore]:
    """A server in a process of its own, until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.acknowledging_server"],
        cwd=ROOT / "scripts",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the server has no pipes")
        store = AcknowledgingStore(int(process.stdout.readline()))
        try:
            yield store
        finally:
            store.close()
            process.stdin.close()
