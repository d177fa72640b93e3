"""The relay that answers as a replica set does, between the driver and the bench's server, which stores nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pymongo
import pytest
from pymongo import UpdateOne, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, NotPrimaryError, ServerSelectionTimeoutError
from pymongo.read_concern import ReadConcern

from bench.stores import AcknowledgingStore, acknowledging_store
from chaos.replica_set import NAME, Failure, ReplicaSet
from local.connectivity import host_port, mongodb_addresses

Documents = Collection[dict[str, Any]]
HALF_DONE = Failure(189, "PrimarySteppedDown", written=0.5, labels=("RetryableWriteError",))
UNCONFIRMED = Failure(64, "WriteConcernTimeout", "concern")
SHARD_UNAVAILABLE = Failure(133, "FailedToSatisfyReadPreference", "documents")


@pytest.fixture(scope="module")
def store() -> Iterator[AcknowledgingStore]:
    with acknowledging_store() as running:
        yield running


@contextmanager
def connected(store: AcknowledgingStore) -> Iterator[tuple[ReplicaSet, Documents]]:
    with ReplicaSet(mongodb_addresses(store.uri(""))[0]) as replica_set:
        uri = f"mongodb://{host_port(replica_set.address)}/?replicaSet={NAME}"
        with pymongo.MongoClient[dict[str, Any]](uri, retryWrites=False, retryReads=False, timeoutMS=2000) as client:
            yield replica_set, client["chaos"].get_collection("c", write_concern=WriteConcern("majority"))


def documents(count: int) -> list[dict[str, Any]]:
    return [{"_id": number} for number in range(count)]


def test_a_client_takes_it_for_the_primary_of_a_set(store: AcknowledgingStore) -> None:
    with connected(store) as (replica_set, collection):
        collection.insert_many(documents(10))

        assert collection.database.client.primary == replica_set.address


def test_a_primary_that_steps_down_writes_a_part_and_there_is_none_until_the_election(
    store: AcknowledgingStore,
) -> None:
    with connected(store) as (replica_set, collection):
        before = store.progress("c").documents
        done = replica_set.step_down(HALF_DONE)
        with pytest.raises(NotPrimaryError) as caught:
            collection.insert_many(documents(10))
        with pytest.raises(ServerSelectionTimeoutError):
            collection.insert_one({})
        written = store.progress("c").documents - before
        replica_set.elect()
        collection.insert_one({})

        assert done.is_set()
        assert caught.value.has_error_label("RetryableWriteError")
        assert written == 5


def test_the_first_reads_after_an_election_are_interrupted(store: AcknowledgingStore) -> None:
    with connected(store) as (replica_set, collection):
        replica_set.elect(failing_reads=1)
        with pytest.raises(NotPrimaryError):
            collection.find_one()

        assert collection.find_one() is None


def test_a_write_that_is_not_confirmed_is_written(store: AcknowledgingStore) -> None:
    with connected(store) as (replica_set, collection):
        before = store.progress("c").documents
        replica_set.fail_writes([UNCONFIRMED])
        with pytest.raises(BulkWriteError) as caught:
            collection.insert_many(documents(10))
        replica_set.heal()
        collection.insert_one({})

        assert [each["code"] for each in caught.value.details["writeConcernErrors"]] == [64]
        assert store.progress("c").documents - before == 11


def test_the_documents_of_an_unavailable_shard_fail_and_the_others_are_written(store: AcknowledgingStore) -> None:
    with connected(store) as (replica_set, collection):
        before = store.progress("c").documents
        replica_set.fail_writes([SHARD_UNAVAILABLE])
        with pytest.raises(BulkWriteError) as inserted:
            collection.insert_many(documents(30), ordered=False)
        updates = [UpdateOne({"_id": number}, {"$set": {"a": 1}}, upsert=True) for number in range(30)]
        with pytest.raises(BulkWriteError) as updated:
            collection.bulk_write(updates, ordered=False)

        failed = [each["index"] for each in inserted.value.details["writeErrors"]]
        assert {each["code"] for each in inserted.value.details["writeErrors"]} == {133}
        assert 0 < len(failed) < 30
        assert inserted.value.details["nInserted"] == 30 - len(failed)
        assert [each["index"] for each in updated.value.details["writeErrors"]] == failed
        assert store.progress("c").documents - before == 2 * (30 - len(failed))


def test_what_an_isolated_primary_writes_is_found_by_local_reads_and_then_rolled_back(
    store: AcknowledgingStore,
) -> None:
    with connected(store) as (replica_set, collection):
        before = store.progress("c").documents
        replica_set.isolate()
        collection.with_options(write_concern=WriteConcern(1)).insert_one({"_id": 1})
        with pytest.raises(BulkWriteError) as caught:
            collection.insert_many([{"_id": 1}, {"_id": 2}], ordered=False)
        found = list(collection.find({"_id": {"$in": [1, 2, 3]}}))
        committed = collection.with_options(read_concern=ReadConcern("majority")).find({"_id": {"$in": [1, 2, 3]}})

        assert [each["code"] for each in caught.value.details["writeErrors"]] == [11000]
        assert [each["code"] for each in caught.value.details["writeConcernErrors"]] == [64]
        assert found == [{"_id": 1}, {"_id": 2}]
        assert list(committed) == []
        replica_set.elect()
        assert list(collection.find({"_id": {"$in": [1, 2, 3]}})) == []
        assert store.progress("c").documents == before
