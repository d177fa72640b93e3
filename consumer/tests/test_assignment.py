"""What may be committed."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from src.kafka.assignment import OffsetTracker
from tests.fakes import record


def test_a_settled_batch_may_be_committed_up_to_the_offset_after_its_last() -> None:
    tracker = OffsetTracker()
    tracker.assign(0, 1)
    batch = [record(5), record(6), record(9)]

    tracker.take(batch)
    tracker.settle(batch)

    assert tracker.due() == {0: 10}


def test_nothing_is_due_while_a_batch_is_in_hand() -> None:
    tracker = OffsetTracker()
    tracker.assign(0, 1, committed=5)

    tracker.take([record(5)])

    assert tracker.due() == {}


def test_a_batch_settled_before_an_earlier_one_is_not_committed() -> None:
    tracker = OffsetTracker()
    tracker.assign(0, 1)
    first, second = [record(0), record(1)], [record(2)]
    tracker.take(first)
    tracker.take(second)

    tracker.settle(second)

    assert tracker.due() == {0: 0}
    tracker.settle(first)
    assert tracker.due() == {0: 3}


def test_a_batch_may_be_settled_part_by_part_in_its_order() -> None:
    tracker = OffsetTracker()
    tracker.assign(0, 1)
    batch = [record(5), record(6), record(9), record(12)]
    tracker.take(batch)

    tracker.settle(batch[:2])
    assert tracker.due() == {0: 7}
    tracker.settle(batch[2:])

    assert tracker.due() == {0: 13}


def test_a_part_settled_out_of_turn_counts_for_nothing() -> None:
    tracker = OffsetTracker()
    tracker.assign(0, 1, committed=5)
    tracker.take([record(5), record(6), record(7)])

    tracker.settle([record(6)])

    assert tracker.due() == {}


def test_what_a_part_leaves_out_holds_the_commit_back() -> None:
    tracker = OffsetTracker()
    tracker.assign(0, 1)
    tracker.take([record(5), record(6), record(7)])

    tracker.settle([record(5), record(7)])

    assert tracker.due() == {0: 6}
    tracker.settle([record(6)])
    assert tracker.due() == {0: 8}


def test_what_kafka_has_is_not_due_again() -> None:
    tracker = OffsetTracker()
    tracker.assign(0, 1)
    tracker.take([record(0)])
    tracker.settle([record(0)])

    tracker.confirm({0: 1})

    assert tracker.due() == {}
    assert tracker.position(0) == 1


def test_a_confirmation_for_a_partition_given_away_is_ignored() -> None:
    tracker = OffsetTracker()

    tracker.confirm({7: 3})

    assert tracker.due() == {}
    assert tracker.position(7) is None


def test_a_position_that_was_skipped_to_is_due_once() -> None:
    tracker = OffsetTracker()
    tracker.assign(0, 1, committed=5)

    tracker.skip_to(0, 9)

    assert tracker.due() == {0: 9}
    tracker.confirm({0: 9})
    assert tracker.due() == {}


def test_what_is_taken_before_a_position_that_was_skipped_to_holds_it_back() -> None:
    tracker = OffsetTracker()
    tracker.assign(0, 1, committed=5)
    tracker.skip_to(0, 9)

    tracker.take([record(5), record(6)])

    assert tracker.due() == {0: 5}
    tracker.settle([record(5), record(6)])
    assert tracker.due() == {0: 9}


def test_a_position_that_was_read_counts_once_nothing_is_in_hand() -> None:
    tracker = OffsetTracker()
    tracker.assign(0, 1, committed=5)
    tracker.take([record(5)])

    tracker.reach({0: 7, 1: 3})

    assert tracker.due() == {}
    tracker.settle([record(5)])
    tracker.reach({0: 7, 1: 3})
    assert tracker.due() == {0: 7}


def test_a_position_never_leads_back() -> None:
    tracker = OffsetTracker()
    tracker.assign(0, 1, committed=5)

    tracker.reach({0: 3})

    assert tracker.due() == {}
    assert tracker.position(0) == 5


def test_records_of_an_earlier_assignment_count_for_nothing() -> None:
    tracker = OffsetTracker()
    tracker.assign(0, 1)
    tracker.take([record(0, assignment=1)])
    tracker.revoke(0)
    tracker.assign(0, 2, committed=0)

    tracker.settle([record(0, assignment=1)])

    assert tracker.due() == {}
    assert not tracker.owns(record(0, assignment=1))
    assert tracker.owns(record(0, assignment=2))


def test_only_the_partitions_asked_for_are_due() -> None:
    tracker = OffsetTracker()
    tracker.assign(0, 1)
    tracker.assign(1, 1)
    batch = [record(0), record(0, partition=1)]
    tracker.take(batch)
    tracker.settle(batch)

    assert tracker.due([1]) == {1: 1}
    assert set(tracker.partitions) == {0, 1}


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_no_order_of_settling_commits_an_unsettled_offset_or_goes_back(sizes: list[int], random: Random) -> None:
    tracker = OffsetTracker()
    tracker.assign(0, 1)
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    batches = [
        [record(offset) for offset in range(start, start + size)] for start, size in zip(starts, sizes, strict=True)
    ]
    for batch in batches:
        tracker.take(batch)
    settled: set[int] = set()
    highest = 0

    parts = {index: [batch[:cut], batch[cut:]] for index, batch in enumerate(batches) for cut in [len(batch) // 2]}
    turns = [index for index in parts for _ in parts[index]]

    for index in random.sample(turns, len(turns)):
        part = parts[index].pop(0)
        tracker.settle(part)
        settled |= {item.offset for item in part}
        committable = tracker.due().get(0, 0)

        assert set(range(committable)) <= settled
        assert committable >= highest
        highest = committable
    assert highest == sum(sizes)
