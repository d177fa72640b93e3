"""What the audit concludes from what it has read: each verdict on a prepared ledger."""

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.audit.ledger import EXAMPLES, Example, Expiry, Findings, Ledger, NoRoom, Place

TOPIC = "orders"
CLEAN = Findings(
    produced=0,
    stored=0,
    duplicates=0,
    dead_lettered=0,
    expired=0,
    lost=0,
    twice=0,
    repeated=0,
    foreign_documents=0,
    foreign_letters=0,
)


class Books:
    """A ledger, and short words for what is put into it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._letters = 0

    def produced(self, offset: int, identifier: str, *, time: int | None = None, **fields: object) -> None:
        self.produced_value(offset, json.dumps({"id": identifier, **fields}).encode(), time=time)

    def produced_value(self, offset: int, value: bytes | None, *, time: int | None = None) -> None:
        self._ledger.add_produced([(at(offset, time), value)])

    def parked(self, offset: int, *, time: int | None = None) -> None:
        self.parked_from(at(offset, time))

    def parked_from(self, origin: Place | None) -> None:
        self._ledger.add_parked([(Place("orders.dlq", 0, self._letters), origin)])
        self._letters += 1

    def stored(self, offset: int, identifier: object, *, time: int | None = None) -> None:
        self.stored_from(at(offset, time), identifier)

    def stored_from(self, origin: Place | None, identifier: object) -> None:
        self._ledger.add_stored([(identifier, origin)])

    def findings(self, expiry: Expiry | None = None) -> Findings:
        return self._ledger.findings(expiry)


def at(offset: int, time: int | None = None) -> Place:
    return Place(TOPIC, 3, offset, time)


@pytest.fixture
def books() -> Iterator[Books]:
    with Ledger(TOPIC) as ledger:
        yield Books(ledger)


def test_an_empty_ledger_is_clean(books: Books) -> None:
    assert books.findings() == CLEAN


def test_a_stored_and_a_parked_message_are_accounted_for(books: Books) -> None:
    books.produced(0, "a")
    books.stored(0, "a")
    books.produced_value(1, b"{")
    books.parked(1)

    found = books.findings()

    assert found == Findings(**{**vars(CLEAN), "produced": 2, "stored": 1, "dead_lettered": 1})


def test_a_message_in_neither_place_is_lost_and_named(books: Books) -> None:
    books.produced(0, "a")
    books.stored(0, "a")
    books.produced(1, "b")
    books.produced_value(2, None)

    found = books.findings()

    assert found.lost == 2
    assert found.lost_first == (
        Example(3, 1, "b", "neither stored nor dead-lettered"),
        Example(3, 2, None, "neither stored nor dead-lettered"),
    )


def test_the_first_twenty_lost_are_named_and_all_are_counted(books: Books) -> None:
    for offset in range(EXAMPLES + 5):
        books.produced(offset, f"id-{offset}")

    found = books.findings()

    assert found.lost == EXAMPLES + 5
    assert [example.offset for example in found.lost_first] == list(range(EXAMPLES))


def test_a_gap_in_the_offsets_is_no_message(books: Books) -> None:
    books.produced(0, "a")
    books.produced(7, "b")
    books.stored(0, "a")
    books.stored(7, "b")

    found = books.findings()

    assert (found.produced, found.stored, found.lost) == (2, 2, 0)


def test_a_message_sent_again_is_a_duplicate_and_not_lost(books: Books) -> None:
    books.produced(0, "a", name="x")
    books.stored(0, "a")
    books.produced(1, "a", name="x")

    found = books.findings()

    assert (found.stored, found.duplicates, found.lost) == (1, 1, 0)


def test_a_duplicate_may_be_written_with_other_blanks_and_another_order_of_keys(books: Books) -> None:
    books.produced_value(0, b'{"id":"a","name":"x"}')
    books.stored(0, "a")
    books.produced_value(1, b'{ "name": "x", "id": "a" }')

    found = books.findings()

    assert (found.duplicates, found.lost) == (1, 0)


def test_a_duplicate_may_have_its_date_in_another_zone(books: Books) -> None:
    books.produced(0, "a", created_at="2023-07-15T12:34:56.789Z")
    books.stored(0, "a")
    books.produced(1, "a", created_at="2023-07-15T14:34:56.789012+02:00")
    books.produced(2, "a", created_at="2023-07-15T12:34:56.789+02:00")

    found = books.findings()

    assert (found.duplicates, [example.offset for example in found.lost_first]) == (1, [2])


def test_other_content_under_a_stored_id_is_lost_unless_it_was_parked(books: Books) -> None:
    books.produced(0, "a", name="x")
    books.stored(0, "a")
    books.produced(1, "a", name="another")
    books.produced(2, "a", name="a third")
    books.parked(2)

    found = books.findings()

    assert [(example.offset, example.id) for example in found.lost_first] == [(1, "a")]
    assert (found.lost, found.dead_lettered, found.twice) == (1, 1, 0)


def test_a_message_sent_again_after_its_first_record_is_gone_is_a_duplicate(books: Books) -> None:
    books.stored(0, "a")
    books.produced(9, "a")

    found = books.findings()

    assert (found.duplicates, found.lost) == (1, 0)


def test_a_message_whose_document_names_no_origin_is_not_lost(books: Books) -> None:
    books.produced(0, "a")
    books.stored_from(None, "a")

    found = books.findings()

    assert (found.duplicates, found.lost, found.foreign_documents) == (1, 0, 1)


def test_stored_and_parked_from_one_offset_is_twice(books: Books) -> None:
    books.produced(0, "a")
    books.stored(0, "a")
    books.parked(0)

    found = books.findings()

    assert (found.stored, found.dead_lettered, found.twice) == (1, 0, 1)
    assert found.twice_first == (Example(3, 0, "a", "stored and dead-lettered"),)


def test_two_documents_from_one_offset_are_twice(books: Books) -> None:
    books.produced(0, "a")
    books.stored(0, "a")
    books.stored(0, "b")

    found = books.findings()

    assert found.twice == 1
    assert found.twice_first == (Example(3, 0, "a", "2 documents, stored under another id"),)


@pytest.mark.parametrize("made_up", ["0b0f5f0e-7f6d-4a1e-9c55-0123456789ab", "A", 17, b"\x00\x01"])
def test_a_consumer_that_makes_ids_of_its_own_is_caught(books: Books, made_up: object) -> None:
    books.produced(0, "a")
    books.stored(0, made_up)

    found = books.findings()

    assert (found.twice, found.lost) == (1, 0)
    assert found.twice_first == (Example(3, 0, "a", "stored under another id"),)


def test_two_documents_are_twice_even_after_their_message_is_gone_from_the_topic(books: Books) -> None:
    books.stored(0, "a")
    books.stored(0, "b")
    books.stored(1, "c")
    books.parked(1)

    found = books.findings()

    assert [(example.offset, example.id) for example in found.twice_first] == [(0, None), (1, None)]


def test_two_documents_without_an_origin_are_not_twice(books: Books) -> None:
    books.stored_from(None, "a")
    books.stored_from(None, "b")

    assert books.findings().twice == 0


def test_an_offset_parked_more_than_once_is_repeated_and_no_fault(books: Books) -> None:
    books.produced_value(0, b"{")
    books.parked(0)
    books.parked(0)

    found = books.findings()

    assert (found.dead_lettered, found.repeated, found.twice, found.lost) == (1, 1, 0, 0)


def test_a_replayed_message_that_was_parked_before_is_stored_and_not_twice(books: Books) -> None:
    books.produced(0, "a")
    books.parked(0)
    books.produced(5, "a")
    books.stored(5, "a")

    found = books.findings()

    assert (found.dead_lettered, found.stored, found.twice) == (1, 1, 0)


def test_a_message_older_than_the_ttl_without_its_document_is_expired(books: Books) -> None:
    books.produced(0, "old", time=99_999)
    books.produced(1, "young", time=100_000)
    books.produced(2, "of unknown age")

    found = books.findings(Expiry(before=100.0, lifetime=50.0))

    assert (found.expired, found.lost) == (1, 2)


def test_an_old_message_that_has_its_document_is_not_expired(books: Books) -> None:
    books.produced(0, "a", time=1_000)
    books.stored(0, "a")
    books.produced(1, "a", time=1_000)

    found = books.findings(Expiry(before=100.0, lifetime=50.0))

    assert (found.stored, found.duplicates, found.expired) == (1, 1, 0)


def test_a_message_sent_again_before_its_document_expired_is_expired_with_it(books: Books) -> None:
    books.produced(0, "a", time=10_000)
    books.produced(1, "a", time=50_000)
    books.produced(2, "a", time=100_000)

    found = books.findings(Expiry(before=40.0, lifetime=50.0))

    assert (found.expired, found.lost) == (2, 1)


def test_other_content_under_the_id_of_an_expired_message_is_lost(books: Books) -> None:
    books.produced(0, "a", time=10_000)
    books.produced(1, "a", time=50_000, name="other")

    found = books.findings(Expiry(before=40.0, lifetime=50.0))

    assert (found.expired, found.lost) == (1, 1)


@pytest.mark.parametrize("origin", [None, Place("other", 3, 0), Place(TOPIC, -1, 0), Place(TOPIC, 3, 1 << 60)])
def test_documents_and_letters_of_another_origin_are_foreign(books: Books, origin: Place | None) -> None:
    books.produced(0, "a")
    books.stored(0, "a")
    books.stored_from(origin, "z")
    books.parked_from(origin)

    found = books.findings()

    assert (found.foreign_documents, found.foreign_letters) == (1, 1)
    assert (found.stored, found.lost, found.twice, found.repeated) == (1, 0, 0, 0)


def test_what_a_former_topic_of_this_name_left_is_foreign(books: Books) -> None:
    books.produced(0, "new", time=2_000)
    books.stored(0, "old", time=1_000)
    books.stored(0, "new", time=2_000)
    books.parked(0, time=1_500)

    found = books.findings()

    assert (found.stored, found.twice, found.repeated) == (1, 0, 0)
    assert (found.foreign_documents, found.foreign_letters) == (1, 1)


def test_what_a_former_topic_left_hides_no_loss(books: Books) -> None:
    books.produced(0, "new", time=2_000)
    books.stored(0, "old", time=1_000)
    books.produced(1, "newer", time=2_000)
    books.parked(1, time=1_000)

    assert books.findings().lost == 2


def test_topics_of_one_name_are_told_apart_where_the_records_are_gone(books: Books) -> None:
    books.stored(0, "first", time=1_000)
    books.parked(0, time=2_000)
    books.stored(1, "first", time=1_000)
    books.stored(1, "second", time=2_000)
    books.parked(2, time=1_000)
    books.parked(2, time=2_000)

    found = books.findings()

    assert (found.twice, found.repeated) == (0, 0)


def test_where_a_time_is_not_told_the_place_alone_counts(books: Books) -> None:
    books.produced(0, "a", time=2_000)
    books.stored(0, "a")
    books.parked(0)

    found = books.findings()

    assert (found.stored, found.twice, found.foreign_documents) == (1, 1, 0)


def test_messages_of_other_partitions_are_told_apart(books: Books) -> None:
    with Ledger(TOPIC) as ledger:
        ledger.add_produced([(Place(TOPIC, p, 5), f'{{"id":"{p}"}}'.encode()) for p in range(3)])
        ledger.add_stored([("1", Place(TOPIC, 1, 5))])

        found = ledger.findings()

    assert [(example.partition, example.offset, example.id) for example in found.lost_first] == [
        (0, 5, "0"),
        (2, 5, "2"),
    ]


def test_reading_a_message_or_a_document_again_changes_nothing(books: Books) -> None:
    for _ in range(2):
        books.produced(0, "a")
        books.stored(0, "a")

    found = books.findings()

    assert (found.produced, found.stored, found.twice) == (1, 1, 0)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
    | st.uuids().map(str)
    | st.uuids().map(lambda u: str(u).upper())
)
def test_every_id_comes_back_as_it_was_sent(identifier: str) -> None:
    with Ledger(TOPIC) as ledger:
        books = Books(ledger)
        books.produced(0, identifier)

        found = books.findings()

    assert [example.id for example in found.lost_first] == [identifier]


def test_a_text_of_the_same_bytes_is_not_the_uuid(books: Books) -> None:
    text = "0123456789abcdef"
    uuid = str(UUID(bytes=text.encode()))
    books.produced(0, uuid)
    books.stored(1, text)

    assert books.findings().lost == 1


@given(st.binary())
def test_any_bytes_may_be_in_the_topic(value: bytes) -> None:
    with Ledger(TOPIC) as ledger:
        books = Books(ledger)
        books.produced_value(0, value)
        books.parked(0)

        assert books.findings().dead_lettered == 1


@pytest.mark.parametrize(
    "value",
    [
        b"[" * 100_000,
        b'{"id":"\\ud800"}',
        b'{"id":"a","n":' + b"9" * 5_000 + b"}",
        b'{"id":1}',
        b"[]",
        b"1e999",
        b'{"id":"a","created_at":"yesterday"}',
    ],
)
def test_payloads_that_break_parsers_are_messages_like_others(books: Books, value: bytes) -> None:
    books.produced_value(0, value)

    assert books.findings().lost == 1


def test_a_message_that_can_not_be_stored_is_still_known_by_its_id(books: Books) -> None:
    books.produced(0, "a", created_at="yesterday")

    assert [example.id for example in books.findings().lost_first] == ["a"]


def test_without_a_place_for_temporary_files_the_ledger_is_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")

    with Ledger(TOPIC) as ledger:
        books = Books(ledger)
        books.produced(0, "a")

        assert ledger.in_memory
        assert books.findings().lost == 1


def test_a_full_disk_is_said_in_one_sentence(books: Books) -> None:
    def rows() -> Iterator[tuple[Place, bytes]]:
        yield at(0), b"{}"
        raise sqlite3.OperationalError("database or disk is full")

    with Ledger(TOPIC) as ledger, pytest.raises(NoRoom, match=r"disk is full.*SQLITE_TMPDIR"):
        ledger.add_produced(rows())
