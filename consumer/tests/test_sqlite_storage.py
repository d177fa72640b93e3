"""The SQLite store: the contract, and the behavior of files, threads and processes."""

import json
import logging
import multiprocessing
import resource
import sqlite3
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from src.model.check_result import CheckResult
from src.model.errors import StorageUnavailable
from src.model.verdict import DUPLICATE, STORED, Outcome
from src.settings import MongoSettings, StoreUri
from src.storage import DataStorage
from src.stores.document import Schema
from src.stores.query import UnsupportedQuery
from src.stores.sqlite import SqliteStore
from tests.histories import keyed
from tests.storage_contract import OWN_DATA, OwnDataContract, StorageContract, message


def opened(path: Path, **settings: object) -> DataStorage:
    return DataStorage({"uri": f"sqlite:///{path}", **settings})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store with blanks.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(MongoSettings(uri=StoreUri(f"sqlite:///{path}")))) as store:
        yield store


@pytest.fixture
def keyed_store(path: Path) -> Iterator[SqliteStore]:
    settings = MongoSettings(uri=StoreUri(f"sqlite:///{path}"), collection="keyed")
    with closing(SqliteStore(settings, Schema(keyed("replace")))) as store:
        yield store


@pytest.fixture
def storage(store: SqliteStore) -> DataStorage:
    return DataStorage(MongoSettings(), store=store)


class TestSqliteStore(StorageContract):
    """SQLite fulfills the contract of every store."""


class TestOwnData(OwnDataContract):
    @pytest.fixture
    def own_storage(self, path: Path) -> Iterator[DataStorage]:
        with DataStorage({"uri": f"sqlite:///{path}"}, OWN_DATA) as storage:
            yield storage


def test_a_relative_path_is_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with DataStorage(MongoSettings(uri=StoreUri("sqlite:///here.db"))) as storage:
        storage.save(message())

    assert (tmp_path / "here.db").exists()


def test_documents_outlive_the_store(path: Path) -> None:
    with opened(path) as storage:
        storage.save(message("1"))

    with opened(path) as storage:
        assert storage.get({}) == [message("1")]


def test_a_file_that_an_older_version_has_written_is_upgraded(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE messages (id TEXT NOT NULL PRIMARY KEY, created_at INTEGER, name TEXT, source TEXT,"
            ' topic TEXT, "partition" INTEGER, "offset" INTEGER, document TEXT NOT NULL)'
        )
        connection.execute("CREATE INDEX messages_name ON messages (name)")
        document = {
            "id": "1",
            "created_at": "1970-01-01T00:00:00.000Z",
            "kafka": {"topic": "t", "partition": 0, "offset": 7},
        }
        row = ("1", 0, "item", None, "t", 0, 7, json.dumps(document))
        connection.execute("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    connection.close()

    with opened(path) as first, opened(path) as second:
        second.ensure_indexes()

        assert first.save_many([{"id": 1}, {"id": "1", "created_at": "1970-01-01T00:00:00Z"}]) == [STORED, DUPLICATE]
        assert [found["id"] for found in second.get({"created_at": "1970-01-01"})] == ["1"]
        assert sorted(each.position or () for page in second.scan() for each in page) == [(), ("t", 0, 7)]


def test_collections_of_any_name_share_a_file(path: Path) -> None:
    with opened(path, collection='odd "name" {x}') as odd, opened(path) as plain:
        odd.ensure_indexes()
        plain.ensure_indexes()
        odd.save(message("1"))

        assert (len(odd.get({})), len(plain.get({}))) == (1, 0)


def test_different_threads_may_construct_save_and_close(path: Path) -> None:
    storage = opened(path)
    storage.ensure_indexes()

    with ThreadPoolExecutor(1) as writer, ThreadPoolExecutor(1) as closer:
        stored = writer.submit(storage.save, message("1")).result()
        found = storage.get({})
        closer.submit(storage.close).result()

    assert stored
    assert found == [message("1")]


def _save_the_same_messages(
    path: Path, ready: "multiprocessing.synchronize.Barrier", stored: "multiprocessing.Queue[int]"
) -> None:
    batches = [[message(f"{batch}-{each}") for each in range(20)] for batch in range(10)]
    ready.wait()
    with opened(path) as storage:
        verdicts = [verdict.outcome for batch in batches for verdict in storage.save_many(batch)]
    stored.put(verdicts.count(Outcome.STORED) if Outcome.REJECTED not in verdicts else -1)


def test_several_processes_store_each_message_once(path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready, stored = spawn.Barrier(3), spawn.Queue()
    writers = [spawn.Process(target=_save_the_same_messages, args=(path, ready, stored)) for _ in range(3)]

    for writer in writers:
        writer.start()
    counts = [stored.get(timeout=60) for _ in writers]
    for writer in writers:
        writer.join()

    assert min(counts) >= 0
    assert sum(counts) == 200


def test_writes_are_synced_and_do_not_block_readers(storage: DataStorage, path: Path) -> None:
    storage.save(message())

    with sqlite3.connect(path) as connection:
        mode = connection.execute("PRAGMA journal_mode").fetchone()
    connection.close()

    assert mode == ("wal",)
    text = "synced to the disk before a message counts as stored"
    assert CheckResult("durability", True, text) in storage.check()


def test_indexes_are_created(storage: DataStorage, path: Path) -> None:
    storage.ensure_indexes()

    with sqlite3.connect(path) as connection:
        indexes = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    connection.close()

    assert {"messages_created_at", "messages_name", "messages_source"} <= indexes


def test_long_lists_of_ids_are_found(storage: DataStorage) -> None:
    storage.save_many([message(str(each)) for each in range(3)])

    assert len(storage.get({"id": {"$in": [str(each) for each in range(2000)]}})) == 3


def test_different_elements_of_an_array_may_fulfil_different_conditions(storage: DataStorage) -> None:
    """As MongoDB's manual says; not every server with its protocol does so."""
    storage.save({"id": "1", "x": [{"y": 1}, {"y": 3}]})

    assert len(storage.get({"x.y": {"$gt": 1, "$lt": 3}})) == 1


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"x": {"$regex": "a"}}, r"\$regex"),
        ({"x": {"$gt": 1, "y": 2}}, "operator y"),
        ({"$where": "1"}, r"\$where"),
        ({"$or": []}, r"\$or"),
        ({"x": {"$in": 1}}, r"\$in"),
        ({"id": {"$in": None}}, r"\$in"),
        ({"x": object()}, "object"),
    ],
)
def test_an_unsupported_operator_is_named(storage: DataStorage, query: dict[str, object], named: str) -> None:
    with pytest.raises(UnsupportedQuery, match=named):
        storage.get(query)


def test_a_missing_folder_is_unavailable_and_named_by_the_check(tmp_path: Path) -> None:
    storage = opened(tmp_path / "missing" / "store.db")

    with pytest.raises(StorageUnavailable):
        storage.ping()
    [result] = storage.check()
    assert not result.ok
    assert "missing" in result.text


def test_the_check_does_not_create_the_file(path: Path) -> None:
    [result] = opened(path).check()

    assert result.ok
    assert not path.exists()


def test_a_file_that_is_not_a_database_is_corrupted(path: Path) -> None:
    path.write_bytes(b"something else, " * 100)
    storage = opened(path)

    with pytest.raises(StorageUnavailable) as caught:
        storage.save_many([message()])

    assert caught.value.cause == "corrupted"
    assert [result.ok for result in storage.check()] == [False]


def test_a_document_that_is_not_json_is_corrupted(storage: DataStorage, path: Path) -> None:
    storage.save(message("1"))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE messages SET document = '{'")
    connection.close()

    with pytest.raises(StorageUnavailable) as caught:
        storage.get({})

    assert caught.value.cause == "corrupted"


@pytest.fixture
def _file_size_limit(path: Path) -> Iterator[None]:
    """No file may grow beyond the size of an empty store."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit for file sizes")
@pytest.mark.usefixtures("_file_size_limit")
def test_on_a_full_disk_nothing_of_the_batch_is_stored_and_stored_documents_remain(storage: DataStorage) -> None:
    storage.save(message("1"))

    with pytest.raises(StorageUnavailable):
        storage.save_many([message("2"), message("3", x="x" * 1_000_000)])

    assert [found["id"] for found in storage.get({})] == ["1"]
    assert storage.save(message("4"))


def test_a_store_is_unavailable_if_it_is_locked_for_too_long(path: Path) -> None:
    settings = MongoSettings(uri=StoreUri(f"sqlite:///{path}"))
    with DataStorage(settings, store=SqliteStore(settings, busy_timeout=0.01)) as storage:
        storage.ping()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(StorageUnavailable) as caught:
            storage.save_many([message()])

        other.close()
        assert caught.value.cause == "locked"
        assert storage.save(message())


def test_a_second_connection_can_read_while_another_writes(path: Path) -> None:
    settings = MongoSettings(uri=StoreUri(f"sqlite:///{path}"))
    with DataStorage(settings) as first:
        first.save(message("1"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode = DELETE")
    other.execute("BEGIN IMMEDIATE")

    with DataStorage(settings, store=SqliteStore(settings, busy_timeout=0.01)) as second:
        found = second.get({})
        other.close()

        assert found == [message("1")]
        assert second.save(message("2"))


def test_a_ttl_that_has_no_effect_is_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        storage = opened(path, ttl_days=7)

    assert caplog.messages == ["SQLite store has no TTL"]
    assert storage.ttl_seconds is None
