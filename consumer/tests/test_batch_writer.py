"""Every message gets a home."""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from threading import Event, Thread, Timer
from typing import Any

import pytest

from src.data_processor import DataProcessor
from src.model.errors import DeadLetterError, DeadLetterStorm, StorageUnavailable
from src.model.record import Record, Rejection
from src.model.verdict import Verdict
from src.pipeline.batch_writer import PROBE_SIZE, BatchWriter, Result, WriterOptions
from src.pipeline.retry import WriterStopped
from src.pipeline.storage_writer import Processor, Storage
from src.pipeline.writer_thread import MAX_IN_FLIGHT, WriterThread
from src.settings import MongoSettings
from src.storage import DataStorage, Store
from tests.fake_storage import FakeStore
from tests.fakes import DEADLINE, FakeDeadLetters, FakeProcessor, FakeStorage, deferred, failed, record, refused


class World:
    """A writer with fakes. A storm is when more than half of the last `storm_window` messages are dead-lettered."""

    def __init__(self, probe_interval: float = 0.001, storm_window: int = 4) -> None:
        self.storage = FakeStorage()
        self.dead_letters = FakeDeadLetters()
        self.stop = Event()
        self.retries: list[str] = []
        self.lost: set[int] = set()
        self.options = WriterOptions(
            max_retries=2,
            storm_percent=50,
            storm_window=storm_window,
            probe_interval=probe_interval,
            max_backoff=0.001,
        )
        self.writer = self._writer(FakeProcessor(), self.storage)

    def writer_on(self, store: Store) -> BatchWriter:
        """One with the real processing, and the real door in front of a store."""
        return self._writer(DataProcessor(), DataStorage(MongoSettings(), store=store))

    def _writer(self, processor: Processor, storage: Storage) -> BatchWriter:
        return BatchWriter(
            processor,
            storage,
            self.dead_letters,
            self.options,
            stop=self.stop,
            is_assigned=lambda record: record.partition not in self.lost,
            on_retry=self.retries.append,
            clock=lambda: 1000.0,
        )

    @property
    def stored(self) -> list[str]:
        return list(self.storage.documents)

    @property
    def parked(self) -> list[tuple[int, str, int]]:
        return [(letter.record.offset, letter.reason, letter.attempts) for letter in self.dead_letters.parked]


@pytest.fixture
def world() -> World:
    return World()


def test_a_broken_message_is_parked_and_its_neighbours_are_stored(world: World) -> None:
    result = world.writer.write([record(1), record(2, b"{"), record(3)])

    assert world.stored == ["0-1", "0-3"]
    assert world.parked == [(2, "not_json", 1)]
    assert [item.offset for item in result.records] == [1, 2, 3]
    assert [item.offset for item in result.stored] == [1, 3]


def test_a_batch_of_broken_messages_does_not_trouble_the_store(world: World) -> None:
    world.writer.write([record(1, b"{"), record(2, b"[")])

    assert world.storage.calls == []
    assert [offset for offset, _, _ in world.parked] == [1, 2]


def test_a_document_that_the_store_refuses_is_parked_at_once(world: World) -> None:
    world.storage.verdicts["0-2"] = deque([refused("validation_failed")])

    world.writer.write([record(1), record(2), record(3)])

    assert world.stored == ["0-1", "0-3"]
    assert world.parked == [(2, "validation_failed", 1)]
    assert world.dead_letters.parked[0].stage == "store"
    assert world.retries == []


def test_what_is_there_already_counts_as_a_duplicate(world: World) -> None:
    world.writer.write([record(1)])

    result = world.writer.write([record(1), record(2)])

    assert (result.duplicates, len(result.stored)) == (1, 1)


def test_an_outage_of_the_store_is_waited_out_and_nothing_is_parked(world: World) -> None:
    world.storage.outages = 5

    world.writer.write([record(1), record(2)])

    assert world.stored == ["0-1", "0-2"]
    assert world.parked == []
    assert world.retries == ["unreachable"] * 5
    assert world.writer.blocked_by is None


def test_only_what_the_store_put_off_is_written_again(world: World) -> None:
    world.storage.verdicts["0-2"] = deque([deferred(), deferred()])

    result = world.writer.write([record(1), record(2), record(3)])

    assert world.storage.calls == [["0-1", "0-2", "0-3"], ["0-2"], ["0-2"]]
    assert (len(result.stored), result.duplicates, world.parked) == (3, 0, [])
    assert world.retries == ["throttled", "throttled"]


def test_a_document_that_fails_for_an_unknown_reason_is_tried_alone_and_then_parked(world: World) -> None:
    world.storage.verdicts["0-2"] = deque([failed("code_1")] * 3)

    world.writer.write([record(1), record(2), record(3)])

    assert world.storage.calls == [["0-1", "0-2", "0-3"], ["0-2"], ["0-2"]]
    assert world.parked == [(2, "code_1", 3)]
    assert world.stored == ["0-1", "0-3"]


def test_a_document_that_works_when_tried_alone_is_stored(world: World) -> None:
    world.storage.verdicts["0-2"] = deque([failed()])

    result = world.writer.write([record(1), record(2)])

    assert world.stored == ["0-1", "0-2"]
    assert (world.parked, len(result.stored)) == ([], 2)


def test_a_processing_step_that_fails_for_an_unknown_reason_is_tried_again_and_then_parked(world: World) -> None:
    world.writer.write([record(1, b'{"id": "a", "fail": 1}'), record(2, b'{"id": "b", "fail": 9}'), record(3)])

    assert sorted(world.stored) == ["0-3", "a"]
    assert world.parked == [(2, "processing_failed", 3)]
    assert isinstance(world.dead_letters.parked[0].error, ZeroDivisionError)


def test_only_the_letters_that_kafka_has_not_confirmed_are_sent_again(world: World) -> None:
    world.dead_letters.outages = 2

    world.writer.write([record(1, b"{"), record(2, b"{"), record(3, b"{")])

    assert world.dead_letters.offsets == [1, 2, 3]


def test_a_stop_in_an_outage_gives_the_batch_up_unsettled(world: World) -> None:
    world.storage.outages = 10**9
    world.stop.set()

    with pytest.raises(WriterStopped, match="nobody answers"):
        world.writer.write([record(1)])

    assert (world.stored, world.parked) == ([], [])


def test_a_stop_between_two_tries_of_a_message_gives_the_batch_up_unsettled(world: World) -> None:
    world.storage.verdicts["0-1"] = deque([failed()] * 9)
    world.stop.set()

    with pytest.raises(WriterStopped):
        world.writer.write([record(1)])

    assert world.parked == []


def test_an_idle_store_that_goes_away_is_noticed_and_so_is_its_return(world: World) -> None:
    world.storage.outages = 1

    world.writer.ping()
    blocked_by = world.writer.blocked_by
    world.writer.ping()

    assert blocked_by is not None
    assert blocked_by.cause == "unreachable"
    assert world.writer.blocked_by is None


def test_the_thread_gives_results_in_the_order_of_the_batches(world: World) -> None:
    with WriterThread(world.writer) as thread:
        thread.submit([record(1)])
        thread.submit([record(2)])

        results = thread.drain(DEADLINE)

    assert [item.offset for result in results for item in result.records] == [1, 2]
    assert world.storage.indexed


def test_the_thread_is_full_with_its_slots_taken(world: World) -> None:
    world.storage.gate = Event()
    with WriterThread(world.writer) as thread:
        for offset in range(MAX_IN_FLIGHT):
            assert not thread.full
            thread.submit([record(offset)])

        assert thread.full
        assert not thread.idle
        assert thread.results(0.0) == []
        world.storage.gate.set()
        assert len(thread.drain(DEADLINE)) == MAX_IN_FLIGHT
        assert thread.idle


class Faulty(FakeStorage):
    """A store with a fault of ours in it, met by the second batch."""

    def save_many(self, documents: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        if self.calls:
            raise ZeroDivisionError("a fault of ours")
        return super().save_many(documents)


def test_what_ended_a_batch_is_raised_after_the_results_before_it(world: World) -> None:
    writer = BatchWriter(FakeProcessor(), Faulty(), world.dead_letters, WriterOptions(max_retries=0), stop=world.stop)
    with WriterThread(writer) as thread:
        thread.submit([record(1)])
        thread.submit([record(2)])

        results = thread.results(DEADLINE)

        assert [result.records[0].offset for result in results] == [1]
        with pytest.raises(ZeroDivisionError):
            thread.drain(DEADLINE)


def test_results_do_not_wait_for_an_outage_to_end(world: World) -> None:
    with WriterThread(world.writer) as thread:
        thread.results(DEADLINE)
        world.storage.outages = 10**9
        thread.submit([record(1)])

        ended = Thread(target=thread.drain, args=(DEADLINE,), daemon=True)
        ended.start()
        ended.join(DEADLINE / 2)

        assert not ended.is_alive()
        world.stop.set()
        assert thread.results(DEADLINE) == []


# -- messages with one id, and a store that knows half


def test_the_same_message_twice_in_a_batch_is_stored_once_and_another_under_its_id_is_parked() -> None:
    world, store = World(), FakeStore()
    writer = world.writer_on(store)

    result = writer.write([of_id("a", 1), of_id("a", 2), of_id("a", 3, name="another"), of_id("b", 4)])

    assert store.inserts == [["a", "b"]]
    assert store.documents["a"]["kafka"]["offset"] == 1
    assert ([item.offset for item in result.stored], result.duplicates) == ([1, 4], 1)
    assert world.parked == [(3, "id_conflict", 1)]


def test_of_a_bulk_that_is_half_written_when_the_store_dies_the_other_half_is_written_again() -> None:
    world, store = World(), DiesInMidBulk(written=5, away_for=3)

    result = world.writer_on(store).write([of_id(str(number), number) for number in range(10)])

    assert store.inserts == [[str(number) for number in range(10)], ["5", "6", "7", "8", "9"]]
    assert len(store.documents) == 10
    assert (len(result.stored), result.duplicates, world.parked) == (10, 0, [])
    assert world.retries == ["not_primary", *["unreachable"] * 3]


def test_of_a_bulk_that_is_half_written_without_an_answer_nothing_is_stored_twice() -> None:
    world, store = World(), DiesInMidBulk(written=5, away_for=3, answers=False)

    result = world.writer_on(store).write([of_id(str(number), number) for number in range(10)])

    assert len(store.documents) == 10
    assert (len(result.stored), result.duplicates, world.parked) == (5, 5, [])


# -- a dead-letter storm


def test_a_storm_stops_the_parking_at_the_share_that_is_allowed(world: World) -> None:
    result = world.writer.write([record(0), record(1, b"{"), record(2, b"{"), record(3), *broken(range(4, 20))])

    assert world.dead_letters.offsets == [1, 2]
    assert [item.offset for item in result.records] == [0, 1, 2, 3]
    assert [item.offset for item in result.unsettled] == list(range(4, 20))


def test_what_is_stored_behind_a_storms_beginning_comes_again_and_is_a_duplicate() -> None:
    world, store = World(), FakeStore()
    writer = world.writer_on(store)
    poison = [record(offset, b"{") for offset in (1, 2, 3, 4)]

    results = written(writer, [*poison, of_id("good", 5)])

    assert [item.offset for result in results for item in result.records] == [1, 2, 3, 4, 5]
    assert sum(result.duplicates for result in results) == 1
    assert list(store.documents) == ["good"]
    assert world.dead_letters.offsets == [1, 2, 3, 4]


def test_a_storm_is_an_obstacle_that_says_what_would_have_happened_and_what_overrides_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.writer.write(broken(range(20)))

    blocked_by = world.writer.blocked_by
    assert isinstance(blocked_by, DeadLetterStorm)
    assert blocked_by.cause == "dead_letter_storm"
    assert str(blocked_by) == (
        "4 of the last 4 messages would be dead-lettered, currently mostly for not_json (50 % is allowed);"
        " set consumer.dead_letter_storm_percent to 100 to let them through"
    )
    assert caplog.messages == ["dead-letter storm"]


def test_in_a_storm_a_few_messages_are_parked_at_a_time(world: World, caplog: pytest.LogCaptureFixture) -> None:
    rest = world.writer.write(broken(range(40))).unsettled

    result = world.writer.write(rest)

    assert [item.offset for item in result.records] == list(range(3, 3 + PROBE_SIZE))
    assert world.dead_letters.offsets == list(range(3 + PROBE_SIZE))
    assert isinstance(world.writer.blocked_by, DeadLetterStorm)
    assert world.retries == ["dead_letter_storm"]
    assert caplog.messages == ["dead-letter storm"]


def test_a_storm_is_over_when_the_share_falls(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    results = written(world.writer, [*broken(range(5)), *(record(offset) for offset in range(5, 60))])

    assert [len(result.records) for result in results] == [3, PROBE_SIZE, 60 - 3 - PROBE_SIZE]
    assert world.writer.blocked_by is None
    assert caplog.messages == ["dead-letter storm", "dead-letter storm ended"]
    assert world.dead_letters.offsets == list(range(5))


def test_a_probe_within_the_limit_is_followed_by_the_next_at_once() -> None:
    world = World(storm_window=100)
    writer = world.writer_on(FakeStore())
    messages = [*broken(range(100)), *(of_id(str(offset), offset) for offset in range(100, 300))]

    results = written(writer, messages)

    assert [len(result.records) for result in results] == [99, 10, *[PROBE_SIZE] * 5, 141]
    assert world.retries == ["dead_letter_storm"]


def test_what_is_mended_during_a_storm_is_stored(world: World) -> None:
    world.storage.verdicts = {f"0-{offset}": deque([refused("validation_failed")]) for offset in range(20)}

    results = written(world.writer, [record(offset) for offset in range(20)])

    assert world.dead_letters.offsets == [0, 1, 2]
    assert world.stored == [f"0-{offset}" for offset in range(3, 20)]
    assert [len(result.records) for result in results] == [3, PROBE_SIZE, 7]


def test_a_storm_is_still_known_after_an_outage_in_its_midst(world: World) -> None:
    rest = world.writer.write(broken(range(40))).unsettled
    world.dead_letters.outages = 2

    world.writer.write(rest)
    world.writer.ping()

    assert isinstance(world.writer.blocked_by, DeadLetterStorm)
    assert world.dead_letters.offsets == list(range(3 + PROBE_SIZE))


def test_a_stop_in_a_storm_leaves_what_is_held_to_the_next_consumer(world: World) -> None:
    rest = world.writer.write(broken(range(40))).unsettled
    world.stop.set()

    with pytest.raises(WriterStopped, match="storm"):
        world.writer.write(rest)

    assert world.dead_letters.offsets == [0, 1, 2]


def test_the_thread_gives_what_is_settled_of_a_batch_while_the_rest_of_it_is_held(world: World) -> None:
    with WriterThread(world.writer) as thread:
        thread.submit(broken(range(25)))
        thread.submit(broken(range(25, 50)))
        results: list[Result] = []

        while not thread.idle:
            results += thread.results(DEADLINE)

        assert [item.offset for result in results for item in result.records] == list(range(50))
        assert [len(result.records) for result in results] == [3, 10, 10, 2, 10, 10, 5]
        assert world.dead_letters.offsets == list(range(50))


def test_a_probe_in_hand_is_waited_for_when_all_is_to_be_settled() -> None:
    world = World()
    world.dead_letters = letters = HeldLetters(held_from=3)
    with WriterThread(world.writer_on(FakeStore())) as thread:
        thread.submit(broken(range(13)))
        assert letters.reached.wait(DEADLINE)
        Timer(0.1, letters.gate.set).start()

        results = thread.drain(DEADLINE)

    assert [item.offset for result in results for item in result.records] == list(range(13))


def test_the_pause_between_two_probes_is_not_waited_for() -> None:
    world = World(probe_interval=DEADLINE)
    with WriterThread(world.writer) as thread:
        thread.submit(broken(range(13)))
        assert any(world.retries or world.stop.wait(0.01) for _ in range(1000))

        ended = Thread(target=thread.drain, args=(DEADLINE,), daemon=True)
        ended.start()
        ended.join(DEADLINE / 2)

        assert not ended.is_alive()


# -- records that went to another member


def test_what_went_to_another_member_while_the_store_was_away_is_that_members_to_park(world: World) -> None:
    writer = world.writer_on(AwayMeanwhile(world.lost))

    result = writer.write([of_id("a", 0), record(0, b"{", partition=1), record(1, b"{")])

    parked = [(letter.record.partition, letter.record.offset) for letter in world.dead_letters.parked]
    assert parked == [(0, 1)]
    assert [(each.record.partition, each.record.offset) for each in result.rejections] == parked


def test_what_went_to_another_member_while_the_dead_letter_topic_was_away_is_not_parked_here(world: World) -> None:
    world.dead_letters = GoneMeanwhile(world.lost)
    writer = world.writer_on(FakeStore())

    result = writer.write([record(0, b"{"), record(0, b"{", partition=1), record(1, b"{")])

    parked = [(letter.record.partition, letter.record.offset) for letter in world.dead_letters.parked]
    assert parked == [(0, 0), (0, 1)]
    assert [(each.record.partition, each.record.offset) for each in result.rejections] == parked


def test_what_went_to_another_member_between_two_tries_is_neither_tried_again_nor_settled_here(world: World) -> None:
    store = FailsMeanwhile(world.lost)

    result = world.writer_on(store).write([of_id("a", 0), record(0, b'{"id": "b"}', partition=1)])

    assert store.inserts == [["a", "b"]]
    assert [(item.partition, item.offset) for item in result.records] == [(0, 0)]
    assert (result.unsettled, world.parked) == ([], [])


def test_what_went_to_another_member_during_a_storm_is_not_tried_any_more(world: World) -> None:
    rest = world.writer.write(broken(range(40))).unsettled
    world.lost = {0}

    result = world.writer.write(rest)

    assert (result.records, result.unsettled) == ([], [])
    assert world.dead_letters.offsets == [0, 1, 2]
    assert world.writer.blocked_by is None


class DiesInMidBulk(FakeStore):
    """Writes the first few of its first bulk, says so or not, and is away then for some calls."""

    def __init__(self, written: int, away_for: int, *, answers: bool = True) -> None:
        super().__init__()
        self._written = written
        self._away_for = away_for
        self._answers = answers

    def insert(self, documents: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        if not self.inserts:
            self.inserts.append([document["id"] for document in documents])
            shutting_down = [deferred("not_primary")] * (len(documents) - self._written)
            verdicts = [self._insert(document) for document in documents[: self._written]] + shutting_down
            if not self._answers:
                raise StorageUnavailable("unreachable", "the connection was cut")
            return verdicts
        if self._away_for:
            self._away_for -= 1
            raise StorageUnavailable("unreachable", "nobody there")
        return super().insert(documents)


class AwayMeanwhile(FakeStore):
    """Does not answer at first, and meanwhile partition 1 goes to another member."""

    def __init__(self, lost: set[int]) -> None:
        super().__init__()
        self._lost = lost

    def insert(self, documents: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        if not self._lost:
            self._lost.add(1)
            raise StorageUnavailable("unreachable", "nobody there")
        return super().insert(documents)


class FailsMeanwhile(FakeStore):
    """Fails for the document `b`, for a reason nobody foresaw, and meanwhile partition 1 goes to another member."""

    def __init__(self, lost: set[int]) -> None:
        super().__init__()
        self._lost = lost
        self.answers["b"] = failed()

    def insert(self, documents: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        self._lost.add(1)
        return super().insert(documents)


class HeldLetters(FakeDeadLetters):
    """Takes the letters from offset `held_from` on when the gate opens."""

    def __init__(self, held_from: int) -> None:
        super().__init__()
        self._held_from = held_from
        self.reached, self.gate = Event(), Event()

    def send(self, rejections: Sequence[Rejection]) -> None:
        if rejections[0].record.offset >= self._held_from:
            self.reached.set()
            assert self.gate.wait(DEADLINE)
        super().send(rejections)


class GoneMeanwhile(FakeDeadLetters):
    """Confirms the first letter alone, and meanwhile partition 1 goes to another member."""

    def __init__(self, lost: set[int]) -> None:
        super().__init__()
        self._lost = lost

    def send(self, rejections: Sequence[Rejection]) -> None:
        if not self._lost:
            self._lost.add(1)
            self.parked += rejections[:1]
            raise DeadLetterError("unreachable", "nobody answers", range(1, len(rejections)))
        super().send(rejections)


def of_id(identifier: str, offset: int, **fields: str) -> Record:
    return record(offset, json.dumps({"id": identifier, **fields}).encode())


def broken(offsets: range) -> list[Record]:
    return [record(offset, b"{") for offset in offsets]


def written(writer: BatchWriter, records: Sequence[Record]) -> list[Result]:
    """Everything, as the thread does it."""
    results = []
    while records:
        results.append(writer.write(records))
        records = results[-1].unsettled
    return results
