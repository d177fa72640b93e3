"""Which offsets may be committed, and which records are ignored."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from src.kafka.assignment import Assignment, Start
from src.model.position import TopicPartition
from tests.fakes import P0, P1, TOPIC, record

OTHER = TopicPartition(TOPIC, 7)


def test_a_settled_batch_may_be_committed_up_to_the_offset_after_its_last() -> None:
    assignment = Assignment()
    assignment.assign({P0: Start()})
    batch = [record(5), record(6), record(9)]

    assignment.track(batch)
    assignment.settle(batch)

    assert assignment.due() == {P0: 10}


def test_nothing_is_due_while_a_batch_is_in_flight() -> None:
    assignment = Assignment()
    assignment.assign({P0: Start(5)})

    assignment.track([record(5)])

    assert assignment.due() == {}


def test_a_batch_settled_before_an_earlier_one_is_not_committed() -> None:
    assignment = Assignment()
    assignment.assign({P0: Start()})
    first, second = [record(0), record(1)], [record(2)]
    assignment.track(first)
    assignment.track(second)

    assignment.settle(second)

    assert assignment.due() == {P0: 0}
    assignment.settle(first)
    assert assignment.due() == {P0: 3}


def test_a_batch_may_be_settled_part_by_part_in_its_order() -> None:
    assignment = Assignment()
    assignment.assign({P0: Start()})
    batch = [record(5), record(6), record(9), record(12)]
    assignment.track(batch)

    assignment.settle(batch[:2])
    assert assignment.due() == {P0: 7}
    assignment.settle(batch[2:])

    assert assignment.due() == {P0: 13}


def test_a_part_settled_out_of_order_is_ignored() -> None:
    assignment = Assignment()
    assignment.assign({P0: Start(5)})
    assignment.track([record(5), record(6), record(7)])

    assignment.settle([record(6)])

    assert assignment.due() == {}


def test_an_unsettled_record_holds_the_commit_back() -> None:
    assignment = Assignment()
    assignment.assign({P0: Start()})
    assignment.track([record(5), record(6), record(7)])

    assignment.settle([record(5), record(7)])

    assert assignment.due() == {P0: 6}
    assignment.settle([record(6)])
    assert assignment.due() == {P0: 8}


def test_a_confirmed_commit_is_not_due_again() -> None:
    assignment = Assignment()
    assignment.assign({P0: Start()})
    assignment.track([record(0)])
    assignment.settle([record(0)])

    assignment.confirm({P0: 1})

    assert assignment.due() == {}
    assert assignment.position(P0) == 1


def test_a_confirmation_for_a_revoked_partition_is_ignored() -> None:
    assignment = Assignment()

    assignment.confirm({OTHER: 3})

    assert assignment.due() == {}
    assert assignment.position(OTHER) is None


def test_a_skipped_position_is_due_once() -> None:
    assignment = Assignment()
    assignment.assign({P0: Start(5)})

    assignment.skip_to(P0, 9)

    assert assignment.due() == {P0: 9}
    assignment.confirm({P0: 9})
    assert assignment.due() == {}


def test_records_in_flight_from_before_a_gap_hold_the_skipped_position_back() -> None:
    assignment = Assignment()
    assignment.assign({P0: Start(5)})
    assignment.skip_to(P0, 9)

    assignment.track([record(5), record(6)])

    assert assignment.due() == {P0: 5}
    assignment.settle([record(5), record(6)])
    assert assignment.due() == {P0: 9}


def test_the_end_of_a_partition_is_due_once_nothing_is_in_flight() -> None:
    assignment = Assignment()
    assignment.assign({P0: Start(5)})
    assignment.track([record(5)])

    assignment[P0].eof_offset = 7
    assignment.advance_to_eof()

    assert assignment.due() == {}
    assignment.settle([record(5)])
    assignment.advance_to_eof()
    assert assignment.due() == {P0: 7}


def test_an_older_end_of_a_partition_does_not_move_the_position_back() -> None:
    assignment = Assignment()
    assignment.assign({P0: Start(5)})

    assignment[P0].eof_offset = 3
    assignment.advance_to_eof()

    assert assignment.due() == {}
    assert assignment.position(P0) == 5


def test_records_of_an_earlier_assignment_are_ignored() -> None:
    assignment = Assignment()
    assignment.assign({P0: Start()})
    assignment.track([record(0, assignment=1)])
    assignment.revoke([P0])
    assignment.assign({P0: Start(0)})

    assignment.settle([record(0, assignment=1)])

    assert assignment.due() == {}
    assert not assignment.owns(record(0, assignment=1))
    assert assignment.owns(record(0, assignment=2))


def test_only_the_partitions_asked_for_are_due() -> None:
    assignment = Assignment()
    assignment.assign({P0: Start(), P1: Start()})
    batch = [record(0), record(0, partition=1)]
    assignment.track(batch)
    assignment.settle(batch)

    assert assignment.due([P1]) == {P1: 1}
    assert set(assignment.partitions) == {P0, P1}


def test_a_rejected_commit_stays_due_and_marks_its_partition_until_one_is_confirmed() -> None:
    assignment = Assignment()
    assignment.assign({P0: Start(), P1: Start()})
    assignment.settle(assignment.track([record(0), record(0, partition=1)]))

    assignment.reject([P0, OTHER])

    assert assignment.due() == {P0: 1, P1: 1}
    assert [assignment.commits_rejected(record(1, partition=partition)) for partition in (0, 1, 7)] == [
        *(True, False, False)
    ]
    assignment.confirm({P0: 1})
    assert not assignment.commits_rejected(record(1))


def test_records_of_a_discarded_partition_are_ignored_and_nothing_of_it_is_due() -> None:
    assignment = Assignment()
    assignment.assign({P0: Start(5), P1: Start(5)})
    batch = assignment.track([record(5), record(5, partition=1)])

    assignment.discard([P0])
    assignment[P0].eof_offset = 6
    assignment.settle(batch)
    assignment.advance_to_eof()

    assert assignment.due() == {P1: 6}
    assert P0 in assignment


def test_a_stopped_partition_is_not_readable_and_gives_its_reason() -> None:
    assignment = Assignment()
    assignment.assign({P0: Start(), P1: Start()})

    assignment[P0].gap = "offset 5 no longer exists"

    assert list(assignment.readable) == [P1]
    assert assignment.gaps == {P0: "offset 5 no longer exists"}
    assignment.assign({P0: Start()})
    assert assignment.gaps == {}


def test_only_records_that_are_still_owned_are_tracked() -> None:
    assignment = Assignment()
    assignment.assign({P0: Start()})

    assert assignment.track([record(0), record(0, partition=1), record(1, assignment=7)]) == [record(0)]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_no_order_of_settling_commits_an_unsettled_offset_or_goes_back(sizes: list[int], random: Random) -> None:
    assignment = Assignment()
    assignment.assign({P0: Start()})
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    batches = [
        [record(offset) for offset in range(start, start + size)] for start, size in zip(starts, sizes, strict=True)
    ]
    for batch in batches:
        assignment.track(batch)
    settled: set[int] = set()
    highest = 0

    parts = {index: [batch[:cut], batch[cut:]] for index, batch in enumerate(batches) for cut in [len(batch) // 2]}
    turns = [index for index in parts for _ in parts[index]]

    for index in random.sample(turns, len(turns)):
        part = parts[index].pop(0)
        assignment.settle(part)
        settled |= {item.offset for item in part}
        committable = assignment.due().get(P0, 0)

        assert set(range(committable)) <= settled
        assert committable >= highest
        highest = committable
    assert highest == sum(sizes)
