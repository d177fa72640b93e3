"""A store in memory. It passes the same contract as the real ones."""

from collections.abc import Iterator, Sequence

from src.model.check_result import CheckResult
from src.model.errors import StorageUnavailable
from src.model.verdict import DUPLICATE_KEY, STORED, Outcome, Verdict
from src.stores.document import Document, StoredMessage
from src.stores.matching import in_order, matcher
from src.stores.query import Query, Sort


class FakeStore:
    """Say what it is to answer: `unavailable` fails every call, `answers` gives a document's verdict by its id."""

    def __init__(self) -> None:
        self.documents: dict[str, Document] = {}
        self.unavailable: StorageUnavailable | None = None
        self.answers: dict[str, Verdict] = {}
        self.inserts: list[list[str]] = []
        self.expiry: float | None = None

    def insert(self, documents: Sequence[Document]) -> list[Verdict]:
        self.ping()
        self.inserts.append([document["id"] for document in documents])
        return [self._insert(document) for document in documents]

    def fetch(self, ids: Sequence[str]) -> list[Document]:
        self.ping()
        return [self.documents[each] for each in ids if each in self.documents]

    def find(self, query: Query, limit: int | None, sort: Sort | None) -> list[Document]:
        self.ping()
        return in_order(filter(matcher(query), self.documents.values()), sort, limit)

    def scan(self) -> Iterator[StoredMessage]:
        self.ping()
        for document in self.documents.values():
            yield StoredMessage.of(document["id"], document.get("kafka"))

    def ping(self) -> None:
        if self.unavailable:
            raise self.unavailable

    def ensure_indexes(self) -> None:
        self.ping()

    def check(self) -> list[CheckResult]:
        return [CheckResult("store reachable", self.unavailable is None, str(self.unavailable or "in memory"))]

    def ttl_seconds(self) -> float | None:
        self.ping()
        return self.expiry

    def close(self) -> None:
        """Nothing is open."""

    def _insert(self, document: Document) -> Verdict:
        if document["id"] in self.answers:
            return self.answers[document["id"]]
        if document["id"] in self.documents:
            return Verdict(Outcome.FAILED, DUPLICATE_KEY, KeyError(document["id"]))
        self.documents[document["id"]] = document
        return STORED
