"""One entry per message, however often it was dead-lettered."""

from datetime import UTC, datetime
from typing import Any

import pytest

from src.dead_letters.dead_letter import (
    OFFSET,
    PARTITION,
    TOPIC,
    Replays,
    dead_letter_of,
    discard_marker,
    message_identity,
    replay_headers,
    replay_marker,
)
from src.dead_letters.entries import VALUE_PREFIX_BYTES, Entry, Filter, State, entry_identity, read_entries
from src.model.position import MessagePosition
from src.model.record import Record
from tests.test_dead_letter import rejection

DAY = datetime(2026, 11, 23, tzinfo=UTC).timestamp()


def dead_lettered(offset: int, *, at: int = 0, partition: int = 0, time: float | None = DAY, **fields: Any) -> Record:
    """The dead letter of the message at `offset`, itself at `at` in the dead-letter topic."""
    original = rejection(fields.pop("headers", ()), offset=offset, partition=partition, **fields)
    return Record("dlq", 0, at, *dead_letter_of(original), None if time is None else round(time * 1000))


def marker_of(record: Record) -> Record:
    return Record("dlq", 0, 999, *replay_marker(message_identity(record.headers) or ""))


def discard_marker_of(record: Record) -> Record:
    return Record("dlq", 0, 999, *discard_marker(entry_identity(record)))


def read(*records: Record) -> list[Entry]:
    return read_entries(records, "data-topic".__eq__)


def offsets(entries: list[Entry]) -> list[int | None]:
    return [entry.position.offset if entry.position else None for entry in entries]


def test_an_entry_has_the_message_and_the_reason() -> None:
    (entry,) = read(dead_lettered(41, at=7, partition=2))

    assert (entry.state, entry.reason) == (State.WAITING, "not_json")
    assert entry.position == MessagePosition("data-topic", 2, 41)
    assert (entry.dead_letter, entry.dead_lettered_at, entry.copies) == (MessagePosition("dlq", 0, 7), DAY * 1000, 1)
    assert (entry.key, entry.value_prefix, entry.value_size, entry.replays) == (b"\x00key", b"{", 1, Replays())


def test_a_message_dead_lettered_again_after_a_crash_is_one_entry_with_its_last_dead_letter() -> None:
    entries = read(dead_lettered(1, at=0), dead_lettered(2, at=1), dead_lettered(1, at=2), dead_lettered(1, at=3))

    assert [(entry.dead_letter.offset, entry.copies) for entry in entries] == [(3, 3), (1, 1)]
    assert [position.offset for position in entries[0].dead_letters] == [0, 2, 3]


def test_a_replayed_message_and_its_other_dead_letters_no_longer_wait() -> None:
    entries = read(dead_lettered(1, at=0), dead_lettered(2, at=1), marker_of(dead_lettered(1)), dead_lettered(1, at=3))

    assert [(entry.state, entry.copies) for entry in entries] == [(State.REPLAYED, 2), (State.WAITING, 1)]


def test_a_discarded_message_stays_discarded_when_it_is_dead_lettered_again_after_a_crash() -> None:
    first = dead_lettered(1, at=0)

    entries = read(first, dead_lettered(2, at=1), discard_marker_of(first), dead_lettered(1, at=3))

    assert [(entry.state, entry.copies) for entry in entries] == [(State.DISCARDED, 2), (State.WAITING, 1)]


def test_records_of_other_programs_can_be_discarded() -> None:
    foreign = Record("dlq", 3, 7, None, b"no headers")

    (entry,) = read(foreign, discard_marker_of(foreign))

    assert entry.state == State.DISCARDED


def test_a_message_that_was_replayed_and_discarded_at_the_same_time_counts_as_replayed() -> None:
    record = dead_lettered(1)
    markers = marker_of(record), discard_marker_of(record)

    for order in (markers, markers[::-1]):
        (entry,) = read(record, *order)

        assert entry.state == State.REPLAYED


def test_a_message_that_was_replayed_and_dead_lettered_again_waits_at_its_new_position() -> None:
    first = dead_lettered(1)
    again = dead_lettered(5, headers=replay_headers(first.headers))

    entries = read(first, marker_of(first), again)

    assert [(entry.state, entry.replays.times) for entry in entries] == [(State.REPLAYED, 0), (State.WAITING, 1)]


def test_the_same_position_in_a_recreated_topic_is_another_message() -> None:
    old, new = dead_lettered(1, timestamp=1_000), dead_lettered(1, timestamp=2_000)

    entries = read(old, marker_of(old), new)

    assert [entry.state for entry in entries] == [State.REPLAYED, State.WAITING]


def test_records_of_other_programs_are_foreign() -> None:
    unreadable = ((TOPIC, b"data-topic"), (PARTITION, b"not a number"), (OFFSET, b"1"))
    records = [
        Record("dlq", 0, 0, None, b"no headers"),
        Record("dlq", 0, 1, None, None),
        Record("dlq", 0, 2, None, b"x", unreadable),
        Record("dlq", 0, 3, None, b"x", ((TOPIC, b"orders"), (PARTITION, b"0"), (OFFSET, b"1"))),
        dead_lettered(1, at=4),
    ]

    entries = read(*records)

    assert [entry.state for entry in entries] == [State.FOREIGN] * 4 + [State.WAITING]
    assert offsets(entries) == [None, None, None, 1, 1]


def test_an_entry_keeps_only_a_prefix_of_the_value() -> None:
    (entry,) = read(dead_lettered(1, value=b"x" * 1_000_000))

    assert (len(entry.value_prefix or b""), entry.value_size) == (VALUE_PREFIX_BYTES, 1_000_000)


ENTRIES = read(
    dead_lettered(1, at=0, time=DAY + 30),
    dead_lettered(2, at=1, time=DAY + 10, partition=1),
    dead_lettered(3, at=2, time=DAY + 20),
    dead_lettered(4, at=3, time=None),
    Record("dlq", 0, 4, None, b"foreign"),
    Record("dlq", 0, 5, *dead_letter_of(rejection((), offset=5)._replace(reason="tombstone")), 0),
)


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        ({}, [4, 5, 2, 3, 1]),
        ({"states": (State.FOREIGN,)}, [None]),
        ({"reasons": ["tombstone"]}, [5]),
        ({"reasons": ["tombstone", "not_json"]}, [4, 5, 2, 3, 1]),
        ({"since": DAY + 20}, [3, 1]),
        ({"until": DAY + 20}, [5, 2]),
        ({"since": DAY + 20, "until": DAY + 30}, [3]),
        ({"partition": 1}, [2]),
        ({"offset": 3}, [3]),
        ({"partition": 1, "offset": 3}, []),
        ({"states": tuple(State), "offset": 3}, [3]),
        ({"states": tuple(State), "partition": 2}, [5]),
        ({"topic": "data-topic", "offset": 3}, [3]),
        ({"topic": "orders", "offset": 3}, []),
        ({"dead_letter": MessagePosition("dlq", 0, 2)}, [3]),
        ({"dead_letter": MessagePosition("dlq", 0, 4), "states": (State.FOREIGN,)}, [None]),
    ],
)
def test_a_filter_returns_the_matching_entries_oldest_first(criteria: Any, expected: list[int | None]) -> None:
    assert offsets(Filter(**{"states": (State.WAITING,), **criteria}).apply(ENTRIES)) == expected


def test_a_message_is_found_by_each_of_its_dead_letters() -> None:
    entries = read(dead_lettered(1, at=0), dead_lettered(1, at=2))

    for offset in (0, 2):
        assert offsets(Filter((State.WAITING,), dead_letter=MessagePosition("dlq", 0, offset)).apply(entries)) == [1]
