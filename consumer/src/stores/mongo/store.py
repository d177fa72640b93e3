"""Inserts, fetches and queries documents of one MongoDB collection."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import pymongo
from bson.errors import BSONError
from pymongo import ReadPreference
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, DocumentTooLarge, OperationFailure, PyMongoError

from src.model.check_result import CheckResult
from src.model.errors import StorageUnavailable
from src.model.verdict import Outcome, Verdict
from src.settings import MongoSettings
from src.stores.document import DEFAULT_SCHEMA, Document, DocumentBatch, Identity, Schema, StoredMessage
from src.stores.mongo.check import check
from src.stores.mongo.client import RESPONSE, open_collection
from src.stores.mongo.documents import from_mongo, query_to_mongo, sort_to_mongo, to_mongo
from src.stores.mongo.errors import (
    CAUSES,
    LOGIN_FAILED,
    NOT_ENCODABLE,
    REJECTIONS,
    WriteResponse,
    rejection_reason,
    translated_errors,
    unavailable,
    verdicts,
)
from src.stores.mongo.indexes import Indexes
from src.stores.mongo.scan import scanned
from src.stores.mongo.upserts import Upsert, upsert
from src.stores.order import Overwrites
from src.stores.query import Query, Sort, UnsupportedQuery
from src.stores.store import Write
from src.utils.config import ConfigurationError

logger = logging.getLogger(__name__)

MAX_COMMAND_BYTES = 8 * 1024 * 1024  # of JSON; BSON of more than 16 MiB is too large for one command

PAGE = 10_000  # documents of a scan in one call

T = TypeVar("T")


class MongoStore:
    """Implements the Store protocol."""

    def __init__(
        self,
        settings: MongoSettings,
        schema: Schema = DEFAULT_SCHEMA,
        *,
        collection: Collection[Any] | None = None,
    ) -> None:
        self._settings = settings
        self._schema = schema
        self._identity_field = schema.identity_field
        self._uri = settings.uri.reveal()
        self._next_send = self._insert_command
        self._use(open_collection(settings) if collection is None else collection)

    def insert(self, batch: DocumentBatch) -> list[Verdict]:
        if batch.message_bytes > MAX_COMMAND_BYTES:
            self._next_send = self._insert_many
        with self._reconnecting():
            return self._write(to_mongo(batch), self._send)

    def write(self, writes: Sequence[Write], over: Overwrites) -> list[Verdict]:
        with self._reconnecting():
            return self._write([upsert(each, over) for each in writes], self._bulk_write)

    def fetch(self, ids: Sequence[Identity]) -> list[Document]:
        """From the primary: it is the primary that reported the ids as taken."""
        with translated_errors():
            try:
                found = self._primary.find({"_id": {"$in": list(ids)}})
                return [from_mongo(raw, self._identity_field) for raw in found]
            except DocumentTooLarge:  # the query itself, with ids of several megabytes
                middle = len(ids) // 2
                return [*self.fetch(ids[:middle]), *self.fetch(ids[middle:])]

    def find(self, query: Query, limit: int | None, sort: Sort | None) -> list[Document]:
        order = sort_to_mongo(sort or (), self._identity_field)
        filter_ = query_to_mongo(query, self._identity_field)
        with translated_errors():
            try:
                found = self.collection.find(filter_, limit=limit or 0, sort=order)
                return [from_mongo(raw, self._identity_field) for raw in found]
            except BSONError as error:
                raise UnsupportedQuery(f"the query cannot be encoded for MongoDB: {error}") from error
            except OperationFailure as error:
                if error.code in CAUSES:
                    raise
                raise UnsupportedQuery(f"MongoDB rejects the query: {error}") from error

    def scan(self) -> Iterator[list[StoredMessage]]:
        """From the primary: a document that a secondary does not have yet is not lost."""
        fields = {"kafka.topic": 1, "kafka.partition": 1, "kafka.offset": 1, "kafka.timestamp": 1}
        with self._primary.find_raw_batches({}, fields, batch_size=PAGE) as cursor:
            while (batch := _next_batch(cursor)) is not None:
                yield scanned(batch)

    def ping(self) -> None:
        with self._reconnecting(), translated_errors():
            self.collection.database.command("ping")

    def ensure_indexes(self) -> None:
        self.ping()
        self._indexes.ensure()

    def check(self) -> list[CheckResult]:
        return check(self.collection, self._indexes, overwrites=self._schema.overwrites)

    def ttl_seconds(self) -> float | None:
        return self._indexes.ttl_seconds()

    def close(self) -> None:
        self.collection.database.client.close()

    @contextmanager
    def _reconnecting(self) -> Iterator[None]:
        """If the login fails, so does the call; the next one uses the current content of the secret's file."""
        try:
            yield
        except StorageUnavailable as error:
            if error.cause in LOGIN_FAILED:
                self._reconnect_if_changed()
            raise

    def _reconnect_if_changed(self) -> None:
        uri = self._settings.uri.reveal()
        if uri == self._uri:
            return
        self._uri = uri
        try:
            collection = open_collection(self._settings)
        except ConfigurationError as error:
            logger.error("secret file changed, but is invalid", extra={"reason": str(error)})
            return
        logger.info("secret file changed, reconnecting", extra={"setting": "mongodb.uri"})
        self.close()
        self._use(collection)

    def _use(self, collection: Collection[Any]) -> None:
        self.collection = collection
        self._indexes = Indexes(collection, self._settings.ttl_days, deletes=self._schema.deletes)

    @property
    def _primary(self) -> Collection[Any]:
        return self.collection.with_options(read_preference=ReadPreference.PRIMARY)

    def _write(self, writes: Sequence[T], send: Callable[[Sequence[T]], WriteResponse]) -> list[Verdict]:
        try:
            return verdicts(send(writes), len(writes))
        except NOT_ENCODABLE as error:
            return self._write_halves(writes, send, error, rejection_reason(error))
        except OperationFailure as error:
            if (reason := REJECTIONS.get(error.code or 0)) is None:
                raise unavailable(error) from error
            return self._write_halves(writes, send, error, reason)
        except PyMongoError as error:
            raise unavailable(error) from error

    def _send(self, documents: Sequence[Mapping[str, Any]]) -> WriteResponse:
        """As one command, in less than half the time of `insert_many`, which splits documents into several commands.

        After an error `insert_many` is used: a server may take fewer documents in one command.
        """
        command, self._next_send = self._next_send, self._insert_many
        response = command(documents)
        self._next_send = self._insert_command
        return response

    def _insert_command(self, documents: Sequence[Mapping[str, Any]]) -> WriteResponse:
        concern = self.collection.write_concern.document  # as insert_many sends it: timeout_ms includes wtimeout
        response = self.collection.database.command(
            {
                "insert": self.collection.name,
                "documents": list(documents),
                "ordered": False,
                "writeConcern": {name: value for name, value in concern.items() if name != "wtimeout"},
            },
            codec_options=RESPONSE,
        )
        concern_error = response.get("writeConcernError")
        return WriteResponse(
            response.get("n", 0), response.get("writeErrors", ()), [concern_error] if concern_error else ()
        )

    def _insert_many(self, documents: Sequence[Mapping[str, Any]]) -> WriteResponse:
        try:
            self.collection.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            details: Mapping[str, Any] = error.details or {}
            errors, concern_errors = details.get("writeErrors", ()), details.get("writeConcernErrors", ())
            return WriteResponse(details.get("nInserted", 0), errors, concern_errors)
        return WriteResponse(len(documents))

    def _bulk_write(self, writes: Sequence[Upsert]) -> WriteResponse:
        try:
            self.collection.bulk_write(writes, ordered=False)
        except BulkWriteError as error:
            details: Mapping[str, Any] = error.details or {}
            written = details.get("nMatched", 0) + details.get("nUpserted", 0)
            return WriteResponse(written, details.get("writeErrors", ()), details.get("writeConcernErrors", ()))
        return WriteResponse(len(writes))

    def _write_halves(
        self, writes: Sequence[T], send: Callable[[Sequence[T]], WriteResponse], error: Exception, reason: str
    ) -> list[Verdict]:
        """One document fails the call for all: find it by bisection, and store the others."""
        if len(writes) == 1:
            return [Verdict(Outcome.REJECTED, reason, error)]
        middle = len(writes) // 2
        return self._write(writes[:middle], send) + self._write(writes[middle:], send)


def _next_batch(cursor: Iterator[Any]) -> bytes | None:
    """Without the client's time limit, which the server would apply to the whole scan; the socket's is per batch."""
    with translated_errors(), pymongo.timeout(0):
        return cast(bytes | None, next(cursor, None))
