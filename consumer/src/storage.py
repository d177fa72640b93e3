"""The consumer's interface to its store: MongoDB, or a SQLite file where there is no MongoDB."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Self

from src.model.check_result import CheckResult
from src.model.errors import StorageUnavailable
from src.model.verdict import Outcome, Verdict
from src.settings import DocumentSettings, MongoSettings
from src.stores.deduplication import Save, save_once, save_valid_once
from src.stores.document import Document, DocumentBatch, Schema, StoredMessage, dates_as_text
from src.stores.mongo.store import MongoStore
from src.stores.query import Query, Sort, UnsupportedQuery, normalized
from src.stores.sqlite import SCHEME, SqliteStore
from src.stores.store import Store
from src.stores.validation import validated
from src.stores.write_modes import save_newest
from src.utils.config import ConfigurationError, parse

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
"""Every reason for which a store may reject a document."""

_IN_STORE = frozenset({Outcome.STORED, Outcome.DUPLICATE})


class DataStorage:
    """Saves and finds messages. `config` is the `mongodb` section of the settings, `document` that of this name.

    With `reprocess`, a message that is read again replaces the document that was made from it before. The constructor
    does not connect: an unavailable server does not fail it. A wrong setting raises ConfigurationError.
    """

    def __init__(
        self,
        config: MongoSettings | Mapping[str, Any],
        document: DocumentSettings = DocumentSettings(),  # noqa: B008 - immutable
        *,
        store: Store | None = None,
        reprocess: bool = False,
    ) -> None:
        self._schema = Schema(document)
        self._store = store or _store_for(_parsed(config), self._schema)
        if document.write == "insert":
            self._save: Save = partial(save_valid_once, self._store, reprocess=reprocess)
        elif reprocess:
            raise ConfigurationError("--reprocess needs document.write `insert`")
        else:
            self._save = partial(save_newest, self._store, merge=document.write == "merge")

    def save(self, data: Mapping[str, Any]) -> bool:
        """Store one document; True if it is stored durably, by this call or before. `data` is not changed."""
        try:
            verdict = self.save_many([data])[0]
        except StorageUnavailable as error:
            logger.warning("storage unavailable", extra={"cause": error.cause, "reason": str(error)})
            return False
        if verdict.outcome in _IN_STORE:
            return True
        logger.warning("document not stored", extra={"cause": verdict.reason, "reason": str(verdict.error)})
        return False

    def get(
        self, query: Mapping[str, Any], *, limit: int | None = None, sort: Sort | None = None
    ) -> list[dict[str, Any]]:
        """The messages that match a MongoDB filter. It has the field names of the documents; a date may be text.

        `sort` is a list of (field, 1 or -1). The result is plain JSON, with dates as text. Raises UnsupportedQuery or
        StorageUnavailable.
        """
        _check_options(limit, sort)
        try:
            documents = self._store.find(self._without_deletions(normalized(query, self._schema)), limit, sort)
        except (UnicodeEncodeError, OverflowError) as error:
            raise UnsupportedQuery(f"the query contains a value that no store can hold: {error}") from error
        return [dates_as_text(document) for document in documents]

    def _without_deletions(self, query: Query) -> Query:
        return {"kafka.deleted_at": {"$exists": False}, **query} if self._schema.deletes else query

    def save_many(self, documents: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        """One verdict per document, in their order. Raises StorageUnavailable if none of their outcomes is known.

        Of several documents with one id the first is stored.
        """
        return save_once(self._save, documents, self._schema)

    def save_valid(self, batch: DocumentBatch) -> list[Verdict]:
        """The same for documents that are valid, with the records that they were made from."""
        return self._save(batch)

    def validated(self, document: Document) -> Document:
        """A copy that `save_valid` accepts. Raises InvalidMessage."""
        return validated(document, self._schema)

    def scan(self) -> Iterator[list[StoredMessage]]:
        """The id, position and timestamp of every stored document, in pages. Raises StorageUnavailable."""
        return self._store.scan()

    def ping(self) -> None:
        """Returns if the store is available. Raises StorageUnavailable."""
        self._store.ping()

    def ensure_indexes(self) -> None:
        """Raises StorageUnavailable. An index that cannot be created is a warning: messages are stored without it."""
        self._store.ensure_indexes()

    def check(self) -> list[CheckResult]:
        """Whether the store meets the consumer's requirements."""
        return self._store.check()

    @property
    def ttl_seconds(self) -> float | None:
        """The age at which the store deletes a document; None if it keeps them. Raises StorageUnavailable."""
        return self._store.ttl_seconds()

    def close(self) -> None:
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _parsed(config: MongoSettings | Mapping[str, Any]) -> MongoSettings:
    if isinstance(config, MongoSettings):
        return config
    return parse(MongoSettings, dict(config), origin="mongodb")


def _store_for(settings: MongoSettings, schema: Schema) -> Store:
    kind = SqliteStore if settings.uri.reveal().startswith(SCHEME) else MongoStore
    return kind(settings, schema)


def _check_options(limit: int | None, sort: Sort | None) -> None:
    if limit is not None and limit < 1:
        raise UnsupportedQuery(f"limit is {limit}; it must be at least 1, or None for all")
    for field, direction in sort or ():
        if direction not in (1, -1):
            raise UnsupportedQuery(f"sort: {direction!r} for {field}; use 1 for ascending, -1 for descending")
