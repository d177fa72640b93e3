"""Every message gets a home."""

from collections import deque
from collections.abc import Mapping, Sequence
from threading import Event, Thread
from typing import Any

import pytest

from src.verdict import Verdict
from src.writer import SLOTS, Abandoned, Writer, WriterThread
from tests.fakes import DEADLINE, FakeDeadLetters, FakeProcessor, FakeStorage, deferred, failed, record, refused


class World:
    def __init__(self) -> None:
        self.storage = FakeStorage()
        self.dead_letters = FakeDeadLetters()
        self.stop = Event()
        self.retries: list[str] = []
        self.writer = Writer(
            FakeProcessor(),
            self.storage,
            self.dead_letters,
            max_retries=2,
            stop=self.stop,
            on_retry=self.retries.append,
            clock=lambda: 1000.0,
            longest_wait=0.001,
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
    assert world.writer.obstacle is None


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

    with pytest.raises(Abandoned, match="nobody answers"):
        world.writer.write([record(1)])

    assert (world.stored, world.parked) == ([], [])


def test_a_stop_between_two_tries_of_a_message_gives_the_batch_up_unsettled(world: World) -> None:
    world.storage.verdicts["0-1"] = deque([failed()] * 9)
    world.stop.set()

    with pytest.raises(Abandoned):
        world.writer.write([record(1)])

    assert world.parked == []


def test_an_idle_store_that_goes_away_is_noticed_and_so_is_its_return(world: World) -> None:
    world.storage.outages = 1

    world.writer.look()
    obstacle = world.writer.obstacle
    world.writer.look()

    assert obstacle is not None
    assert obstacle.cause == "unreachable"
    assert world.writer.obstacle is None


def test_the_thread_gives_results_in_the_order_of_the_batches(world: World) -> None:
    with WriterThread(world.writer) as thread:
        thread.submit([record(1)])
        thread.submit([record(2)])

        results = thread.settle_all(DEADLINE)

    assert [item.offset for result in results for item in result.records] == [1, 2]
    assert world.storage.indexed


def test_the_thread_is_full_with_its_slots_taken(world: World) -> None:
    world.storage.gate = Event()
    with WriterThread(world.writer) as thread:
        for offset in range(SLOTS):
            assert not thread.full
            thread.submit([record(offset)])

        assert thread.full
        assert not thread.idle
        assert thread.results(0.0) == []
        world.storage.gate.set()
        assert len(thread.settle_all(DEADLINE)) == SLOTS
        assert thread.idle


class Faulty(FakeStorage):
    """A store with a fault of ours in it, met by the second batch."""

    def save_many(self, documents: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        if self.calls:
            raise ZeroDivisionError("a fault of ours")
        return super().save_many(documents)


def test_what_ended_a_batch_is_raised_after_the_results_before_it(world: World) -> None:
    writer = Writer(FakeProcessor(), Faulty(), world.dead_letters, max_retries=0, stop=world.stop)
    with WriterThread(writer) as thread:
        thread.submit([record(1)])
        thread.submit([record(2)])

        results = thread.results(DEADLINE)

        assert [result.records[0].offset for result in results] == [1]
        with pytest.raises(ZeroDivisionError):
            thread.settle_all(DEADLINE)


def test_results_do_not_wait_for_an_outage_to_end(world: World) -> None:
    with WriterThread(world.writer) as thread:
        thread.results(DEADLINE)
        world.storage.outages = 10**9
        thread.submit([record(1)])

        ended = Thread(target=thread.settle_all, args=(DEADLINE,), daemon=True)
        ended.start()
        ended.join(DEADLINE / 2)

        assert not ended.is_alive()
        world.stop.set()
        assert thread.results(DEADLINE) == []
