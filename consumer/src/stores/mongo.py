"""A store in MongoDB: the one place that speaks to it."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pymongo
from bson import DatetimeMS, Int64
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, ReadPreference, WriteConcern
from pymongo.collection import Collection
from pymongo.cursor import Cursor
from pymongo.errors import (
    BulkWriteError,
    DocumentTooLarge,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
)

from src.model.errors import StorageUnavailable
from src.model.verdict import STORED, Outcome, Verdict
from src.settings import MongoSettings
from src.stores.document import Document, StoredMessage
from src.stores.mongo_answers import CAUSES, REFUSALS, UNENCODABLE, reason, unavailable, verdicts
from src.stores.query import LOGICAL, Query, Sort, UnsupportedQuery
from src.utils.config import ConfigurationError

logger = logging.getLogger(__name__)

# Raw documents are decoded field by field: no date is too far and no `$ref` is taken for a reference.
READABLE: CodecOptions[Any] = CodecOptions(
    document_class=RawBSONDocument,
    tz_aware=True,
    unicode_decode_error_handler="replace",
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)

Keys = tuple[tuple[str, int], ...]

INDEXES: tuple[Keys, ...] = (
    (("created_at", 1),),
    (("name", 1),),
    (("metadata.source", 1), ("created_at", 1)),
)
EXPIRY: Keys = (("kafka.received_at", 1),)  # not created_at: a late message would be deleted as it arrives

SECONDS_A_DAY = 86_400
PAGE = 10_000  # documents of a scan in one call


class MongoStore:
    """What DataStorage asks of a store, in one collection."""

    def __init__(self, settings: MongoSettings, *, collection: Collection[Any] | None = None) -> None:
        self.collection = _collection(settings) if collection is None else collection
        self._expiry = None if settings.ttl_days is None else max(1, round(settings.ttl_days * SECONDS_A_DAY))

    def insert(self, documents: Sequence[Document]) -> list[Verdict]:
        try:
            self.collection.insert_many([_with_underscore(document) for document in documents], ordered=False)
        except BulkWriteError as error:
            return verdicts(error, len(documents))
        except UNENCODABLE as error:
            return self._insert_halves(documents, error, reason(error))
        except OperationFailure as error:
            if (refusal := REFUSALS.get(error.code or 0)) is None:
                raise unavailable(error) from error
            return self._insert_halves(documents, error, refusal)
        except PyMongoError as error:
            raise unavailable(error) from error
        return [STORED] * len(documents)

    def fetch(self, ids: Sequence[str]) -> list[Document]:
        """From the primary, which is where the ids were found taken."""
        with _translated():
            try:
                return [_message(raw) for raw in self._primary.find({"_id": {"$in": list(ids)}}, {"kafka": 0})]
            except DocumentTooLarge:  # the question is, where ids are megabytes long
                middle = len(ids) // 2
                return [*self.fetch(ids[:middle]), *self.fetch(ids[middle:])]

    def find(self, query: Query, limit: int | None, sort: Sort | None) -> list[Document]:
        order = [("_id" if field == "id" else field, direction) for field, direction in sort or ()]
        with _translated():
            try:
                return [_message(raw) for raw in self.collection.find(_filter(query), limit=limit or 0, sort=order)]
            except BSONError as error:
                raise UnsupportedQuery(f"MongoDB can't be asked this: {error}") from error
            except OperationFailure as error:
                if error.code in CAUSES:
                    raise
                raise UnsupportedQuery(f"MongoDB refuses the query: {error}") from error

    def scan(self) -> Iterator[StoredMessage]:
        """From the primary: what a secondary has not yet is not lost."""
        fields = {"kafka.topic": 1, "kafka.partition": 1, "kafka.offset": 1, "kafka.timestamp": 1}
        with self._primary.find({}, fields, batch_size=PAGE) as cursor:
            while page := _page(cursor):
                yield from page

    def ping(self) -> None:
        with _translated():
            self.collection.database.command("ping")

    def ensure_indexes(self) -> None:
        self.ping()
        there = self._indexes()
        for keys in INDEXES:
            if keys not in there:
                self._make_index(keys)
        self._ensure_expiry(there)

    def check(self) -> list[tuple[str, bool, str]]:
        answers: list[tuple[str, bool, str]] = []
        questions = {
            "store reachable": self._reachable,
            "rights to write": self._rights,
            "indexes": self._missing_indexes,
            "durability": self._durability,
        }
        for name, ask in questions.items():
            try:
                answers.append((name, *ask()))
            except StorageUnavailable as error:
                failed = "authenticated" if error.cause == "authentication" else name
                return [*answers, (failed, False, str(error))]
        return answers

    def ttl_seconds(self) -> float | None:
        """Any index may delete documents, an operator's own too."""
        expiries = [index["expireAfterSeconds"] for index in self._indexes().values() if "expireAfterSeconds" in index]
        return min(expiries, default=None)

    def close(self) -> None:
        self.collection.database.client.close()

    # Documents

    @property
    def _primary(self) -> Collection[Any]:
        return self.collection.with_options(read_preference=ReadPreference.PRIMARY)

    def _insert_halves(self, documents: Sequence[Document], error: Exception, reason: str) -> list[Verdict]:
        """One of them fails the call for all; look for it, and store its neighbours."""
        if len(documents) == 1:
            return [Verdict(Outcome.REFUSED, reason, error)]
        middle = len(documents) // 2
        return self.insert(documents[:middle]) + self.insert(documents[middle:])

    # Indexes

    def _indexes(self) -> dict[Keys, Mapping[str, Any]]:
        with _translated():
            return {tuple(index["key"]): index for index in self.collection.index_information().values()}

    def _make_index(self, keys: Keys, **options: Any) -> None:
        with self._warning_that_says("createIndex", dict(keys), options):
            self.collection.create_index(list(keys), **options)

    def _ensure_expiry(self, there: Mapping[Keys, Mapping[str, Any]]) -> None:
        """The expiry that is set comes into force, where the rights allow; what was set before stays until dropped."""
        found = there.get(EXPIRY, {}).get("expireAfterSeconds")
        if self._expiry is None and found is not None:
            logger.warning(
                "an index still deletes documents",
                extra={"after_seconds": found, "to_stop_it_run": self._shell("dropIndex", dict(EXPIRY))},
            )
        elif self._expiry is not None and EXPIRY not in there:
            self._make_index(EXPIRY, expireAfterSeconds=self._expiry)
        elif self._expiry is not None and self._expiry != found:
            self._change_expiry(self._expiry)

    def _change_expiry(self, seconds: int) -> None:
        change = {"keyPattern": dict(EXPIRY), "expireAfterSeconds": seconds}
        command = {"collMod": self.collection.name, "index": change}
        with self._warning_that_says("runCommand", command):
            self.collection.database.command(command)
            if self._indexes()[EXPIRY].get("expireAfterSeconds") != seconds:
                raise OperationFailure("the server said yes, and the expiry is what it was")
            logger.info("expiry changed", extra={"after_seconds": seconds})

    @contextmanager
    def _warning_that_says(self, command: str, *arguments: Mapping[str, Any]) -> Iterator[None]:
        """Messages are stored without the index too, so whoever may make it is told how, and the service goes on."""
        try:
            yield
        except (OperationFailure, NetworkTimeout) as error:
            run = self._shell(command, *arguments)
            logger.warning("an index is not as it should be", extra={"reason": str(error), "to_mend_it_run": run})
        except PyMongoError as error:
            raise unavailable(error) from error

    def _shell(self, command: str, *arguments: Mapping[str, Any]) -> str:
        """What to type into mongosh."""
        database = f"db.getSiblingDB({json.dumps(self.collection.database.name)})"
        place = "" if command == "runCommand" else f".getCollection({json.dumps(self.collection.name)})"
        return f"{database}{place}.{command}({', '.join(json.dumps(each) for each in arguments if each)})"

    # Answers for people

    def _reachable(self) -> tuple[bool, str]:
        self.ping()
        with _translated():
            version = self.collection.database.client.server_info()["version"]
        return True, f"MongoDB {version}"

    def _rights(self) -> tuple[bool, str]:
        with _translated():
            status = self.collection.database.command("connectionStatus", showPrivileges=True)["authInfo"]
            self.collection.find_one({}, {"_id": 1})
        users = [f"{user['user']}@{user['db']}" for user in status["authenticatedUsers"]]
        if not users:
            return True, "the server asks for no user"
        privileges = status["authenticatedUserPrivileges"]
        if not privileges:  # and yet it could read
            return True, f"the server does not tell what {', '.join(users)} may do"
        allowed = any(map(self._allows_inserts, privileges))
        return allowed, f"{', '.join(users)} may {'' if allowed else 'not '}insert into {self.collection.full_name}"

    def _allows_inserts(self, privilege: Mapping[str, Any]) -> bool:
        resource = privilege["resource"]
        here = resource.get("anyResource") or (
            resource.get("db") in ("", self.collection.database.name)
            and resource.get("collection") in ("", self.collection.name)
        )
        return bool(here) and "insert" in privilege["actions"]

    def _missing_indexes(self) -> tuple[bool, str]:
        there = self._indexes()
        missing = [json.dumps(dict(keys)) for keys in INDEXES if keys not in there]
        return True, f"made at start: {', '.join(missing)}" if missing else "all there"

    def _durability(self) -> tuple[bool, str]:
        concern = self.collection.write_concern.document
        return True, f"write concern {concern}{' is weaker than the default' if _is_weaker(concern) else ''}"


# Connections


def _collection(settings: MongoSettings) -> Collection[Any]:
    client = _client(settings)
    concern = _write_concern(client.write_concern.document)
    if _is_weaker(concern.document):
        logger.warning(
            "what a crashed server forgets is lost: the URI asks for less than w=majority with journal=true",
            extra={"write_concern": str(concern.document)},
        )
    database = client.get_database(settings.database, codec_options=READABLE, write_concern=concern)
    return database.get_collection(settings.collection)


def _client(settings: MongoSettings) -> MongoClient[dict[str, Any]]:
    """Not connected yet. An option that pymongo would only warn of, and leave out, is an error here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            return MongoClient(
                settings.uri.reveal(),
                connect=False,
                timeoutMS=settings.timeout_ms,
                serverSelectionTimeoutMS=settings.timeout_ms,  # this and the next for the steps of a scan,
                socketTimeoutMS=settings.timeout_ms,  # which as a whole may take longer
                appname="kafka-pubsub-consumer",
            )
    except (PyMongoError, ValueError, TypeError, OSError, UserWarning) as error:
        raise ConfigurationError(f"mongodb.uri: {_without_secrets(settings.uri.reveal(), error)}") from None


def _without_secrets(uri: str, error: Exception) -> str:
    """pymongo may cut a password with a special character in two and show a half of it."""
    if "@" in uri:
        return f"pymongo refuses it ({type(error).__name__}); in user and password, @ : / ? # % are written as %XX"
    return str(error)


def _write_concern(given: Mapping[str, Any]) -> WriteConcern:
    """Majority and journaled, less what the URI says otherwise."""
    if given.get("w") == 0:
        raise ConfigurationError("mongodb.uri: w=0 leaves every write unconfirmed; leave it out")
    return WriteConcern(**{"w": "majority", "j": True, **given})


def _is_weaker(concern: Mapping[str, Any]) -> bool:
    return concern.get("w") != "majority" or not concern.get("j")


# Documents, there and back


def _with_underscore(document: Document) -> dict[str, Any]:
    return {"_id" if name == "id" else name: value for name, value in document.items()}


def _filter(query: Query) -> dict[str, Any]:
    """The same query with MongoDB's own name for `id`."""
    return {"_id" if field == "id" else field: _condition(field, condition) for field, condition in query.items()}


def _condition(field: str, condition: Any) -> Any:
    return [_filter(each) for each in condition] if field in LOGICAL and isinstance(condition, list) else condition


def _message(raw: RawBSONDocument) -> dict[str, Any]:
    document = _plain(raw)
    document.pop("id", None)  # of another program; a message's is `_id`
    return {"id": str(document.pop("_id")), **document}


def _plain(value: Any) -> Any:
    """JSON's own types and datetimes; what another program may have stored besides is shown as text."""
    if value is None or type(value) in (str, int, float, bool, datetime):
        return value
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, Int64):
        return int(value)
    return _far_date(int(value)) if isinstance(value, DatetimeMS) else str(value)


def _far_date(milliseconds: int) -> str:
    """A date beyond Python's years, as JavaScript writes one: +010000-01-01T00:00:00.000Z."""
    base = datetime(2000, 1, 1, tzinfo=UTC)
    cycle = timedelta(days=146_097) // timedelta(milliseconds=1)  # 400 years
    cycles, rest = divmod(milliseconds - int(base.timestamp()) * 1000, cycle)
    moment = base + timedelta(milliseconds=rest)
    return f"{moment.year + 400 * cycles:+07d}{moment:-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _page(cursor: Cursor[RawBSONDocument]) -> list[StoredMessage]:
    """The client's time limit would hold for the whole scan at the server, so here each answer has one of its own."""
    with _translated(), pymongo.timeout(0):
        return [StoredMessage.of(_plain(raw["_id"]), _plain(raw.get("kafka"))) for raw in islice(cursor, PAGE)]


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except PyMongoError as error:
        raise unavailable(error) from error
