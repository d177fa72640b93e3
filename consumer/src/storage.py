"""The consumer's door to its store: MongoDB, or a SQLite file for a machine without one.

What holds for any store is decided here: a message is stored once under its id, the same message again is a duplicate,
and another message under the same id is refused.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self

from src.model.errors import InvalidMessage, StorageUnavailable
from src.model.verdict import DUPLICATE, Outcome, Verdict
from src.settings import MongoSettings
from src.stores.document import Document, StoredMessage, as_text, checked, content
from src.stores.mongo import MongoStore
from src.stores.query import Query, Sort, UnsupportedQuery, normalised
from src.stores.sqlite import SCHEME, SqliteStore
from src.utils.config import parse

logger = logging.getLogger(__name__)

__all__ = ["DataStorage", "Store", "StoredMessage", "UnsupportedQuery"]

REASONS = (
    "id_conflict",
    "duplicate_key",
    "validation_failed",
    "document_too_large",
    "nesting_too_deep",
    "invalid_key",
    "invalid_string",
    "integer_out_of_range",
    "number_out_of_range",
    "key_too_long",
    "not_encodable",
    "write_error",
)
"""Why a store may refuse a document."""

THERE = frozenset({Outcome.STORED, Outcome.DUPLICATE})
NOT_STORED = frozenset({Outcome.REFUSED, Outcome.FAILED})

Answer = tuple[str, bool, str]
"""What was asked, whether all is well, and a sentence about it."""


class Store(Protocol):
    """What a database has to do. Its documents are message-shaped: `id`, and datetimes where a message has dates."""

    def insert(self, documents: Sequence[Document]) -> list[Verdict]:
        """One verdict a document; no two have the same id. Raises StorageUnavailable where nothing is known."""

    def fetch(self, ids: Sequence[str]) -> Iterable[Document]:
        """Those of them that are there. Raises StorageUnavailable."""

    def find(self, query: Query, limit: int | None, sort: Sort | None) -> Iterable[Document]:
        """Raises StorageUnavailable, or UnsupportedQuery."""

    def scan(self) -> Iterator[StoredMessage]:
        """Every document, whoever wrote it, one after the other. Raises StorageUnavailable."""

    def ping(self) -> None:
        """Raises StorageUnavailable."""

    def ensure_indexes(self) -> None:
        """Raises StorageUnavailable; an index that can't be made is a warning."""

    def check(self) -> list[Answer]:
        """Never raises StorageUnavailable."""

    def ttl_seconds(self) -> float | None:
        """Raises StorageUnavailable."""

    def close(self) -> None: ...


class DataStorage:
    """Takes and gives message-shaped documents. `config` is the `mongodb` section of the settings.

    A server that is away does not fail the construction; a wrong setting raises ConfigurationError.
    """

    def __init__(self, config: MongoSettings | Mapping[str, Any], *, store: Store | None = None) -> None:
        self._store = store or _opened(_settings(config))

    def save(self, data: Mapping[str, Any]) -> bool:
        """Store one document; True once it is there durably, now or before. `data` is not changed."""
        try:
            verdict = self.save_many([data])[0]
        except StorageUnavailable as error:
            logger.warning("storage unavailable", extra={"cause": error.cause, "reason": str(error)})
            return False
        if verdict.outcome in THERE:
            return True
        logger.warning("document not stored", extra={"cause": verdict.reason, "reason": str(verdict.error)})
        return False

    def get(
        self, query: Mapping[str, Any], *, limit: int | None = None, sort: Sort | None = None
    ) -> list[dict[str, Any]]:
        """The messages that a MongoDB filter on a message's own field names matches; dates may be text or datetime.

        `sort` is a list of (field, 1 or -1). What comes back is plain JSON, dates as text. Raises UnsupportedQuery,
        or StorageUnavailable.
        """
        _check_limits(limit, sort)
        try:
            documents = self._store.find(normalised(query), limit, sort)
        except (UnicodeEncodeError, OverflowError) as error:
            raise UnsupportedQuery(f"no stored value can be equal to one of these: {error}") from error
        return [as_text(document) for document in documents]

    def save_many(self, documents: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        """One verdict a document, in their order. Raises StorageUnavailable where nothing is known of any.

        Of the documents with one id the first in order is the one that is stored.
        """
        verdicts: dict[int, Verdict] = {}
        waiting = _acceptable(documents, verdicts)
        first_round = True
        while waiting:
            waiting = self._decide_round(waiting, verdicts, may_raise=first_round)
            first_round = False
        return [verdicts[position] for position in range(len(documents))]

    def scan(self) -> Iterator[StoredMessage]:
        """Where every stored document came from, in constant memory. Raises StorageUnavailable."""
        return self._store.scan()

    def ping(self) -> None:
        """Returns if the store answers. Raises StorageUnavailable."""
        self._store.ping()

    def ensure_indexes(self) -> None:
        """Raises StorageUnavailable; an index that can't be made is a warning, since messages can be stored without."""
        self._store.ensure_indexes()

    def check(self) -> list[Answer]:
        """For people who want to know before they start: what was asked, whether all is well, and a sentence."""
        return self._store.check()

    @property
    def ttl_seconds(self) -> float | None:
        """After how long the store now deletes a document; None if it keeps them. Raises StorageUnavailable."""
        return self._store.ttl_seconds()

    def close(self) -> None:
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _decide_round(
        self, waiting: Sequence["_Entry"], verdicts: dict[int, Verdict], *, may_raise: bool
    ) -> list["_Entry"]:
        """One id once: the first of each id goes to the store. Returns those of whom that decides nothing."""
        firsts: dict[str, _Entry] = {}
        for entry in waiting:
            firsts.setdefault(entry.id, entry)
        decided = self._put(list(firsts.values()), may_raise=may_raise)
        undecided = []
        for entry in waiting:
            verdict = decided[entry.id].verdict_of(entry)
            if verdict is None:
                undecided.append(entry)
            else:
                verdicts[entry.position] = verdict
        return undecided

    def _put(self, entries: Sequence["_Entry"], *, may_raise: bool) -> dict[str, "_Decision"]:
        documents = [entry.document for entry in entries]
        try:
            verdicts = self._store.insert(documents)
        except StorageUnavailable as error:
            if may_raise:
                raise
            verdicts = [_put_off(error)] * len(documents)
        # a rule that was made since may refuse what is there already: that must not be parked as well
        bad = [entry.id for entry, verdict in zip(entries, verdicts, strict=True) if verdict.outcome in NOT_STORED]
        held = self._held(bad) if bad else {}
        return {
            entry.id: _decision(entry, verdict, held.get(entry.id))
            for entry, verdict in zip(entries, verdicts, strict=True)
        }

    def _held(self, ids: Sequence[str]) -> dict[str, bytes | StorageUnavailable]:
        """What the store has under these ids; what the other verdicts say stays true if it no longer answers."""
        try:
            return {document["id"]: content(document) for document in self._store.fetch(ids)}
        except StorageUnavailable as error:
            return dict.fromkeys(ids, error)


class _Entry(NamedTuple):
    """A document on its way, and its place among the verdicts."""

    position: int
    document: Document

    @property
    def id(self) -> str:
        return str(self.document["id"])


class _Decision(NamedTuple):
    """What became of the first document of an id, and so of those behind it.

    `held` is the content that was in the store under that id before.
    """

    first: _Entry
    verdict: Verdict
    held: bytes | None = None

    def verdict_of(self, entry: _Entry) -> Verdict | None:
        """None where this one has to be tried by itself."""
        if entry is self.first or self.verdict.outcome is Outcome.DEFERRED:
            return self.verdict
        if self.held is not None:
            return _compared(entry, self.held)
        if self.verdict.outcome is Outcome.STORED:
            return _compared(entry, content(self.first.document))
        return self.verdict if content(entry.document) == content(self.first.document) else None


def _settings(config: MongoSettings | Mapping[str, Any]) -> MongoSettings:
    if isinstance(config, MongoSettings):
        return config
    return parse(MongoSettings, dict(config), origin="mongodb")


def _opened(settings: MongoSettings) -> Store:
    return SqliteStore(settings) if settings.uri.reveal().startswith(SCHEME) else MongoStore(settings)


def _acceptable(documents: Sequence[Mapping[str, Any]], verdicts: dict[int, Verdict]) -> list[_Entry]:
    """The documents that a store may hold; the others get their verdicts."""
    entries = []
    for position, document in enumerate(documents):
        try:
            entries.append(_Entry(position, checked(document)))
        except InvalidMessage as error:
            verdicts[position] = Verdict(Outcome.REFUSED, error.reason, error)
    return entries


def _decision(first: _Entry, verdict: Verdict, held: bytes | StorageUnavailable | None) -> _Decision:
    if isinstance(held, StorageUnavailable):
        return _Decision(first, _put_off(held))
    if held is None:
        return _Decision(first, verdict)
    return _Decision(first, _compared(first, held), held)


def _compared(entry: _Entry, held: bytes) -> Verdict:
    if content(entry.document) == held:
        return DUPLICATE
    error = InvalidMessage("id_conflict", f"another message is stored under the id {entry.id!r}")
    return Verdict(Outcome.REFUSED, error.reason, error)


def _put_off(error: StorageUnavailable) -> Verdict:
    return Verdict(Outcome.DEFERRED, error.cause, error)


def _check_limits(limit: int | None, sort: Sort | None) -> None:
    if limit is not None and limit < 1:
        raise UnsupportedQuery(f"limit is {limit}; it is at least 1, or None for all")
    for field, direction in sort or ():
        if direction not in (1, -1):
            raise UnsupportedQuery(f"sort: {direction!r} for {field}; 1 is ascending, -1 descending")
