"""The interface of a database for DataStorage."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from src.model.check_result import CheckResult
from src.model.verdict import Verdict
from src.stores.document import Document, DocumentBatch, Identity, StoredMessage
from src.stores.order import Overwrites
from src.stores.query import Query, Sort


class Write(NamedTuple):
    """A document that replaces what is stored under its id, or is merged into it: its top-level fields are set."""

    document: Document
    merge: bool = False


class Store(Protocol):
    """Its documents have the structure of messages: `id`, or `_id` where another field is the identity, and datetimes
    where a message has dates."""

    def insert(self, batch: DocumentBatch) -> list[Verdict]:
        """One verdict per document; no two have the same id. Raises StorageUnavailable if the whole call failed."""

    def write(self, writes: Sequence[Write], over: Overwrites) -> list[Verdict]:
        """Stores each document if there is none with its id, or if that may be overwritten; otherwise its verdict is
        that the id is taken. One verdict per write; no two have the same id. Raises StorageUnavailable.
        """

    def fetch(self, ids: Sequence[Identity]) -> Iterable[Document]:
        """Those that are stored. Raises StorageUnavailable."""

    def find(self, query: Query, limit: int | None, sort: Sort | None) -> Iterable[Document]:
        """Raises StorageUnavailable or UnsupportedQuery."""

    def scan(self) -> Iterator[list[StoredMessage]]:
        """Every document of the collection, in pages, whichever program wrote it. Raises StorageUnavailable."""

    def ping(self) -> None:
        """Raises StorageUnavailable."""

    def ensure_indexes(self) -> None:
        """Raises StorageUnavailable; an index that cannot be created is a warning."""

    def check(self) -> list[CheckResult]:
        """Never raises StorageUnavailable."""

    def ttl_seconds(self) -> float | None:
        """Raises StorageUnavailable."""

    def close(self) -> None: ...
