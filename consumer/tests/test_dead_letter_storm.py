"""When nearly all messages of a partition would be dead-lettered, most are held back until the cause is fixed."""

from collections.abc import Sequence

import pytest

from src.model.record import Record
from src.pipeline.batch_writer import PROBE_INTERVAL, Result
from src.pipeline.storm_guard import MAX_HELD_BYTES, PROBE_SIZE
from tests.fakes import TOPIC, record, rejected
from tests.writer_world import WriterWorld, broken, offsets, with_id


@pytest.fixture
def world() -> WriterWorld:
    """Probes are due at once."""
    return WriterWorld()


@pytest.fixture
def holding() -> WriterWorld:
    """No probe is due."""
    return WriterWorld(probe_interval=PROBE_INTERVAL)


def test_a_storm_begins_before_the_allowed_share_is_exceeded(holding: WriterWorld) -> None:
    [result] = holding.write([record(0), record(1, b"{"), record(2, b"{"), record(3), *broken(range(4, 20))])

    assert holding.dead_letters.offsets == [1, 2]
    assert offsets(result.records) == [0, 1, 2, 3]


def test_the_messages_of_other_partitions_are_settled_meanwhile(holding: WriterWorld) -> None:
    [first] = holding.write([*broken(range(20)), *good(range(5), partition=1)])
    [second] = holding.write([*broken(range(20, 40)), *good(range(5, 9), partition=1), record(0, b"{", partition=2)])

    assert partitions(first.records) == [*[0] * 3, *[1] * 5]
    assert partitions(second.records) == [*[1] * 4, 2]
    assert holding.stored == [f"1-{offset}" for offset in range(9)]
    assert holding.storms.keys() == {0}
    assert holding.writer.storm_guard.held == {(TOPIC, 0)}


def test_partitions_are_counted_separately(holding: WriterWorld) -> None:
    holding.write([*broken(range(3)), *broken(range(3), partition=1)])

    assert len(holding.dead_letters.offsets) == 6
    assert holding.storms == {}


def test_the_valid_messages_of_other_partitions_do_not_hide_a_storm(holding: WriterWorld) -> None:
    for offset in range(4):
        holding.write([*broken(range(offset, offset + 1)), *good(range(9 * offset, 9 * offset + 9), partition=1)])

    assert holding.dead_letters.offsets == [0, 1, 2]
    assert holding.storms.keys() == {0}


def test_messages_behind_what_is_held_back_wait_in_order(holding: WriterWorld) -> None:
    holding.write(broken(range(20)))

    assert holding.write(good(range(20, 30))) == []
    assert holding.stored == []


def test_what_is_stored_behind_the_beginning_of_a_storm_is_not_a_duplicate_later(world: WriterWorld) -> None:
    results = world.write_all([*broken(range(1, 5)), record(5)])

    assert settled(results) == [1, 2, 3, 4, 5]
    assert sum(result.duplicates for result in results) == 0
    assert [offset for result in results for offset in offsets(result.stored)] == [5]
    assert world.stored == ["0-5"]
    assert world.store.inserts == [["0-5"]]
    assert world.dead_letters.offsets == [1, 2, 3, 4]


def test_a_duplicate_behind_the_beginning_of_a_storm_is_counted_once(world: WriterWorld) -> None:
    world.write([record(0)])

    results = world.write_all([*broken(range(1, 5)), with_id("0-0", 5)])

    assert sum(result.duplicates for result in results) == 1


def test_a_storm_says_what_would_have_happened_and_which_setting_lets_it_happen(
    holding: WriterWorld, caplog: pytest.LogCaptureFixture
) -> None:
    holding.write(broken(range(20), partition=2))

    assert holding.storms == {
        2: f"4 of the last 4 messages of {TOPIC}[2] would be dead-lettered, currently mostly for not_json"
        " (50 % is allowed); set consumer.dead_letter_storm_percent to 100 to let them through"
    }
    [event] = caplog.records
    assert event.message == "dead-letter storm"
    assert (event.topic, event.partition, event.cause) == (TOPIC, 2, "dead_letter_storm")  # type: ignore[attr-defined]


def test_in_a_storm_a_few_messages_are_dead_lettered_at_a_time(caplog: pytest.LogCaptureFixture) -> None:
    world = WriterWorld(probe_interval=PROBE_INTERVAL)
    world.write(broken(range(40)))

    world.now += PROBE_INTERVAL
    [result] = world.write(())

    assert offsets(result.records) == list(range(3, 3 + PROBE_SIZE))
    assert world.dead_letters.offsets == list(range(3 + PROBE_SIZE))
    assert not world.writer.storm_guard.due
    assert world.storms.keys() == {0}
    assert world.retries == ["dead_letter_storm"]
    assert caplog.messages == ["dead-letter storm"]


def test_a_storm_ends_when_the_share_falls(world: WriterWorld, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    results = world.write_all([*broken(range(5)), *good(range(5, 60))])

    assert [len(result.records) for result in results] == [3, PROBE_SIZE, 60 - 3 - PROBE_SIZE]
    assert world.storms == {}
    assert caplog.messages == ["dead-letter storm", "dead-letter storm ended"]
    assert world.dead_letters.offsets == list(range(5))


def test_what_follows_the_end_of_a_storm_may_begin_another(caplog: pytest.LogCaptureFixture) -> None:
    world = WriterWorld()

    results = world.write_all([*broken(range(5)), *good(range(5, 13)), *broken(range(13, 30)), *good(range(30, 60))])

    assert settled(results) == list(range(60))
    assert caplog.messages == ["dead-letter storm"] * 2
    assert sum(result.duplicates for result in results) == 0


def test_after_a_probe_within_the_limit_the_next_one_follows_without_a_wait() -> None:
    world = WriterWorld(storm_window=100, probe_interval=0.0)

    results = world.write_all([*broken(range(100)), *good(range(100, 300))])

    assert [len(result.records) for result in results] == [99, 10, *[PROBE_SIZE] * 5, 141]
    assert world.retries == ["dead_letter_storm"]


def test_messages_whose_cause_is_fixed_during_a_storm_are_stored(world: WriterWorld) -> None:
    world.store.verdicts = {str(number): iter([rejected("validation_failed")]) for number in range(20)}

    results = world.write_all([with_id(str(number), number) for number in range(20)])

    assert world.dead_letters.offsets == [0, 1, 2]
    assert world.stored == [str(number) for number in range(3, 20)]
    assert [len(result.records) for result in results] == [3, PROBE_SIZE, 7]


def test_a_storm_is_over_when_nothing_is_held_back_and_the_next_invalid_message_is_probed(world: WriterWorld) -> None:
    world.write_all(broken(range(20)))
    assert world.storms.keys() == {0}

    world.write(())
    assert world.storms == {}
    results = world.write(broken(range(20, 40)))

    assert [len(result.records) for result in results] == [PROBE_SIZE, PROBE_SIZE]


def test_a_storm_continues_after_an_outage() -> None:
    world = WriterWorld(probe_interval=PROBE_INTERVAL)
    world.write(broken(range(40)))
    world.dead_letters.outages = 2
    world.now += PROBE_INTERVAL

    world.write(())
    world.writer.ping()

    assert world.storms.keys() == {0}
    assert world.dead_letters.offsets == list(range(3 + PROBE_SIZE))


def test_a_stop_in_a_storm_leaves_what_is_held_back_to_the_next_consumer(holding: WriterWorld) -> None:
    holding.write(broken(range(40)))
    holding.writer.stop()

    assert holding.write(()) == []
    assert holding.dead_letters.offsets == [0, 1, 2]


def test_a_partition_that_is_revoked_during_a_storm_is_not_probed(holding: WriterWorld) -> None:
    holding.write(broken(range(40)))
    holding.ownership.revoked.add(0)

    assert holding.writer.storm_guard.due
    assert holding.write(()) == []
    assert holding.dead_letters.offsets == [0, 1, 2]
    assert holding.storms == {}


def test_a_partition_that_is_assigned_again_in_a_storm_is_read_again() -> None:
    world = WriterWorld(probe_interval=PROBE_INTERVAL)
    world.write(broken(range(40)))

    results = world.write(broken(range(3, 40), assignment=2))

    assert settled(results) == list(range(3, 3 + PROBE_SIZE))
    assert {each.assignment for result in results for each in result.records} == {2}


def test_what_is_held_back_in_memory_is_limited(holding: WriterWorld) -> None:
    large = MAX_HELD_BYTES // 4
    holding.write(broken(range(4)))
    guard = holding.writer.storm_guard

    for offset in range(4, 8):
        assert not guard.full
        holding.write([record(offset, b"{" * large)])

    assert guard.full


def good(numbers: range, *, partition: int = 0) -> list[Record]:
    return [record(offset, partition=partition) for offset in numbers]


def partitions(records: Sequence[Record]) -> list[int]:
    return [each.partition for each in records]


def settled(results: Sequence[Result]) -> list[int]:
    return [offset for result in results for offset in offsets(result.records)]
