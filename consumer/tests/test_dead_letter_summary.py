"""Dead-lettered messages are counted by reason, partition and time."""

import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from src.dead_letters.dead_letter import dead_letter_of
from src.dead_letters.entries import Entry, Filter, State
from src.dead_letters.summary import HOURS, Group, summarize
from src.model.record import Record
from tests.test_dead_letter import rejection
from tests.test_dead_letter_entries import DAY, dead_lettered, read

HOUR = 3600


def oldest_first(*records: Record) -> list[Entry]:
    return Filter(tuple(State)).apply(read(*records))


def counts(groups: list[Group]) -> dict[str, int]:
    return {group.name: group.messages for group in groups}


@pytest.fixture
def _kathmandu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_the_most_frequent_reason_is_first() -> None:
    tombstones = [
        Record("dlq", 0, at, *dead_letter_of(rejection((), offset=at)._replace(reason="tombstone")), round(DAY * 1000))
        for at in (1, 2)
    ]

    reasons, _, _ = summarize(oldest_first(dead_lettered(0, time=DAY - 1), *tombstones, Record("dlq", 0, 4, None, b"")))

    assert [(group.name, group.messages) for group in reasons] == [("tombstone", 2), ("-", 1), ("not_json", 1)]


def test_partitions_are_in_numerical_order() -> None:
    foreign = Record("dlq", 0, 9, None, b"")

    _, partitions, _ = summarize(oldest_first(foreign, *(dead_lettered(p, at=p, partition=p) for p in (10, 2))))

    assert [group.name for group in partitions] == ["-", "data-topic 2", "data-topic 10"]


def test_a_group_has_its_first_and_last_time() -> None:
    reasons, _, _ = summarize(
        oldest_first(
            dead_lettered(1, at=1, time=DAY + 9), dead_lettered(2, at=2, time=None), dead_lettered(3, at=3, time=DAY)
        )
    )

    assert reasons == [Group("reason", "not_json", 3, round(DAY * 1000), round((DAY + 9) * 1000))]


def test_a_short_time_is_divided_into_hours() -> None:
    times = (DAY, DAY + HOUR - 1, DAY + HOUR, DAY + HOURS.total_seconds())

    _, _, periods = summarize(oldest_first(*(dead_lettered(at, at=at, time=time) for at, time in enumerate(times))))

    assert {group.by for group in periods} == {"hour"}
    assert counts(periods) == {"2026-11-23T00:00Z": 2, "2026-11-23T01:00Z": 1, "2026-11-25T00:00Z": 1}


def test_a_long_time_is_divided_into_days() -> None:
    times = (DAY, DAY + HOUR, DAY + HOURS.total_seconds() + 1)

    _, _, periods = summarize(oldest_first(*(dead_lettered(at, at=at, time=time) for at, time in enumerate(times))))

    assert {group.by for group in periods} == {"day"}
    assert counts(periods) == {"2026-11-23": 2, "2026-11-25": 1}


@pytest.mark.usefixtures("_kathmandu")
def test_hours_and_days_are_local_on_a_terminal() -> None:
    hour, two_days = dead_lettered(1, time=DAY), dead_lettered(2, at=1, time=DAY + 3 * 24 * HOUR - 1)

    assert counts(summarize(oldest_first(hour), local=True)[2]) == {"2026-11-23T05:00+05:45": 1}
    assert counts(summarize(oldest_first(hour, two_days), local=True)[2]) == {"2026-11-23": 1, "2026-11-26": 1}


def test_an_unknown_time_or_one_outside_of_the_calendar_is_a_dash() -> None:
    _, _, periods = summarize(
        oldest_first(dead_lettered(1, time=None), replace(dead_lettered(2, at=1), timestamp=-(2**62)))
    )

    assert counts(periods) == {"-": 2}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 10**13) | st.none()), min_size=1, max_size=20))
def test_every_message_is_in_one_group_of_each_kind(messages: list[tuple[int, int | None]]) -> None:
    records = [
        replace(dead_lettered(at, at=at, partition=partition), timestamp=timestamp)
        for at, (partition, timestamp) in enumerate(messages)
    ]

    groups = summarize(oldest_first(*records))

    assert [sum(group.messages for group in kind) for kind in groups] == [len(messages)] * 3
    assert all(earlier.name <= later.name for earlier, later in pairwise(groups[2]))
