"""One entry a message, however often it was parked."""

from datetime import UTC, datetime
from typing import Any

import pytest

from src.dead_letters.entries import BEGINNING, Entry, Place, Selection, State, entries
from src.dead_letters.letter import OFFSET, PARTITION, TOPIC, Origin, Replays, identity, letter, note, sent_back
from src.model.record import Record
from tests.test_dead_letter import rejection

DAY = datetime(2026, 11, 23, tzinfo=UTC).timestamp()


def parked(offset: int, *, at: int = 0, partition: int = 0, parked_at: float | None = DAY, **fields: Any) -> Record:
    """The letter of the message at `offset`, itself at `at` in the dead-letter topic."""
    key, value, headers = letter(rejection(fields.pop("headers", ()), offset=offset, partition=partition, **fields))
    return Record("dlq", 0, at, key, value, headers, None if parked_at is None else round(parked_at * 1000))


def noted(record: Record) -> Record:
    return Record("dlq", 0, 999, *note(identity(record.headers) or ""))


def read(*records: Record) -> list[Entry]:
    return entries(records, "data-topic")


def offsets(found: list[Entry]) -> list[int | None]:
    return [entry.origin.offset if entry.origin else None for entry in found]


def test_an_entry_says_what_was_parked_and_why() -> None:
    (entry,) = read(parked(41, at=7, partition=2))

    assert (entry.state, entry.reason, entry.origin) == (State.WAITING, "not_json", Origin("data-topic", 2, 41))
    assert (entry.place, entry.parked_at, entry.letters) == (Place(0, 7), DAY * 1000, 1)
    assert (entry.key, entry.value, entry.size, entry.replays) == (b"\x00key", b"{", 1, Replays())


def test_a_message_parked_again_by_a_crash_is_one_entry_at_its_last_letter() -> None:
    found = read(parked(1, at=0), parked(2, at=1), parked(1, at=2), parked(1, at=3))

    assert [(entry.place.offset, entry.letters) for entry in found] == [(3, 3), (1, 1)]


def test_a_message_that_was_sent_back_waits_no_longer_and_neither_do_its_repeats() -> None:
    found = read(parked(1, at=0), parked(2, at=1), noted(parked(1)), parked(1, at=3))

    assert [(entry.state, entry.letters) for entry in found] == [(State.SENT_BACK, 2), (State.WAITING, 1)]


def test_a_message_that_was_sent_back_and_parked_anew_waits_under_its_new_place() -> None:
    first = parked(1)
    again = parked(5, headers=sent_back(first.headers))

    found = read(first, noted(first), again)

    assert [(entry.state, entry.replays.times) for entry in found] == [(State.SENT_BACK, 0), (State.WAITING, 1)]


def test_the_namesake_in_a_topic_that_was_made_again_is_another_message() -> None:
    old, new = parked(1, timestamp=1_000), parked(1, timestamp=2_000)

    found = read(old, noted(old), new)

    assert [entry.state for entry in found] == [State.SENT_BACK, State.WAITING]


def test_what_others_put_into_the_topic_is_foreign() -> None:
    unreadable = ((TOPIC, b"data-topic"), (PARTITION, b"no number"), (OFFSET, b"1"))
    records = [
        Record("dlq", 0, 0, None, b"no headers"),
        Record("dlq", 0, 1, None, None),
        Record("dlq", 0, 2, None, b"x", unreadable),
        Record("dlq", 0, 3, None, b"x", ((TOPIC, b"orders"), (PARTITION, b"0"), (OFFSET, b"1"))),
        parked(1, at=4),
    ]

    found = read(*records)

    assert [entry.state for entry in found] == [State.FOREIGN] * 4 + [State.WAITING]
    assert offsets(found) == [None, None, None, 1, 1]


def test_an_entry_keeps_no_more_of_a_value_than_is_shown() -> None:
    (entry,) = read(parked(1, value=b"x" * 1_000_000))

    assert (len(entry.value or b""), entry.size) == (BEGINNING, 1_000_000)


ENTRIES = read(
    parked(1, at=0, parked_at=DAY + 30),
    parked(2, at=1, parked_at=DAY + 10, partition=1),
    parked(3, at=2, parked_at=DAY + 20),
    parked(4, at=3, parked_at=None),
    Record("dlq", 0, 4, None, b"foreign"),
    *(Record("dlq", 0, 5 + n, *letter(rejection((), offset=5)._replace(reason="tombstone")), 0) for n in range(1)),
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
    ],
)
def test_a_selection_gives_what_fits_it_in_the_order_of_parking(criteria: Any, expected: list[int | None]) -> None:
    assert offsets(Selection(**{"states": (State.WAITING,), **criteria}).of(ENTRIES)) == expected
