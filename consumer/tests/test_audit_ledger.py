"""Every result of the audit, on a prepared ledger."""

import json
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.audit.content import INVALID, SKIPPED, Content, contents
from src.audit.findings import MAX_EXAMPLES, Example, Findings
from src.audit.ledger import DeadLetteredMessage, Expiry, Ledger, LedgerFull, ProducedMessage
from src.audit.pages import RANGE_BITS
from src.data_processor import DataProcessor
from src.dead_letters.dead_letter import dead_letter_of, message_identity
from src.model.errors import InvalidMessage
from src.model.position import MessagePosition
from src.model.record import Record, Rejection
from src.stores.document import Identity, StoredMessage
from src.stores.validation import validated

TOPIC = "orders"
CLEAN = Findings(
    produced=0,
    stored=0,
    duplicates=0,
    superseded=0,
    deleted=0,
    dead_lettered=0,
    skipped=0,
    expired=0,
    lost=0,
    twice=0,
    repeated=0,
    other_ids=0,
    foreign_documents=0,
    foreign_dead_letters=0,
)


class World:
    """A ledger, and short methods to fill it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._dead_letters = 0

    def produced(self, offset: int, identifier: str, *, time: int | None = None, **fields: object) -> None:
        self.produced_value(offset, json.dumps({"id": identifier, **fields}).encode(), time=time)

    def produced_value(self, offset: int, value: bytes | None, *, time: int | None = None) -> None:
        [content] = contents(DataProcessor(), validated, [Record(TOPIC, 3, offset, None, value)])
        self.produced_content(offset, content, time=time)

    def produced_content(self, offset: int, content: Content, *, time: int | None = None) -> None:
        self._ledger.add_produced([(Record(TOPIC, 3, offset, None, None, timestamp=time), content)])

    def dead_lettered(self, offset: int, *, time: int | None = None) -> None:
        self.dead_lettered_from(at(offset), time)

    def dead_lettered_from(self, position: MessagePosition | None, time: int | None = None) -> None:
        dead_letter = MessagePosition("orders.dlq", 0, self._dead_letters)
        self._ledger.add_dead_lettered([DeadLetteredMessage(dead_letter, position, time)])
        self._dead_letters += 1

    def marked(self, offset: int, *, time: int | None = None, topic: str = TOPIC) -> None:
        """As replayed or discarded."""
        error = InvalidMessage("not_json", "not JSON")
        record = Record(topic, 3, offset, None, b"{", timestamp=time)
        dead_letter = dead_letter_of(Rejection(record, error.reason, "process", error, 1, 0.0, 0.0))
        self._ledger.add_replay_markers([message_identity(dead_letter.headers) or ""])

    def stored(self, offset: int, identifier: Identity, *, time: int | None = None) -> None:
        self.stored_from(at(offset), identifier, time)

    def stored_from(self, position: MessagePosition | None, identifier: Identity, time: int | None = None) -> None:
        self._ledger.add_stored([StoredMessage(identifier, position, time)])

    def findings(self, expiry: Expiry | None = None) -> Findings:
        return self._ledger.findings(expiry)


def at(offset: int) -> MessagePosition:
    return MessagePosition(TOPIC, 3, offset)


@pytest.fixture
def world() -> Iterator[World]:
    with Ledger(TOPIC) as ledger:
        yield World(ledger)


def test_an_empty_ledger_is_clean(world: World) -> None:
    assert world.findings() == CLEAN


def test_a_stored_and_a_dead_lettered_message_are_counted(world: World) -> None:
    world.produced(0, "a")
    world.stored(0, "a")
    world.produced_value(1, b"{")
    world.dead_lettered(1)

    found = world.findings()

    assert found == Findings(**{**vars(CLEAN), "produced": 2, "stored": 1, "dead_lettered": 1})


def test_a_message_that_is_neither_stored_nor_dead_lettered_is_lost(world: World) -> None:
    world.produced(0, "a")
    world.stored(0, "a")
    world.produced(1, "b")
    world.produced_value(2, None)

    found = world.findings()

    assert found.lost == 2
    assert found.lost_first == (
        Example(3, 1, "b", "neither stored nor dead-lettered"),
        Example(3, 2, None, "neither stored nor dead-lettered"),
    )


def test_the_first_twenty_lost_messages_are_listed_and_all_are_counted(world: World) -> None:
    for offset in range(MAX_EXAMPLES + 5):
        world.produced(offset, f"id-{offset}")

    found = world.findings()

    assert found.lost == MAX_EXAMPLES + 5
    assert [example.offset for example in found.lost_first] == list(range(MAX_EXAMPLES))


def test_a_gap_in_the_offsets_is_not_a_message(world: World) -> None:
    world.produced(0, "a")
    world.produced(7, "b")
    world.stored(0, "a")
    world.stored(7, "b")

    found = world.findings()

    assert (found.produced, found.stored, found.lost) == (2, 2, 0)


def test_a_message_sent_again_is_a_duplicate_and_not_lost(world: World) -> None:
    world.produced(0, "a", name="x")
    world.stored(0, "a")
    world.produced(1, "a", name="x")

    found = world.findings()

    assert (found.stored, found.duplicates, found.lost) == (1, 1, 0)


def test_a_duplicate_may_have_other_whitespace_and_another_order_of_keys(world: World) -> None:
    world.produced_value(0, b'{"id":"a","name":"x"}')
    world.stored(0, "a")
    world.produced_value(1, b'{ "name": "x", "id": "a" }')

    found = world.findings()

    assert (found.duplicates, found.lost) == (1, 0)


def test_a_duplicate_may_have_its_date_in_another_time_zone(world: World) -> None:
    world.produced(0, "a", created_at="2023-07-15T12:34:56.789Z")
    world.stored(0, "a")
    world.produced(1, "a", created_at="2023-07-15T14:34:56.789012+02:00")
    world.produced(2, "a", created_at="2023-07-15T12:34:56.789+02:00")

    found = world.findings()

    assert (found.duplicates, [example.offset for example in found.lost_first]) == (1, [2])


def test_other_content_with_a_stored_id_is_lost_unless_it_was_dead_lettered(world: World) -> None:
    world.produced(0, "a", name="x")
    world.stored(0, "a")
    world.produced(1, "a", name="another")
    world.produced(2, "a", name="a third")
    world.dead_lettered(2)

    found = world.findings()

    assert [(example.offset, example.id) for example in found.lost_first] == [(1, "a")]
    assert (found.lost, found.dead_lettered, found.twice) == (1, 1, 0)


def test_a_message_sent_again_after_retention_deleted_its_first_record_is_a_duplicate(world: World) -> None:
    world.stored(0, "a")
    world.produced(9, "a")

    found = world.findings()

    assert (found.duplicates, found.lost) == (1, 0)


def test_a_message_whose_document_has_no_position_is_not_lost(world: World) -> None:
    world.produced(0, "a")
    world.stored_from(None, "a")

    found = world.findings()

    assert (found.duplicates, found.lost, found.foreign_documents) == (1, 0, 1)


def test_stored_and_dead_lettered_from_one_offset_is_twice(world: World) -> None:
    world.produced(0, "a")
    world.stored(0, "a")
    world.dead_lettered(0)

    found = world.findings()

    assert (found.stored, found.dead_lettered, found.twice) == (1, 0, 1)
    assert found.twice_first == (Example(3, 0, "a", "stored and dead-lettered"),)


@pytest.mark.parametrize("time", [None, 1_000])
def test_a_stored_message_whose_dead_letters_were_replayed_or_discarded_is_not_twice(
    world: World, time: int | None
) -> None:
    world.produced(0, "a", time=time)
    world.stored(0, "a", time=time)
    world.marked(0, time=time)
    world.dead_lettered(0, time=time)
    world.dead_lettered(0, time=time)

    found = world.findings()

    assert (found.stored, found.dead_lettered, found.repeated, found.twice) == (1, 0, 1, 0)


def test_a_message_whose_dead_letter_was_replayed_or_discarded_is_not_lost(world: World) -> None:
    world.produced(0, "a")
    world.dead_lettered(0)
    world.marked(0)

    found = world.findings()

    assert (found.dead_lettered, found.lost, found.twice) == (1, 0, 0)


def test_a_replay_marker_without_a_dead_letter_hides_no_loss(world: World) -> None:
    world.produced(0, "a")
    world.marked(0)

    assert world.findings().lost == 1


def test_a_replay_marker_of_another_message_is_ignored(world: World) -> None:
    world.produced(0, "a", time=2_000)
    world.stored(0, "a", time=2_000)
    world.dead_lettered(0, time=2_000)
    world.marked(0, time=2_000, topic="others")
    world.marked(1, time=2_000)
    world.marked(0, time=1_000)
    world.marked(0)

    assert world.findings().twice == 1


def test_two_documents_are_twice_even_if_their_dead_letter_was_replayed_or_discarded(world: World) -> None:
    world.produced(0, "a")
    world.stored(0, "a")
    world.stored(0, "b")
    world.dead_lettered(0)
    world.marked(0)

    found = world.findings()

    assert (found.twice, found.twice_first) == (1, (Example(3, 0, "a", "2 documents"),))


def test_two_documents_from_one_offset_are_twice(world: World) -> None:
    world.produced(0, "a")
    world.stored(0, "a")
    world.stored(0, "b")

    found = world.findings()

    assert found.twice == 1
    assert found.twice_first == (Example(3, 0, "a", "2 documents"),)


def test_a_document_of_an_earlier_processing_is_that_of_its_message(world: World) -> None:
    world.produced(0, "a", time=1_000)
    world.stored(0, "another id", time=1_000)
    world.produced_content(1, SKIPPED)
    world.stored(1, "skipped now")
    world.produced_value(2, b"{")
    world.stored(2, "invalid now")

    found = world.findings()

    assert (found.stored, found.other_ids) == (3, 3)
    assert (found.lost, found.twice, found.skipped, found.foreign_documents) == (0, 0, 0, 0)


def test_a_message_sent_again_is_a_duplicate_of_a_document_of_an_earlier_processing(world: World) -> None:
    world.produced(0, "a")
    world.stored(0, "another id")
    world.produced(1, "a")
    world.produced(2, "a", name="other content")

    found = world.findings()

    assert (found.stored, found.duplicates, found.lost) == (1, 1, 1)


def test_a_document_whose_message_has_another_id_now_makes_no_duplicate_of_a_message_with_its_id(world: World) -> None:
    """Where the id is no part of the content, such as a key."""
    world.produced_content(0, ("a", 17))
    world.produced_content(1, ("b", 17))
    world.stored(1, "a")

    found = world.findings()

    assert (found.stored, found.duplicates, found.lost) == (1, 0, 1)


def test_a_skipped_message_is_neither_stored_nor_lost(world: World) -> None:
    world.produced_content(0, SKIPPED)
    world.produced(1, "lost")

    found = world.findings()

    assert (found.produced, found.skipped, found.lost) == (2, 1, 1)


def test_a_skipped_message_has_no_document(world: World) -> None:
    """Those at its position are of a former topic."""
    world.produced_content(0, SKIPPED, time=2_000)
    world.stored(0, "old", time=1_000)
    world.dead_lettered(0, time=1_000)

    found = world.findings(Expiry(deleted_before=100.0, ttl=50.0))

    assert (found.skipped, found.stored, found.lost, found.expired) == (1, 0, 0, 0)
    assert (found.foreign_documents, found.foreign_dead_letters) == (1, 1)


def test_an_integer_is_another_id_than_its_text(world: World) -> None:
    world.produced_content(0, (1, 17))
    world.produced_content(1, ("1", 17))
    world.stored(2, 1)

    found = world.findings()

    assert (found.duplicates, found.lost_first) == (1, (Example(3, 1, "1", "neither stored nor dead-lettered"),))


def test_two_documents_are_twice_even_if_retention_has_deleted_their_message(world: World) -> None:
    world.stored(0, "a")
    world.stored(0, "b")
    world.stored(1, "c")
    world.dead_lettered(1)

    found = world.findings()

    assert [(example.offset, example.id) for example in found.twice_first] == [(0, None), (1, None)]


def test_two_documents_without_a_position_are_not_twice(world: World) -> None:
    world.stored_from(None, "a")
    world.stored_from(None, "b")

    assert world.findings().twice == 0


def test_an_offset_dead_lettered_more_than_once_is_repeated_and_not_twice(world: World) -> None:
    world.produced_value(0, b"{")
    world.dead_lettered(0)
    world.dead_lettered(0)

    found = world.findings()

    assert (found.dead_lettered, found.repeated, found.twice, found.lost) == (1, 1, 0, 0)


def test_a_replayed_message_that_was_dead_lettered_before_is_stored_and_not_twice(world: World) -> None:
    world.produced(0, "a")
    world.dead_lettered(0)
    world.produced(5, "a")
    world.stored(5, "a")

    found = world.findings()

    assert (found.dead_lettered, found.stored, found.twice) == (1, 1, 0)


def test_a_message_older_than_the_ttl_without_its_document_is_expired(world: World) -> None:
    world.produced(0, "old", time=99_999)
    world.produced(1, "young", time=100_000)
    world.produced(2, "of unknown age")

    found = world.findings(Expiry(deleted_before=100.0, ttl=50.0))

    assert (found.expired, found.lost) == (1, 2)


def test_an_old_message_that_has_its_document_is_not_expired(world: World) -> None:
    world.produced(0, "a", time=1_000)
    world.stored(0, "a")
    world.produced(1, "a", time=1_000)

    found = world.findings(Expiry(deleted_before=100.0, ttl=50.0))

    assert (found.stored, found.duplicates, found.expired) == (1, 1, 0)


def test_a_message_sent_again_before_its_document_expired_is_expired_with_it(world: World) -> None:
    world.produced(0, "a", time=10_000)
    world.produced(1, "a", time=50_000)
    world.produced(2, "a", time=100_000)

    found = world.findings(Expiry(deleted_before=40.0, ttl=50.0))

    assert (found.expired, found.lost) == (2, 1)


def test_other_content_with_the_id_of_an_expired_message_is_lost(world: World) -> None:
    world.produced(0, "a", time=10_000)
    world.produced(1, "a", time=50_000, name="other")

    found = world.findings(Expiry(deleted_before=40.0, ttl=50.0))

    assert (found.expired, found.lost) == (1, 1)


@pytest.mark.parametrize(
    "position",
    [None, MessagePosition("other", 3, 0), MessagePosition(TOPIC, -1, 0), MessagePosition(TOPIC, 3, 1 << 60)],
)
def test_documents_and_dead_letters_from_elsewhere_are_foreign(world: World, position: MessagePosition | None) -> None:
    world.produced(0, "a")
    world.stored(0, "a")
    world.stored_from(position, "z")
    world.dead_lettered_from(position)

    found = world.findings()

    assert (found.foreign_documents, found.foreign_dead_letters) == (1, 1)
    assert (found.stored, found.lost, found.twice, found.repeated) == (1, 0, 0, 0)


def test_documents_and_dead_letters_of_a_recreated_topic_are_foreign(world: World) -> None:
    world.produced(0, "new", time=2_000)
    world.stored(0, "old", time=1_000)
    world.stored(0, "new", time=2_000)
    world.dead_lettered(0, time=1_500)

    found = world.findings()

    assert (found.stored, found.twice, found.repeated) == (1, 0, 0)
    assert (found.foreign_documents, found.foreign_dead_letters) == (1, 1)


def test_documents_and_dead_letters_of_a_recreated_topic_hide_no_loss(world: World) -> None:
    world.produced(0, "new", time=2_000)
    world.stored(0, "old", time=1_000)
    world.produced(1, "newer", time=2_000)
    world.dead_lettered(1, time=1_000)

    assert world.findings().lost == 2


def test_a_message_at_the_position_of_a_dead_letter_of_a_former_topic_is_counted_once(world: World) -> None:
    world.produced(0, "a", time=2_000)
    world.stored(0, "a", time=2_000)
    world.dead_lettered(0, time=1_000)
    world.produced(1, "a")

    found = world.findings()

    assert (found.produced, found.stored, found.duplicates, found.foreign_dead_letters) == (2, 1, 1, 1)


def test_recreated_topics_are_distinguished_without_their_records(world: World) -> None:
    world.stored(0, "first", time=1_000)
    world.dead_lettered(0, time=2_000)
    world.stored(1, "first", time=1_000)
    world.stored(1, "second", time=2_000)
    world.dead_lettered(2, time=1_000)
    world.dead_lettered(2, time=2_000)

    found = world.findings()

    assert (found.twice, found.repeated) == (0, 0)


def test_without_a_timestamp_the_position_alone_counts(world: World) -> None:
    world.produced(0, "a", time=2_000)
    world.stored(0, "a")
    world.dead_lettered(0)

    found = world.findings()

    assert (found.stored, found.twice, found.foreign_documents) == (1, 1, 0)


def test_messages_of_other_partitions_are_distinguished() -> None:
    with Ledger(TOPIC) as ledger:
        ledger.add_produced([(Record(TOPIC, p, 5, None, b""), (str(p), 1)) for p in range(3)])
        ledger.add_stored([StoredMessage("1", MessagePosition(TOPIC, 1, 5))])

        found = ledger.findings()

    assert [(example.partition, example.offset, example.id) for example in found.lost_first] == [
        (0, 5, "0"),
        (2, 5, "2"),
    ]


def test_adding_a_document_again_changes_nothing(world: World) -> None:
    world.produced(0, "a")
    for _ in range(2):
        world.stored(0, "a")

    found = world.findings()

    assert (found.produced, found.stored, found.twice) == (1, 1, 0)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
    | st.uuids().map(str)
    | st.uuids().map(lambda u: str(u).upper())
)
def test_every_id_is_reported_unchanged(identifier: str) -> None:
    with Ledger(TOPIC) as ledger:
        world = World(ledger)
        world.produced(0, identifier)

        found = world.findings()

    assert [example.id for example in found.lost_first] == [identifier]


def test_a_text_with_the_bytes_of_a_uuid_is_another_id(world: World) -> None:
    text = "0123456789abcdef"
    uuid = str(UUID(bytes=text.encode()))
    world.produced(0, uuid)
    world.stored(1, text)

    assert world.findings().lost == 1


@given(st.binary())
def test_a_message_may_have_any_bytes(value: bytes) -> None:
    with Ledger(TOPIC) as ledger:
        world = World(ledger)
        world.produced_value(0, value)
        world.dead_lettered(0)

        assert world.findings().dead_lettered == 1


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
def test_a_message_that_cannot_be_parsed_can_be_lost(world: World, value: bytes) -> None:
    world.produced_value(0, value)

    assert world.findings().lost == 1


def test_an_invalid_message_has_no_id(world: World) -> None:
    world.produced(0, "a", created_at="yesterday")

    assert [example.id for example in world.findings().lost_first] == [None]


def test_without_temporary_files_the_ledger_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")

    with Ledger(TOPIC) as ledger:
        world = World(ledger)
        world.produced(0, "a")

        assert ledger.in_memory
        assert world.findings().lost == 1


def test_a_full_disk_is_an_error() -> None:
    def rows() -> Iterator[ProducedMessage]:
        yield Record(TOPIC, 3, 0, None, b"{}"), INVALID
        raise sqlite3.OperationalError("database or disk is full")

    with Ledger(TOPIC) as ledger, pytest.raises(LedgerFull, match=r"disk is full.*SQLITE_TMPDIR"):
        ledger.add_produced(rows())


class Message(NamedTuple):
    """A skipped one has neither id nor content."""

    id: Identity | None
    content: int | None
    time: int | None


class Copy(NamedTuple):
    """A document or dead letter."""

    offset: int
    time: int | None
    id: Identity = ""


IDS = st.sampled_from(["a", "b", "c", "1", 1, -1])
TIMES = st.sampled_from([None, 1_000, 2_000])
BOUNDARY = 1 << RANGE_BITS
OFFSETS = st.sampled_from([0, 1, 2, BOUNDARY - 1, BOUNDARY, BOUNDARY + 1])
MESSAGES = st.dictionaries(
    OFFSETS, st.builds(Message, IDS, st.integers(0, 1), TIMES) | st.builds(Message, st.none(), st.none(), TIMES)
)
COPIES = st.lists(st.builds(Copy, OFFSETS, TIMES, IDS), max_size=5, unique_by=lambda copy: copy.id)


LETTERS = st.lists(st.builds(Copy, OFFSETS, TIMES, st.just("")), max_size=3)


@given(MESSAGES, COPIES, LETTERS, LETTERS, st.sets(OFFSETS))
def test_the_findings_are_those_of_their_definitions(
    messages: dict[int, Message],
    documents: list[Copy],
    letters: list[Copy],
    marked: list[Copy],
    settled: set[int],
) -> None:
    """Also for neighbours of messages that have their documents, and of such messages themselves."""
    own = [Copy(offset, each.time, each.id) for offset, each in messages.items() if offset in settled and each.id]
    documents = list({document.id: document for document in documents + own}.values())

    with Ledger(TOPIC) as ledger:
        world = World(ledger)
        for offset, each in messages.items():
            world.produced_content(offset, (each.id, each.content), time=each.time)
        for letter in letters:
            world.dead_lettered(letter.offset, time=letter.time)
        for letter in marked:
            world.marked(letter.offset, time=letter.time)
        for document in documents:
            world.stored(document.offset, document.id, time=document.time)
        found = world.findings()

    assert found.produced == len(messages)
    assert {name: getattr(found, name) for name in DEFINED} == defined(messages, documents, letters, marked)


DEFINED = ("stored", "duplicates", "dead_lettered", "skipped", "lost", "twice", "other_ids")


def defined(
    messages: dict[int, Message], documents: list[Copy], letters: list[Copy], marked: list[Copy]
) -> dict[str, int]:
    """The numbers of messages and documents, one by one."""

    def is_current(copy: Copy) -> bool:
        times = {copy.time, messages[copy.offset].time} if copy.offset in messages else set()
        return len(times - {None}) < 2

    def is_same(document: Copy, message: Message) -> bool:
        own = messages.get(document.offset) if is_current(document) else None
        if own is None or own.content is None:
            return document.id == message.id
        return own[:2] == message[:2]

    current = [document for document in documents if is_current(document)]
    current_letters = [letter for letter in letters if is_current(letter)]
    stored = messages.keys() & {document.offset for document in current}
    dead_lettered = messages.keys() & {letter.offset for letter in current_letters} - stored
    missing = [message for offset, message in messages.items() if offset not in stored | dead_lettered]
    expected = [message for message in missing if message.content is not None]
    duplicates = sum(any(is_same(document, message) for document in documents) for message in expected)
    places = Counter((document.offset, document.time) for document in current)
    twice = {offset for (offset, _), number in places.items() if number > 1} | {
        each.offset
        for each in current
        for letter in current_letters
        if letter not in marked
        if each.offset == letter.offset and len({each.time, letter.time} - {None}) < 2
    }
    numbers = (
        len(stored),
        duplicates,
        len(dead_lettered),
        len(missing) - len(expected),
        len(expected) - duplicates,
        len(twice),
        sum(each.offset in messages and each.id != messages[each.offset].id for each in current),
    )
    return dict(zip(DEFINED, numbers, strict=True))
