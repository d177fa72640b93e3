"""MongoDB: the contract on a real server, and rare responses of a server from a stub of a collection."""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, cast

import pytest
from bson import DatetimeMS, Decimal128, Int64, ObjectId, encode
from hypothesis import given
from hypothesis import strategies as st
from pymongo import MongoClient, ReadPreference, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    DocumentTooLarge,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
)

from src.model.errors import StorageUnavailable
from src.model.record import Record
from src.model.verdict import Outcome
from src.settings import MongoSettings, StoreUri
from src.storage import DataStorage, StoredMessage
from src.stores.document import EARLIEST, LATEST, DocumentBatch, Schema
from src.stores.document import origin as origin_of
from src.stores.mongo.documents import encoded_origins
from src.stores.mongo.indexes import INDEXES
from src.stores.mongo.store import MAX_COMMAND_BYTES, MongoStore
from src.stores.query import UnsupportedQuery
from src.utils.config import ConfigurationError
from tests.histories import keyed
from tests.mongodb_server import mongodb_database, mongodb_uri
from tests.storage_contract import DAY, OWN_DATA, OwnDataContract, StorageContract, message, origin

__all__ = ["mongodb_database", "mongodb_uri"]  # fixtures

Raw = Collection[dict[str, Any]]


@pytest.fixture
def settings(mongodb_uri: str, mongodb_database: str) -> MongoSettings:
    return MongoSettings(uri=StoreUri(mongodb_uri), database=mongodb_database)


@pytest.fixture
def store(settings: MongoSettings) -> Iterator[MongoStore]:
    with closing(MongoStore(settings)) as store:
        yield store


@pytest.fixture
def keyed_store(settings: MongoSettings) -> Iterator[MongoStore]:
    with closing(MongoStore(settings, Schema(keyed("replace")))) as store:
        yield store


@pytest.fixture
def storage(settings: MongoSettings, store: MongoStore) -> DataStorage:
    return DataStorage(settings, store=store)


@pytest.fixture
def collection(settings: MongoSettings) -> Iterator[Raw]:
    """The same collection, for another program."""
    with MongoClient[dict[str, Any]](settings.uri.reveal()) as client:
        yield client[settings.database][settings.collection]


@pytest.mark.docker
class TestMongoStore(StorageContract):
    """MongoDB fulfills the contract of every store."""


@pytest.mark.docker
class TestOwnData(OwnDataContract):
    @pytest.fixture
    def own_storage(self, settings: MongoSettings) -> Iterator[DataStorage]:
        with DataStorage(settings, OWN_DATA) as storage:
            yield storage


@pytest.mark.docker
class TestOnAServer:
    def test_the_id_is_stored_as_underscore_id_and_dates_as_dates(self, storage: DataStorage, collection: Raw) -> None:
        storage.save(message("1", kafka=origin(7)))

        [raw] = collection.find()

        assert raw["_id"] == "1"
        assert "id" not in raw
        assert raw["created_at"] == raw["kafka"]["received_at"] == DAY.replace(tzinfo=None)

    def test_documents_of_other_programs_can_be_read(self, storage: DataStorage, collection: Raw) -> None:
        far, early = DatetimeMS(253402300800000), DatetimeMS(-62135596800001)
        identity = ObjectId()
        collection.insert_many(
            [
                {"_id": "far", "created_at": far, "kafka": {"received_at": far}},
                {"_id": "early", "created_at": early},
                {"_id": identity, "n": Int64(5), "d": Decimal128("1.5"), "id": "not this one"},
                {"_id": 5, "kafka": {"topic": 1, "partition": "x", "offset": True}},
                {"_id": {"$ref": 1, "$id": 2}, "kafka": [1]},
            ]
        )
        storage.save(message("1"))

        found = {document["id"]: document for document in storage.get({}, sort=[("created_at", -1)], limit=10)}

        assert found["1"] == message("1")
        assert found["far"]["created_at"] == "+010000-01-01T00:00:00.000Z"
        assert found["early"]["created_at"] == "+000000-12-31T23:59:59.999Z"
        assert found[str(identity)] == {"id": str(identity), "n": 5, "d": "1.5"}
        scanned = list(chain.from_iterable(storage.scan()))
        assert len(scanned) == 6
        assert StoredMessage(5) in scanned

    def test_a_date_out_of_pythons_range_can_be_compared(self, storage: DataStorage, collection: Raw) -> None:
        collection.insert_one({"_id": "1", "created_at": DatetimeMS(253402300800000)})

        [verdict] = storage.save_many([message("1")])

        assert verdict.reason == "id_conflict"

    def test_an_operators_own_unique_index_rejects(self, storage: DataStorage, collection: Raw) -> None:
        collection.create_index("name", unique=True)
        storage.save(message("1", name="a"))

        verdicts = storage.save_many([message("2", name="a"), message("3", name="b"), message("1", name="a")])

        assert [(verdict.outcome.name, verdict.reason) for verdict in verdicts] == [
            ("REJECTED", "duplicate_key"),
            ("STORED", ""),
            ("DUPLICATE", ""),
        ]

    def test_a_schema_validator_rejects(self, storage: DataStorage, collection: Raw) -> None:
        collection.database.create_collection(collection.name, validator={"$jsonSchema": {"required": ["name"]}})

        verdicts = storage.save_many([{"id": "1"}, message("2")])

        assert [(verdict.outcome.name, verdict.reason) for verdict in verdicts] == [
            ("REJECTED", "validation_failed"),
            ("STORED", ""),
        ]

    def test_a_newer_validator_does_not_reject_a_stored_message(self, storage: DataStorage, collection: Raw) -> None:
        storage.save(message("1"))
        collection.database.command("collMod", collection.name, validator={"color": {"$exists": True}})

        verdicts = storage.save_many([message("1"), message("2")])

        assert [verdict.outcome.name for verdict in verdicts] == ["DUPLICATE", "REJECTED"]

    def test_indexes_are_created_and_an_operators_own_remain(self, storage: DataStorage, collection: Raw) -> None:
        collection.create_index("created_at", name="mine")

        storage.ensure_indexes()

        indexes = collection.index_information()
        assert {tuple(index["key"]) for index in indexes.values()} == {(("_id", 1),), *INDEXES}
        assert "mine" in indexes

    def test_documents_expire_by_the_time_they_were_received(self, settings: MongoSettings, collection: Raw) -> None:
        with DataStorage({"uri": settings.uri.reveal(), "database": settings.database, "ttl_days": 7}) as storage:
            storage.ensure_indexes()

            assert storage.ttl_seconds == 7 * 24 * 3600
        assert "kafka.received_at_1" in collection.index_information()

    def test_a_ttl_index_that_is_no_longer_configured_is_logged(
        self, storage: DataStorage, collection: Raw, caplog: pytest.LogCaptureFixture
    ) -> None:
        collection.create_index("kafka.received_at", expireAfterSeconds=1000)

        storage.ensure_indexes()

        assert caplog.messages == ["TTL index still deletes documents"]
        assert storage.ttl_seconds == 1000

    def test_a_scan_may_have_several_pages(self, storage: DataStorage, collection: Raw) -> None:
        collection.insert_many([{"_id": str(each)} for each in range(10_001)])

        pages = list(storage.scan())

        assert len({found.id for page in pages for found in page}) == 10_001
        assert len(pages) > 1

    def test_a_query_that_cannot_be_encoded_is_named(self, storage: DataStorage) -> None:
        with pytest.raises(UnsupportedQuery, match="object"):
            storage.get({"x": object()})


def test_an_unreachable_server_does_not_fail_the_constructor() -> None:
    storage = DataStorage({"uri": "mongodb://user:secret@127.0.0.1:1/", "timeout_ms": 100})

    for call in (storage.ping, storage.ensure_indexes, lambda: storage.save_many([message()]), lambda: storage.get({})):
        with pytest.raises(StorageUnavailable) as caught:
            call()
        assert caught.value.cause == "unreachable"
        assert "secret" not in str(caught.value)
    with pytest.raises(StorageUnavailable):
        next(storage.scan())
    assert [(result.name, result.ok) for result in storage.check()] == [("store reachable", False)]
    storage.close()


@pytest.mark.parametrize(
    ("options", "concern", "warned"),
    [
        ("", {"w": "majority", "j": True}, False),
        ("?w=majority&journal=true", {"w": "majority", "j": True}, False),
        ("?w=1", {"w": 1, "j": True}, True),
        ("?journal=false", {"w": "majority", "j": False}, True),
    ],
)
def test_the_write_concern_is_majority_and_journaled_unless_the_uri_sets_less(
    options: str, concern: dict[str, object], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    store = MongoStore(MongoSettings(uri=StoreUri(f"mongodb://user:secret@127.0.0.1:1/{options}")))

    assert store.collection.write_concern.document == concern
    assert bool(caplog.messages) is warned
    assert "secret" not in caplog.text
    store.close()


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ("", "majority"),
        ("?w=1", None),
        ("?readConcernLevel=local", "local"),
        ("?w=1&readConcernLevel=majority", "majority"),
    ],
)
def test_what_is_read_cannot_be_rolled_back_unless_the_uri_sets_less(options: str, level: str | None) -> None:
    """A document that is found makes a message a duplicate, whose offset is committed."""
    with closing(MongoStore(MongoSettings(uri=StoreUri(f"mongodb://127.0.0.1:1/{options}")))) as store:
        assert store.collection.read_concern.level == level
        assert store._primary.read_concern.level == level


@pytest.mark.parametrize("options", ["", "?retryWrites=true"])
def test_the_driver_does_not_repeat_writes_which_some_servers_reject(options: str) -> None:
    with closing(MongoStore(MongoSettings(uri=StoreUri(f"mongodb://127.0.0.1:1/{options}")))) as store:
        assert store.collection.database.client.options.retry_writes is False


class StubDatabase:
    name = "pubsub"

    def __init__(self, command: Callable[..., dict[str, Any]]) -> None:
        self.command = command
        self.client = self

    def server_info(self) -> dict[str, Any]:
        return {"version": "8.0.29"}

    def close(self) -> None:
        """Nothing is open."""


class StubCollection:
    """Fails with `error`, or for a document in `invalid`; stores everything else."""

    name = "messages"
    full_name = "pubsub.messages"
    write_concern = WriteConcern("majority", j=True)

    def __init__(self, *, invalid: Mapping[str, Exception] | None = None, error: PyMongoError | None = None) -> None:
        self.stored: list[str] = []
        self.calls: list[str] = []
        self.indexes: dict[str, dict[str, Any]] = {}
        self.commands: list[dict[str, Any]] = []
        self.replies: dict[str, dict[str, Any]] = {}
        self.max_ids = 1_000_000
        self.database = StubDatabase(self.command)
        self._invalid = invalid or {}
        self._error = error

    def insert_many(self, documents: Sequence[Mapping[str, Any]], *, ordered: bool) -> None:
        assert not ordered
        for document in documents:
            if document["_id"] in self._invalid:
                raise self._invalid[document["_id"]]
        self._fail()
        self.stored += [document["_id"] for document in documents]
        self.calls.append("insert_many")

    def create_index(self, keys: Sequence[tuple[str, int]], **_options: object) -> None:
        self._fail()

    def index_information(self) -> dict[str, Any]:
        return self.indexes

    def command(self, command: str | dict[str, Any], **_options: object) -> dict[str, Any]:
        name = command if isinstance(command, str) else next(iter(command))
        if name == "insert" and isinstance(command, dict):
            self.insert_many(command["documents"], ordered=command["ordered"])
            self.calls[-1] = "insert"
            return {"n": len(command["documents"]), **self.replies.get("insert", {})}
        if isinstance(command, dict):
            self.commands.append(command)
            self._fail()
        return self.replies.get(name, {})

    def find_one(self, *_arguments: object) -> None:
        self._fail()

    def find(self, query: Mapping[str, Any], *_arguments: object, **_options: object) -> list[dict[str, Any]]:
        self._fail()
        ids = query["_id"]["$in"]
        if len(ids) > self.max_ids:
            raise DocumentTooLarge("the query is too large")
        return [{"_id": each} for each in ids]

    def with_options(self, *, read_preference: object) -> "StubCollection":
        return self

    def _fail(self) -> None:
        if self._error is not None:
            raise self._error


def batch(*ids: str) -> DocumentBatch:
    return DocumentBatch([{"id": each} for each in ids], [None] * len(ids), 0)


def store_on(collection: StubCollection, **settings: Any) -> MongoStore:
    return MongoStore(MongoSettings(**settings), collection=cast(Collection[Any], collection))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DocumentTooLarge("too large"), "document_too_large"),
        (OverflowError("too many bits"), "integer_out_of_range"),
        (OperationFailure("exceeded maximum nested object depth", 15), "nesting_too_deep"),
    ],
)
def test_a_document_that_fails_the_whole_call_is_found_and_its_neighbors_are_stored(
    error: Exception, reason: str
) -> None:
    collection = StubCollection(invalid={"3": error, "6": error})

    verdicts = store_on(collection).insert(batch(*map(str, range(7))))

    assert [verdict.reason for verdict in verdicts] == ["", "", "", reason, "", "", reason]
    assert verdicts[3].outcome is Outcome.REJECTED
    assert sorted(collection.stored) == ["0", "1", "2", "4", "5"]


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (AutoReconnect("gone"), "unreachable"),
        (OperationFailure("Authentication failed.", 18), "authentication"),
        (OperationFailure("not authorized on pubsub to execute command", 13), "not_authorized"),
        (BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64}]}), "refused"),
    ],
)
def test_an_unavailable_server_rejects_no_document(error: PyMongoError, cause: str) -> None:
    with pytest.raises(StorageUnavailable) as caught:
        store_on(StubCollection(error=error)).insert(batch("1", "2"))

    assert caught.value.cause == cause


def test_after_a_failed_command_the_driver_splits_the_documents_once() -> None:
    """They may have been too large for one message."""
    collection = StubCollection(error=AutoReconnect("connection closed"))
    store = store_on(collection)
    with pytest.raises(StorageUnavailable):
        store.insert(batch("1"))

    collection._error = None
    for identifier in ("1", "2", "3"):
        store.insert(batch(identifier))

    assert collection.calls == ["insert_many", "insert", "insert"]


def test_large_messages_are_split_by_the_driver() -> None:
    collection = StubCollection()
    store = store_on(collection)
    large = Record("t", 0, 0, None, b"x" * (MAX_COMMAND_BYTES // 2 + 1))

    store.insert(batch("1", "2")._replace(records=[large, large]))
    store.insert(batch("3")._replace(records=[large]))
    store.insert(batch("4"))

    assert collection.calls == ["insert_many", "insert", "insert"]


@pytest.mark.parametrize("code", [64, 91])
def test_a_command_without_a_confirmed_write_concern_stores_nothing(code: int) -> None:
    collection = StubCollection()
    collection.replies["insert"] = {"writeConcernError": {"code": code}}

    with pytest.raises(StorageUnavailable, match=f"{code}"):
        store_on(collection).insert(batch("1"))


@pytest.mark.parametrize(
    "errors",
    [
        {"writeErrors": [], "writeConcernErrors": [{"code": 64}], "nInserted": 1},
        {"writeErrors": [], "writeConcernErrors": [], "nInserted": 0},
        {},
    ],
)
def test_a_failed_write_concern_of_the_driver_stores_nothing(errors: dict[str, Any]) -> None:
    store = store_on(collection := StubCollection(error=AutoReconnect("gone")))
    with pytest.raises(StorageUnavailable):
        store.insert(batch("1"))
    collection._error = BulkWriteError(errors)

    with pytest.raises(StorageUnavailable) as caught:
        store.insert(batch("1"))

    assert caught.value.cause == "write_concern"


@given(
    st.lists(
        st.builds(
            Record,
            st.just("data-topic"),
            st.integers(0, 3),
            st.integers(0, 2**33),
            st.none(),
            st.none(),
            timestamp=st.none() | st.integers(EARLIEST - 2, LATEST + 2) | st.integers(-(2**63), 2**63 - 1),
        ),
        max_size=5,
    ),
    st.integers(0, LATEST),
)
def test_origins_are_encoded_as_the_driver_would(records: list[Record], received_at: int) -> None:
    encoded = encoded_origins(records, received_at)

    assert [each.raw for each in encoded if each] == [encode(origin_of(each, received_at)) for each in records]
    assert encode({"kafka": encoded}) == encode({"kafka": [origin_of(each, received_at) for each in records]})


def test_the_driver_without_its_c_code_encodes_the_same() -> None:
    program = """if True:
        import sys
        sys.modules["bson._cbson"] = None
        import bson
        from src.stores.mongo.documents import EncodedObject
        encoded = bson.encode({"a": EncodedObject(bson.encode({"b": 1}))})
        sys.exit(bson.has_c() or encoded != bson.encode({"a": {"b": 1}}))
    """

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_dates_are_those_of_the_years_1_to_9999() -> None:
    assert EARLIEST == -62_135_596_800_000
    assert LATEST == 253_402_300_799_999


def test_a_query_that_is_too_large_is_split() -> None:
    collection = StubCollection()
    collection.max_ids = 2

    found = store_on(collection).fetch(["1", "2", "3", "4", "5"])

    assert [document["id"] for document in found] == ["1", "2", "3", "4", "5"]


class LaggingSecondary(StubCollection):
    """A collection that is read from a secondary, which has no documents yet; the primary has one."""

    def find_raw_batches(self, *_arguments: object, **_options: object) -> Any:
        return nullcontext(iter(()))

    def with_options(self, *, read_preference: object) -> StubCollection:
        return Primary() if read_preference == ReadPreference.PRIMARY else self


class Primary(StubCollection):
    def find_raw_batches(self, *_arguments: object, **_options: object) -> Any:
        return nullcontext(iter([encode({"_id": "a"})]))


def test_a_scan_reads_from_the_primary_whatever_the_uri_sets() -> None:
    [page] = store_on(LaggingSecondary()).scan()

    assert [document.id for document in page] == ["a"]


@pytest.mark.parametrize("code", [2, 9])
def test_a_query_that_the_server_rejects_is_named(code: int) -> None:
    with pytest.raises(UnsupportedQuery, match="unknown operator"):
        store_on(StubCollection(error=OperationFailure("unknown operator: $foo", code))).find({}, None, None)


def test_a_query_without_permission_is_unavailable() -> None:
    with pytest.raises(StorageUnavailable):
        store_on(StubCollection(error=OperationFailure("not authorized", 13))).find({}, None, None)


@pytest.mark.parametrize("error", [OperationFailure("not authorized", 13), NetworkTimeout("timed out")])
def test_without_permission_to_create_indexes_it_logs_the_commands_and_continues(
    error: PyMongoError, caplog: pytest.LogCaptureFixture
) -> None:
    store_on(StubCollection(error=error), ttl_days=2).ensure_indexes()

    commands = [vars(record)["fix_command"] for record in caplog.records]
    assert commands[0] == 'db.getSiblingDB("pubsub").getCollection("messages").createIndex({"created_at": 1})'
    assert commands[3].endswith('.createIndex({"kafka.received_at": 1}, {"expireAfterSeconds": 172800})')


@pytest.mark.parametrize(
    "error", [AutoReconnect("gone"), *(OperationFailure("failover", code) for code in (64, 70, 117, 133, 11601))]
)
def test_indexes_are_created_later_if_the_server_is_unavailable_for_now(error: PyMongoError) -> None:
    with pytest.raises(StorageUnavailable):
        store_on(StubCollection(error=error)).ensure_indexes()


class ChangesTtl(StubCollection):
    def command(self, command: str | dict[str, Any], **options: object) -> dict[str, Any]:
        reply = super().command(command, **options)
        if isinstance(command, dict):
            self.indexes["ttl"]["expireAfterSeconds"] = command["index"]["expireAfterSeconds"]
        return reply


def with_ttl(collection: StubCollection) -> StubCollection:
    collection.indexes = {
        "ttl": {"key": [("kafka.received_at", 1)], "expireAfterSeconds": 1000},
        **{str(keys): {"key": list(keys)} for keys in INDEXES},
    }
    return collection


def test_a_new_ttl_is_applied(caplog: pytest.LogCaptureFixture) -> None:
    collection = with_ttl(ChangesTtl())
    store = store_on(collection, ttl_days=0.5)

    with caplog.at_level(logging.INFO):
        store.ensure_indexes()
        store.ensure_indexes()

    assert store.ttl_seconds() == 43_200
    assert [command["collMod"] for command in collection.commands] == ["messages"]
    assert caplog.messages == ["TTL changed"]


@pytest.mark.parametrize("error", [None, OperationFailure("not authorized", 13)])
def test_if_the_new_ttl_cannot_be_applied_the_command_is_logged(
    error: PyMongoError | None, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_on(with_ttl(StubCollection(error=error)), ttl_days=2)

    store.ensure_indexes()

    assert [vars(record)["fix_command"] for record in caplog.records] == [
        'db.getSiblingDB("pubsub").runCommand({"collMod": "messages", "index":'
        ' {"keyPattern": {"kafka.received_at": 1}, "expireAfterSeconds": 172800}})'
    ]
    assert store.ttl_seconds() == 1000


def privileges(*actions: str, database: str = "pubsub", collection: str = "") -> list[dict[str, Any]]:
    return [{"resource": {"db": database, "collection": collection}, "actions": list(actions)}]


@pytest.mark.parametrize(
    ("granted", "allowed"),
    [
        (privileges("find", "insert"), True),
        (privileges("insert", collection="messages"), True),
        (privileges("insert", database=""), True),
        ([{"resource": {"anyResource": True}, "actions": ["insert"]}], True),
        (privileges("find"), False),
        (privileges("insert", database="other"), False),
        (privileges("insert", collection="other"), False),
        ([{"resource": {"cluster": True}, "actions": ["insert"]}], False),
        ([], True),  # the user could read, so the list is incomplete
    ],
)
def test_the_check_reports_whether_the_user_may_write(granted: list[dict[str, Any]], allowed: bool) -> None:
    collection = StubCollection()
    users = [{"user": "consumer", "db": "admin"}]
    collection.replies["connectionStatus"] = {
        "authInfo": {"authenticatedUsers": users, "authenticatedUserPrivileges": granted}
    }

    [result] = [result for result in store_on(collection).check() if result.name == "write permission"]

    assert result.ok is allowed
    assert "consumer@admin" in result.text


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("retryWritez=hunter2", "unknown option retryWritez"),
        ("tlsCAFile=/no/such/ca.pem", "cannot read tlsCAFile=/no/such/ca.pem: No such file or directory"),
        ("w=majority&maxPoolSize=hunter2", "the value of the option maxPoolSize is invalid"),
        ("tlsCertificateKeyFilePassword=hunter2&readPreferense=x", "unknown option readPreferense"),
    ],
)
@pytest.mark.parametrize("user", ["", "user:hunter2@"])
def test_an_invalid_option_of_the_uri_is_named_and_only_the_path_of_a_file_is_shown(
    user: str, option: str, text: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        DataStorage({"uri": f"mongodb://{user}host/?{option}"})

    assert str(caught.value) == f"mongodb.uri: {text}"


@pytest.mark.parametrize("uri", ["mongodb://user:hun?ter=2@host", "mongodb://user:hun@ter2@host/?x=1"])
def test_a_part_of_an_unescaped_password_is_not_shown_as_an_option(uri: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        DataStorage({"uri": uri})

    assert "hun" not in str(caught.value)
    assert "ter" not in str(caught.value).replace("character", "")


class RejectsUser(StubCollection):
    """A server that rejects the credentials."""

    def command(self, command: str | dict[str, Any], **_options: object) -> dict[str, Any]:
        raise OperationFailure("Authentication failed.", 18)


class DeniesUser(StubCollection):
    """A server that rejects the credentials of writes."""

    def insert_many(self, *_arguments: object, **_options: object) -> None:
        raise OperationFailure("command insert requires authentication", 13)


@pytest.mark.parametrize(
    "call",
    [lambda store: store.ping(), lambda store: store.ensure_indexes(), lambda store: store.insert(batch("1"))],
)
def test_after_a_failed_login_the_renewed_secret_file_is_used(
    call: Callable[[MongoStore], object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    uri = tmp_path / "uri"
    uri.write_text("mongodb://user:first@old/")
    settings = {"uri": StoreUri("mongodb://user:first@old/").in_file(uri)}

    class FailingLogin(RejectsUser, DeniesUser):
        """Rejects every call."""

    failing = FailingLogin()
    store = store_on(failing, **settings)
    with pytest.raises(StorageUnavailable):
        call(store)
    assert cast(object, store.collection) is failing
    assert "secret file changed, reconnecting" not in caplog.messages

    uri.write_text("mongodb://user:second@new/\n")
    with pytest.raises(StorageUnavailable):
        call(store)

    assert store.collection.database.client._seeds == {("new", 27017)}
    assert store.collection.full_name == "pubsub.messages"
    assert caplog.messages.count("secret file changed, reconnecting") == 1
    assert "second" not in caplog.text
    store.close()


def test_an_invalid_renewed_secret_is_reported_once_and_the_old_client_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = tmp_path / "uri"
    rejecting = RejectsUser()
    store = store_on(rejecting, uri=StoreUri("mongodb://user:first@old/").in_file(uri))
    uri.write_text("mongodb://user:sec@nd@new/?w=0")

    for _ in range(2):
        with pytest.raises(StorageUnavailable):
            store.ping()

    assert cast(object, store.collection) is rejecting
    assert caplog.messages.count("secret file changed, but is invalid") == 1
    assert "sec@nd" not in caplog.text


def test_the_check_reports_a_wrong_password() -> None:
    [result] = store_on(RejectsUser()).check()

    assert (result.name, result.ok) == ("authentication", False)
    assert "Authentication failed" in result.text
