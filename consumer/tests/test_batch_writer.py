"""Every message is stored or dead-lettered, whatever fails."""

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any

import pytest

from src.data_processor import DataProcessor
from src.model.errors import StorageUnavailable
from src.model.record import Record, Rejection
from src.model.verdict import Verdict
from src.pipeline.retry import WriterStopped
from src.stores.document import Document, ValidDocument
from tests.fake_storage import FakeStore
from tests.fakes import FakeDeadLetters, deferred, failed, record, rejected
from tests.writer_world import UNTIL_STOPPED, FakeOwnership, WriterWorld, offsets, with_id


@pytest.fixture
def world() -> WriterWorld:
    return WriterWorld()


def test_a_broken_message_is_dead_lettered_and_its_neighbors_are_stored(world: WriterWorld) -> None:
    result = world.write_one([record(1), record(2, b"{"), record(3)])

    assert world.stored == ["0-1", "0-3"]
    assert world.dead_lettered == [(2, "not_json", 1)]
    assert offsets(result.records) == [1, 2, 3]
    assert offsets(result.stored) == [1, 3]


def test_a_batch_of_broken_messages_causes_no_call_to_the_store(world: WriterWorld) -> None:
    world.write_one([record(1, b"{"), record(2, b"[")])

    assert world.store.inserts == []
    assert [offset for offset, _, _ in world.dead_lettered] == [1, 2]


def test_a_document_that_the_store_rejects_is_dead_lettered_without_a_retry(world: WriterWorld) -> None:
    world.store.verdicts["0-2"] = iter([rejected("validation_failed")])

    world.write_one([record(1), record(2), record(3)])

    assert world.stored == ["0-1", "0-3"]
    assert world.dead_lettered == [(2, "validation_failed", 1)]
    assert world.dead_letters.rejections[0].stage == "store"
    assert world.retries == []


def test_a_message_that_is_already_stored_counts_as_a_duplicate(world: WriterWorld) -> None:
    world.write_one([record(1)])

    result = world.write_one([record(1), record(2)])

    assert (result.duplicates, len(result.stored)) == (1, 1)


def test_in_an_outage_of_the_store_the_writer_retries_and_dead_letters_nothing(world: WriterWorld) -> None:
    world.store.outages = 5

    world.write_one([record(1), record(2)])

    assert world.stored == ["0-1", "0-2"]
    assert world.dead_lettered == []
    assert world.retries == ["unreachable"] * 5
    assert world.writer.blocked_by is None


def test_an_outage_is_logged_and_so_is_its_end(world: WriterWorld, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    world.store.outages = 1

    world.write_one([record(1)])

    assert caplog.messages == ["dependency unavailable, retrying", "dependency recovered"]


def test_only_deferred_documents_are_written_again(world: WriterWorld) -> None:
    world.store.verdicts["0-2"] = iter([deferred(), deferred()])

    result = world.write_one([record(1), record(2), record(3)])

    assert world.store.inserts == [["0-1", "0-2", "0-3"], ["0-2"], ["0-2"]]
    assert (len(result.stored), result.duplicates, world.dead_lettered) == (3, 0, [])
    assert world.retries == ["throttled", "throttled"]


def test_a_batch_that_takes_too_long_is_stored_in_smaller_parts(world: WriterWorld) -> None:
    world.store.in_time = 3

    result = world.write_one([record(offset) for offset in range(10)])

    assert list(map(len, world.store.inserts)) == [10, 5, 2, 3, 4, 2, 3]
    assert (world.stored, len(result.stored)) == ([f"0-{offset}" for offset in range(10)], 10)
    assert world.retries == ["timeout"] * 3


def test_the_parts_grow_again_when_the_store_is_faster(world: WriterWorld) -> None:
    world.store.in_time = 3
    world.write_one([record(offset) for offset in range(10)])

    world.store.in_time = 10
    for first in range(10, 60, 10):
        world.write_one([record(offset) for offset in range(first, first + 10)])

    assert len(world.store.inserts[-1]) == 10


def test_a_document_that_fails_for_an_unknown_reason_is_retried_alone_and_then_dead_lettered(
    world: WriterWorld,
) -> None:
    world.store.verdicts["0-2"] = repeat(failed("code_1"))

    world.write_one([record(1), record(2), record(3)])

    assert world.store.inserts == [["0-1", "0-2", "0-3"], ["0-2"], ["0-2"]]
    assert world.dead_lettered == [(2, "code_1", 3)]
    assert world.stored == ["0-1", "0-3"]


def test_a_document_that_succeeds_alone_is_stored(world: WriterWorld) -> None:
    world.store.verdicts["0-2"] = iter([failed()])

    result = world.write_one([record(1), record(2)])

    assert world.stored == ["0-1", "0-2"]
    assert (world.dead_lettered, len(result.stored)) == ([], 2)


class SkippingProcessor(DataProcessor):
    """Skips messages with the field `skip`."""

    def check(self, message: Mapping[str, Any]) -> dict[str, Any] | None:
        return None if "skip" in message else super().check(message)


def test_a_skipped_message_is_settled_and_neither_stored_nor_dead_lettered() -> None:
    world = WriterWorld(processor=SkippingProcessor())
    values = [b'{"id": "a"}', b'{"id": "b", "skip": 1}', b"broken", b'{"id": "a"}', b'{"skip": 1}']
    records = [Record("t", 0, offset, None, value) for offset, value in enumerate(values)]

    result = world.write_one(records)

    assert offsets(result.records) == [0, 1, 2, 3, 4]
    assert offsets(result.stored) == [0]
    assert (result.duplicates, result.skipped, len(result.rejections)) == (1, 2, 1)
    assert world.stored == ["a"]


class FailingProcessor(DataProcessor):
    """Fails with an unexpected error for a message with `failures`, as many times."""

    def __init__(self) -> None:
        super().__init__()
        self._failures: dict[str, int] = {}

    def process(self, record: Record) -> dict[str, Any]:
        document = super().process(record) or {}
        remaining = self._failures.setdefault(document["id"], document.get("failures", 0))
        if remaining:
            self._failures[document["id"]] -= 1
            raise ZeroDivisionError("unexpected")
        return document


def test_a_message_whose_processing_fails_unexpectedly_is_retried_and_then_dead_lettered() -> None:
    world = WriterWorld(processor=FailingProcessor())

    world.write_one([with_id("a", 1, failures=1), with_id("b", 2, failures=9), record(3)])

    assert sorted(world.stored) == ["0-3", "a"]
    assert world.dead_lettered == [(2, "processing_failed", 3)]
    assert isinstance(world.dead_letters.rejections[0].error, ZeroDivisionError)


class FailsForABatch(DataProcessor):
    def process_ordinary(self, records: Sequence[Record]) -> list[ValidDocument | None]:
        raise ZeroDivisionError("unexpected")


def test_messages_whose_batch_fails_unexpectedly_are_processed_one_by_one() -> None:
    world = WriterWorld(processor=FailsForABatch())

    world.write_one([record(1), record(2, b"{"), record(3)])

    assert world.stored == ["0-1", "0-3"]
    assert world.dead_lettered == [(2, "not_json", 1)]


def test_only_dead_letters_that_kafka_has_not_confirmed_are_sent_again(world: WriterWorld) -> None:
    world.dead_letters.outages = 2

    world.write_one([record(1, b"{"), record(2, b"{"), record(3, b"{")])

    assert world.dead_letters.offsets == [1, 2, 3]


def test_a_stop_in_an_outage_leaves_the_batch_unsettled(world: WriterWorld) -> None:
    world.store.outages = UNTIL_STOPPED
    world.stop.set()

    with pytest.raises(WriterStopped, match="connection refused"):
        world.write_one([record(1)])

    assert (world.stored, world.dead_lettered) == ([], [])


def test_a_stop_between_two_attempts_of_a_message_leaves_the_batch_unsettled(world: WriterWorld) -> None:
    world.store.verdicts["0-1"] = repeat(failed())
    world.stop.set()

    with pytest.raises(WriterStopped):
        world.write_one([record(1)])

    assert world.dead_lettered == []


def test_a_ping_finds_that_an_idle_store_is_unavailable_and_that_it_has_recovered(world: WriterWorld) -> None:
    world.store.outages = 1

    world.writer.ping()
    blocked_by = world.writer.blocked_by
    world.writer.ping()

    assert blocked_by is not None
    assert blocked_by.cause == "unreachable"
    assert world.writer.blocked_by is None


# -- several messages with one id, and a batch that is partly stored


def test_of_two_equal_messages_in_a_batch_one_is_stored_and_a_different_one_under_their_id_is_dead_lettered(
    world: WriterWorld,
) -> None:
    result = world.write_one([with_id("a", 1), with_id("a", 2), with_id("a", 3, name="other"), with_id("b", 4)])

    assert world.store.inserts == [["a", "b"]]
    assert world.store.documents["a"]["kafka"]["offset"] == 1
    assert (offsets(result.stored), result.duplicates) == ([1, 4], 1)
    assert world.dead_lettered == [(3, "id_conflict", 1)]


class FailsDuringInsert(FakeStore):
    """Stores the first `written` documents of the first call, with or without a response, and then has an outage."""

    def __init__(self, written: int, *, responds: bool = True) -> None:
        super().__init__()
        self._written = written
        self._responds = responds

    def insert_documents(self, documents: Sequence[Document]) -> list[Verdict]:
        if self.inserts:
            return super().insert_documents(documents)
        self.outages = 3
        self.inserts.append([document["id"] for document in documents])
        verdicts = [self._insert(document) for document in documents[: self._written]]
        if not self._responds:
            raise StorageUnavailable("unreachable", "connection reset")
        return verdicts + [deferred("not_primary")] * (len(documents) - self._written)


TEN = [with_id(str(number), number) for number in range(10)]


def test_after_a_partial_insert_only_the_remaining_documents_are_written_again() -> None:
    world = WriterWorld(store=FailsDuringInsert(written=5))

    result = world.write_one(TEN)

    assert world.store.inserts == [[str(number) for number in range(10)], *[["5", "6", "7", "8", "9"]] * 4]
    assert len(world.stored) == 10
    assert (len(result.stored), result.duplicates, world.dead_lettered) == (10, 0, [])
    assert world.retries == ["not_primary", *["unreachable"] * 3]


def test_after_a_partial_insert_without_a_response_nothing_is_stored_twice() -> None:
    world = WriterWorld(store=FailsDuringInsert(written=5, responds=False))

    result = world.write_one(TEN)

    assert len(world.stored) == 10
    assert (len(result.stored), result.duplicates, world.dead_lettered) == (5, 5, [])


# -- partitions that are revoked meanwhile


class RevokesDuringOutage(FakeStore):
    """Fails the first call, during which partition 1 is revoked."""

    def __init__(self, ownership: FakeOwnership) -> None:
        super().__init__()
        self._ownership = ownership
        self.outages = 1

    def ping(self) -> None:
        self._ownership.revoked.add(1)
        super().ping()


def test_a_message_whose_partition_is_revoked_in_an_outage_of_the_store_is_not_dead_lettered_here() -> None:
    ownership = FakeOwnership()
    world = WriterWorld(store=RevokesDuringOutage(ownership), ownership=ownership)

    result = world.write_one([with_id("a", 0), record(0, b"{", partition=1), record(1, b"{")])

    assert positions(world.dead_letters.rejections) == [(0, 1)]
    assert positions(result.rejections) == [(0, 1)]


class RevokesDuringDeadLetterOutage(FakeDeadLetters):
    """Confirms only the first dead letter of the first call, during which partition 1 is revoked."""

    def __init__(self, ownership: FakeOwnership) -> None:
        super().__init__()
        self._ownership = ownership
        self.outages = 1

    def send(self, rejections: Sequence[Rejection]) -> None:
        self._ownership.revoked.add(1)
        super().send(rejections)


def test_a_message_whose_partition_is_revoked_in_an_outage_of_the_dead_letter_topic_is_not_sent_again() -> None:
    ownership = FakeOwnership()
    world = WriterWorld(dead_letters=RevokesDuringDeadLetterOutage(ownership), ownership=ownership)

    result = world.write_one([record(0, b"{"), record(0, b"{", partition=1), record(1, b"{")])

    assert positions(world.dead_letters.rejections) == [(0, 0), (0, 1)]
    assert positions(result.rejections) == [(0, 0), (0, 1)]


class RevokesDuringInsert(FakeStore):
    """Partition 1 is revoked during the first call."""

    def __init__(self, ownership: FakeOwnership) -> None:
        super().__init__()
        self._ownership = ownership

    def insert_documents(self, documents: Sequence[Document]) -> list[Verdict]:
        self._ownership.revoked.add(1)
        return super().insert_documents(documents)


def test_a_message_whose_partition_is_revoked_between_two_attempts_is_neither_retried_nor_settled_here() -> None:
    ownership = FakeOwnership()
    world = WriterWorld(store=RevokesDuringInsert(ownership), ownership=ownership)
    world.store.verdicts["b"] = repeat(failed())

    result = world.write_one([with_id("a", 0), with_id("b", 0, partition=1)])

    assert world.store.inserts == [["a", "b"]]
    assert [(each.partition, each.offset) for each in result.records] == [(0, 0)]
    assert world.dead_lettered == []


# -- commits that are rejected


class Rebalance(FakeOwnership):
    """The commits of partition 1 are rejected for as many looks at them; what comes `after` ends the rebalance."""

    def __init__(self, looks: int, after: Callable[["Rebalance"], object] = lambda ownership: None) -> None:
        super().__init__()
        self.rejected = {1}
        self._looks = looks
        self._after = after

    def commits_rejected(self, record: Record) -> bool:
        self._looks -= 1
        if self._looks == 0:
            self.rejected.clear()
            self._after(self)
        return super().commits_rejected(record)


def test_dead_letters_wait_until_commits_are_accepted_again() -> None:
    written_before: list[int] = []
    dead_letters = FakeDeadLetters()
    ownership = Rebalance(3, after=lambda _: written_before.append(len(dead_letters.rejections)))
    world = WriterWorld(dead_letters=dead_letters, ownership=ownership)

    result = world.write_one([with_id("a", 0, partition=1), record(1, b"{", partition=1)])

    assert written_before == [0]
    assert world.stored == ["a"]
    assert positions(result.rejections) == positions(world.dead_letters.rejections) == [(1, 1)]


def test_dead_letters_of_a_partition_that_is_revoked_meanwhile_are_left_to_its_new_owner() -> None:
    world = WriterWorld(ownership=Rebalance(3, after=lambda ownership: ownership.revoked.add(1)))

    result = world.write_one([record(0, b"{"), record(1, b"{", partition=1)])

    assert positions(result.rejections) == positions(world.dead_letters.rejections) == [(0, 0)]


def positions(rejections: Sequence[Rejection]) -> list[tuple[int, int]]:
    return [(each.record.partition, each.record.offset) for each in rejections]
