"""The writer's thread: results in order, and no wait that an outage prolongs."""

from collections.abc import Sequence
from threading import Event, Thread, Timer
from threading import enumerate as enumerate_threads

import pytest

from src.model.record import Rejection
from src.model.verdict import Verdict
from src.pipeline.batch_writer import Result
from src.pipeline.storm_guard import MAX_HELD_BYTES
from src.pipeline.writer_thread import MAX_IN_FLIGHT, WriterThread
from src.stores.document import Document
from tests.fake_storage import FakeStore
from tests.fakes import DEADLINE, FakeDeadLetters, record
from tests.writer_world import UNTIL_STOPPED, FakeOwnership, WriterWorld, broken, offsets


@pytest.fixture
def world() -> WriterWorld:
    return WriterWorld()


def test_results_come_in_the_order_of_the_batches(world: WriterWorld) -> None:
    with WriterThread(world.writer) as thread:
        thread.submit([record(1)])
        thread.submit([record(2)])

        results = thread.drain(DEADLINE)

    assert settled(results) == [1, 2]
    assert world.store.has_indexes


def test_the_number_of_batches_in_flight_is_limited(world: WriterWorld) -> None:
    world.store.gate = Event()
    with WriterThread(world.writer) as thread:
        for offset in range(MAX_IN_FLIGHT):
            assert not thread.full
            thread.submit([record(offset)])

        assert thread.full
        assert not thread.idle
        assert thread.results(0.0) == []
        world.store.gate.set()
        assert len(thread.drain(DEADLINE)) == MAX_IN_FLIGHT
        assert thread.idle


class FailsUnexpectedly(FakeStore):
    """Has a bug, which the second batch triggers."""

    def insert_documents(self, documents: Sequence[Document]) -> list[Verdict]:
        if self.inserts:
            raise ZeroDivisionError("unexpected")
        return super().insert_documents(documents)


def test_an_unexpected_error_is_raised_after_the_results_before_it() -> None:
    with WriterThread(WriterWorld(store=FailsUnexpectedly()).writer) as thread:
        thread.submit([record(1)])
        thread.submit([record(2)])

        results = thread.results(DEADLINE)

        assert settled(results) == [1]
        with pytest.raises(ZeroDivisionError):
            thread.drain(DEADLINE)


def test_drain_does_not_wait_for_the_end_of_an_outage(world: WriterWorld) -> None:
    with WriterThread(world.writer) as thread:
        thread.results(DEADLINE)
        world.store.outages = UNTIL_STOPPED
        thread.submit([record(1)])

        assert drains(thread)

        world.stop.set()
        assert thread.results(DEADLINE) == []


def test_in_a_storm_a_batch_has_several_results() -> None:
    with WriterThread(WriterWorld().writer) as thread:
        thread.submit(broken(range(25)))
        thread.submit(broken(range(25, 50)))
        results: list[Result] = []

        while not thread.idle:
            results += thread.results(DEADLINE)

        assert settled(results) == list(range(50))
        assert [len(result.records) for result in results] == [3, 10, 10, 2, 10, 10, 5]


def test_without_a_batch_the_next_probe_is_made_when_it_is_due() -> None:
    world = WriterWorld(probe_interval=1.0)
    with WriterThread(world.writer) as thread:
        thread.submit(broken(range(13)))
        results = thread.drain(DEADLINE)
        assert settled(results) == [0, 1, 2]

        while world.writer.storm_guard.held:
            world.now += 1
            thread.probe_if_due()
            results += thread.results(DEADLINE)

    assert settled(results) == list(range(13))


def test_when_too_much_is_held_back_the_thread_is_full() -> None:
    world = WriterWorld(probe_interval=1.0)
    with WriterThread(world.writer) as thread:
        thread.submit([*broken(range(4)), record(4, b"{" * MAX_HELD_BYTES)])
        thread.drain(DEADLINE)

        assert thread.full


class WaitsForGate(FakeDeadLetters):
    """Accepts dead letters from offset `first` on only when the gate is open."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self._first = first
        self.reached, self.gate = Event(), Event()

    def send(self, rejections: Sequence[Rejection]) -> None:
        if rejections[0].record.offset >= self._first:
            self.reached.set()
            assert self.gate.wait(DEADLINE)
        super().send(rejections)


def test_drain_waits_for_a_probe_that_is_being_written() -> None:
    dead_letters = WaitsForGate(first=3)
    with WriterThread(WriterWorld(dead_letters=dead_letters).writer) as thread:
        thread.submit(broken(range(13)))
        assert dead_letters.reached.wait(DEADLINE)
        Timer(0.1, dead_letters.gate.set).start()

        results = thread.drain(DEADLINE)

    assert settled(results) == list(range(13))


def test_drain_does_not_wait_for_the_next_probe_of_a_storm() -> None:
    with WriterThread(WriterWorld(probe_interval=1.0).writer) as thread:
        thread.submit(broken(range(13)))

        assert drains(thread)


class SlowDeadLetters(FakeDeadLetters):
    """A dead-letter topic that confirms when `confirm` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.writing, self.confirm = Event(), Event()

    def send(self, rejections: Sequence[Rejection]) -> None:
        self.writing.set()
        assert self.confirm.wait(DEADLINE)
        super().send(rejections)


def test_drain_waits_for_dead_letters_that_are_being_written_however_short_its_timeout() -> None:
    dead_letters = SlowDeadLetters()
    with WriterThread(WriterWorld(dead_letters=dead_letters).writer) as thread:
        thread.submit(broken(range(1)))
        assert dead_letters.writing.wait(DEADLINE)
        Timer(0.2, dead_letters.confirm.set).start()

        results = thread.drain(0.0)

    assert settled(results) == [0]


def test_drain_does_not_wait_for_commits_to_be_accepted() -> None:
    ownership = FakeOwnership()
    ownership.rejected = {0}
    with WriterThread(WriterWorld(ownership=ownership).writer) as thread:
        thread.submit(broken(range(1)))

        assert drains(thread)


def drains(thread: WriterThread) -> bool:
    """Whether `drain` returns well before its timeout."""
    draining = Thread(target=thread.drain, args=(DEADLINE,), daemon=True)
    draining.start()
    draining.join(DEADLINE / 2)
    return not draining.is_alive()


def settled(results: Sequence[Result]) -> list[int]:
    return [offset for result in results for offset in offsets(result.records)]


def test_the_end_of_the_process_does_not_wait_for_a_call_in_progress(world: WriterWorld) -> None:
    world.store.gate = Event()
    with WriterThread(world.writer) as thread:
        thread.submit([record(1)])
        threads = [each for each in enumerate_threads() if each.name.startswith("writer")]

    assert threads
    assert all(each.daemon for each in threads)
    world.store.gate.set()
