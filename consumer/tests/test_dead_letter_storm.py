"""When nearly all messages would be dead-lettered, most are held back until the cause is fixed."""

from collections.abc import Sequence

import pytest

from src.model.errors import DeadLetterStorm
from src.pipeline.batch_writer import PROBE_SIZE, Result
from src.pipeline.retry import WriterStopped
from tests.fakes import record, rejected
from tests.writer_world import WriterWorld, broken, offsets, with_id


@pytest.fixture
def world() -> WriterWorld:
    return WriterWorld()


def test_a_storm_begins_before_the_allowed_share_is_exceeded(world: WriterWorld) -> None:
    result = world.writer.write([record(0), record(1, b"{"), record(2, b"{"), record(3), *broken(range(4, 20))])

    assert world.dead_letters.offsets == [1, 2]
    assert offsets(result.records) == [0, 1, 2, 3]
    assert offsets(result.unsettled) == list(range(4, 20))


def test_what_is_stored_behind_the_beginning_of_a_storm_is_a_duplicate_later(world: WriterWorld) -> None:
    results = world.write([*broken(range(1, 5)), record(5)])

    assert settled(results) == [1, 2, 3, 4, 5]
    assert sum(result.duplicates for result in results) == 1
    assert world.stored == ["0-5"]
    assert world.dead_letters.offsets == [1, 2, 3, 4]


def test_a_storm_says_what_would_have_happened_and_which_setting_lets_it_happen(
    world: WriterWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world.writer.write(broken(range(20)))

    storm = world.writer.blocked_by
    assert isinstance(storm, DeadLetterStorm)
    assert storm.cause == "dead_letter_storm"
    assert str(storm) == (
        "4 of the last 4 messages would be dead-lettered, currently mostly for not_json (50 % is allowed);"
        " set consumer.dead_letter_storm_percent to 100 to let them through"
    )
    assert caplog.messages == ["dead-letter storm"]


def test_in_a_storm_a_few_messages_are_dead_lettered_at_a_time(
    world: WriterWorld, caplog: pytest.LogCaptureFixture
) -> None:
    unsettled = world.writer.write(broken(range(40))).unsettled

    result = world.writer.write(unsettled)

    assert offsets(result.records) == list(range(3, 3 + PROBE_SIZE))
    assert world.dead_letters.offsets == list(range(3 + PROBE_SIZE))
    assert isinstance(world.writer.blocked_by, DeadLetterStorm)
    assert world.retries == ["dead_letter_storm"]
    assert caplog.messages == ["dead-letter storm"]


def test_a_storm_ends_when_the_share_falls(world: WriterWorld, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    results = world.write([*broken(range(5)), *(record(offset) for offset in range(5, 60))])

    assert [len(result.records) for result in results] == [3, PROBE_SIZE, 60 - 3 - PROBE_SIZE]
    assert world.writer.blocked_by is None
    assert caplog.messages == ["dead-letter storm", "dead-letter storm ended"]
    assert world.dead_letters.offsets == list(range(5))


def test_after_a_probe_within_the_limit_the_next_one_follows_without_a_wait() -> None:
    world = WriterWorld(storm_window=100)

    results = world.write([*broken(range(100)), *(record(offset) for offset in range(100, 300))])

    assert [len(result.records) for result in results] == [99, 10, *[PROBE_SIZE] * 5, 141]
    assert world.retries == ["dead_letter_storm"]


def test_messages_whose_cause_is_fixed_during_a_storm_are_stored(world: WriterWorld) -> None:
    world.store.verdicts = {str(number): iter([rejected("validation_failed")]) for number in range(20)}

    results = world.write([with_id(str(number), number) for number in range(20)])

    assert world.dead_letters.offsets == [0, 1, 2]
    assert world.stored == [str(number) for number in range(3, 20)]
    assert [len(result.records) for result in results] == [3, PROBE_SIZE, 7]


def test_a_storm_continues_after_an_outage(world: WriterWorld) -> None:
    unsettled = world.writer.write(broken(range(40))).unsettled
    world.dead_letters.outages = 2

    world.writer.write(unsettled)
    world.writer.ping()

    assert isinstance(world.writer.blocked_by, DeadLetterStorm)
    assert world.dead_letters.offsets == list(range(3 + PROBE_SIZE))


def test_a_stop_in_a_storm_leaves_what_is_held_back_to_the_next_consumer(world: WriterWorld) -> None:
    unsettled = world.writer.write(broken(range(40))).unsettled
    world.stop.set()

    with pytest.raises(WriterStopped, match="storm"):
        world.writer.write(unsettled)

    assert world.dead_letters.offsets == [0, 1, 2]


def test_a_partition_that_is_revoked_during_a_storm_is_not_probed(world: WriterWorld) -> None:
    unsettled = world.writer.write(broken(range(40))).unsettled
    world.ownership.revoked.add(0)

    result = world.writer.write(unsettled)

    assert (result.records, result.unsettled) == ([], [])
    assert world.dead_letters.offsets == [0, 1, 2]
    assert world.writer.blocked_by is None


def settled(results: Sequence[Result]) -> list[int]:
    return [offset for result in results for offset in offsets(result.records)]
