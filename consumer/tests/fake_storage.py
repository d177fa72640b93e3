"""A store in memory. It passes the same contract tests as the real ones."""

import sys
from collections.abc import Iterator, Sequence
from threading import Event

from src.model.check_result import CheckResult
from src.model.errors import StorageUnavailable
from src.model.verdict import DUPLICATE_KEY, STORED, Outcome, Verdict
from src.stores.document import Document, DocumentBatch, Identity, StoredMessage, identity_of
from src.stores.matching import in_order, matcher
from src.stores.order import Overwrites, may_overwrite
from src.stores.query import Query, Sort
from src.stores.store import Write
from tests.fakes import DEADLINE


class FakeStore:
    """A test decides how it responds.

    `outages` is the number of calls that fail, `verdicts` has the next verdicts of a document by its id, a call with
    more documents than `in_time` times out, and one to insert does not return before `gate` is set.
    """

    def __init__(self) -> None:
        self.documents: dict[Identity, Document] = {}
        self.verdicts: dict[Identity, Iterator[Verdict]] = {}
        self.inserts: list[list[Identity]] = []
        self.outages = 0
        self.in_time = sys.maxsize
        self.gate: Event | None = None
        self.has_indexes = self.closed = False

    def insert(self, batch: DocumentBatch) -> list[Verdict]:
        return self.insert_documents([batch.fields(index) for index in range(len(batch.documents))])

    def insert_documents(self, documents: Sequence[Document]) -> list[Verdict]:
        self.inserts.append([identity_of(document) for document in documents])
        if self.gate is not None:
            assert self.gate.wait(DEADLINE)
        self.ping()
        if len(documents) > self.in_time:
            raise StorageUnavailable("timeout", "timed out")
        return [self._insert(document) for document in documents]

    def write(self, writes: Sequence[Write], over: Overwrites) -> list[Verdict]:
        self.ping()
        return [self._write(each, over) for each in writes]

    def fetch(self, ids: Sequence[Identity]) -> list[Document]:
        self.ping()
        return [self.documents[each] for each in ids if each in self.documents]

    def find(self, query: Query, limit: int | None, sort: Sort | None) -> list[Document]:
        self.ping()
        return in_order(filter(matcher(query), self.documents.values()), sort, limit)

    def scan(self) -> Iterator[list[StoredMessage]]:
        self.ping()
        yield [StoredMessage.of(identity_of(document), document.get("kafka")) for document in self.documents.values()]

    def ping(self) -> None:
        if self.closed:
            raise StorageUnavailable("unreachable", "closed")
        if self.outages:
            self.outages -= 1
            raise StorageUnavailable("unreachable", "connection refused")

    def ensure_indexes(self) -> None:
        self.ping()
        self.has_indexes = True

    def check(self) -> list[CheckResult]:
        try:
            self.ping()
        except StorageUnavailable as error:
            return [CheckResult("store reachable", False, str(error))]
        return [CheckResult("store reachable", True, "in memory")]

    def ttl_seconds(self) -> float | None:
        self.ping()
        return None

    def close(self) -> None:
        self.closed = True

    def may_overwrite(self, stored: Document, document: Document, over: Overwrites) -> bool:
        return may_overwrite(stored, document, over)

    def _insert(self, document: Document) -> Verdict:
        if (verdict := next(self.verdicts.get(identity_of(document), iter(())), None)) is not None:
            return verdict
        if identity_of(document) in self.documents:
            return _id_taken(document)
        self.documents[identity_of(document)] = document
        return STORED

    def _write(self, write: Write, over: Overwrites) -> Verdict:
        document = write.document
        if (verdict := next(self.verdicts.get(identity_of(document), iter(())), None)) is not None:
            return verdict
        stored = self.documents.get(identity_of(document))
        if stored is not None and not self.may_overwrite(stored, document, over):
            return _id_taken(document)
        self.documents[identity_of(document)] = {**stored, **document} if stored and write.merge else document
        return STORED


def _id_taken(document: Document) -> Verdict:
    return Verdict(Outcome.FAILED, DUPLICATE_KEY, KeyError(identity_of(document)))
