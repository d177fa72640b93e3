"""What the audit finds where newer messages replace the documents of older ones, or delete them."""

from collections.abc import Iterable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.audit.content import TOMBSTONE, contents
from src.audit.findings import Example, Findings
from src.audit.ledger import DeadLetteredMessage, Ledger
from src.data_processor import DataProcessor
from src.model.position import MessagePosition
from src.model.record import Record
from src.stores.document import StoredMessage

TOPIC = "accounts"


class Update(NamedTuple):
    """A message that replaces the document of its id, or a tombstone."""

    partition: int
    offset: int
    time: int
    id: str
    is_tombstone: bool

    @property
    def position(self) -> MessagePosition:
        return MessagePosition(TOPIC, self.partition, self.offset)


Documents = Mapping[str, Update]
"""By id, the update that decided on the document last."""


def is_newer(update: Update, other: Update) -> bool:
    if update.partition == other.partition:
        return update.offset > other.offset
    return update.time > other.time


def applied(updates: Iterable[Update]) -> dict[str, Update]:
    """What a store has in the end. A deleted document is remembered."""
    documents: dict[str, Update] = {}
    for update in updates:
        if update.id not in documents or is_newer(update, documents[update.id]):
            documents[update.id] = update
    return documents


def audited(
    updates: Sequence[Update],
    documents: Documents,
    *,
    markers: bool = False,
    dead_lettered: Iterable[Update] = (),
    foreign: Iterable[StoredMessage] = (),
    ends: Mapping[int, int] = MappingProxyType({}),
) -> Findings:
    """With `markers` a deleted document is still in the store, marked as deleted."""
    with Ledger(TOPIC, upserts=True) as ledger:
        for number, each in enumerate(updates):
            record = Record(TOPIC, each.partition, each.offset, None, None, timestamp=each.time)
            ledger.add_produced([(record, (each.id, TOMBSTONE if each.is_tombstone else 100 + number))])
        for number, each in enumerate(dead_lettered):
            dead_letter = MessagePosition("accounts.dlq", 0, number)
            ledger.add_dead_lettered([DeadLetteredMessage(dead_letter, each.position, each.time)])
        for each in documents.values():
            if markers or not each.is_tombstone:
                ledger.add_stored([StoredMessage(each.id, each.position, each.time)])
        ledger.add_stored(foreign)
        return ledger.findings(ends=ends)


@st.composite
def histories(draw: st.DrawFn) -> list[Update]:
    """The times of a partition do not decrease, and are of no other partition."""
    updates = []
    for partition in range(2):
        ids_and_kinds = draw(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=6))
        times = sorted(draw(st.sets(st.integers(0, 20), min_size=len(ids_and_kinds), max_size=len(ids_and_kinds))))
        for offset, ((identifier, is_tombstone), time) in enumerate(zip(ids_and_kinds, times, strict=True)):
            updates.append(Update(partition, offset, 1_000 + 2 * time + partition, identifier, is_tombstone))
    return updates


@given(histories(), st.randoms(use_true_random=False), st.booleans())
def test_a_store_in_which_the_newest_decides_passes_in_whatever_order_messages_arrive_again(
    updates: list[Update], random: Random, markers: bool
) -> None:
    arrivals = random.choices(updates, k=len(updates)) + random.sample(updates, len(updates)) if updates else []

    found = audited(updates, applied(arrivals), markers=markers)

    assert (found.lost, found.twice) == (0, 0)
    assert found.stored + found.superseded + found.deleted == found.produced == len(updates)
    assert found.deleted == sum(each.is_tombstone for each in applied(updates).values())


@given(histories().filter(bool), st.data(), st.booleans())
def test_a_store_that_drops_the_newest_update_of_an_id_is_found(
    updates: list[Update], data: st.DataObject, markers: bool
) -> None:
    documents = applied(updates)
    newest = data.draw(st.sampled_from(list(documents.values())))
    before = applied(update for update in updates if update != newest)
    dropped = {identifier: each for identifier, each in (documents | before).items() if each != newest}

    found = audited(updates, dropped, markers=markers)

    kept = dropped.get(newest.id)
    invisible = newest.is_tombstone and (kept is None or (kept.is_tombstone and not markers))
    assert (found.lost, [each.id for each in found.lost_first]) == ((0, []) if invisible else (1, [newest.id]))


@given(histories(), st.booleans())
def test_a_store_that_keeps_a_deleted_document_is_found(updates: list[Update], markers: bool) -> None:
    kept = applied(update for update in updates if not update.is_tombstone)
    deleted = {each.id for each in applied(updates).values() if each.is_tombstone and each.id in kept}

    found = audited(updates, kept, markers=markers)

    assert {each.id for each in found.lost_first} == deleted
    assert found.lost == len(deleted)


@given(histories())
def test_a_store_in_which_the_last_arrival_wins_is_found(updates: list[Update]) -> None:
    newest = applied(updates)
    last = {update.id: update for update in reversed(updates)}

    found = audited(updates, last)

    wrong = {each.id for each in newest.values() if last[each.id] != each}
    same = {name for name in wrong if newest[name].is_tombstone and last[name].is_tombstone}
    assert {each.id for each in found.lost_first} == wrong - same


def test_a_dead_lettered_update_replaces_nothing() -> None:
    found = audited([FIRST, SECOND], {}, dead_lettered=[SECOND])

    assert (found.dead_lettered, found.superseded, found.lost) == (1, 0, 1)


def test_an_update_whose_successor_is_no_longer_in_the_topic_or_not_yet_committed_is_superseded() -> None:
    found = audited([FIRST], {"a": SECOND})

    assert (found.superseded, found.lost) == (1, 0)


FIRST = Update(0, 0, 1_000, "a", False)
SECOND = Update(0, 1, 1_001, "a", False)


def test_a_lost_update_is_described() -> None:
    found = audited([FIRST, SECOND], {"a": FIRST})

    assert found.lost_first == (Example(0, 1, "a", "the store has an older record of its id"),)


@pytest.mark.parametrize(
    ("position", "time", "lost"),
    [
        (None, 9_000, 1),
        (MessagePosition("another", 0, 7), 999, 1),
        (MessagePosition("another", 0, 7), 1_001, 0),
        (MessagePosition(TOPIC, 0, 7), 9_000, 1),
    ],
    ids=["no coordinates", "older", "newer", "beyond the end of the partition"],
)
def test_a_document_that_is_not_from_the_topic_supersedes_what_is_older(
    position: MessagePosition | None, time: int, lost: int
) -> None:
    found = audited([FIRST], {}, foreign=[StoredMessage("a", position, time)], ends={0: 2})

    assert (found.lost, found.superseded) == (lost, 1 - lost)


def test_a_document_of_the_former_topic_supersedes_nothing() -> None:
    """Its larger offset keeps the new records of its id out, until theirs are as large."""
    former = StoredMessage("a", SECOND.position, 9_000)

    found = audited([FIRST, SECOND._replace(id="b")], {}, foreign=[former, StoredMessage("b", SECOND.position, 1_001)])

    assert [each.id for each in found.lost_first] == ["a"]


class Deleting(DataProcessor):
    def process(self, record: Record) -> dict[str, Any] | None:
        return {"_id": (record.key or b"").decode()} if record.value is None else super().process(record)


def test_a_tombstone_that_is_processed_to_a_document_is_a_deletion() -> None:
    records = [Record(TOPIC, 0, 0, b"a", None), Record(TOPIC, 0, 1, b"a", b'{"id": "b"}')]

    deletion, document = contents(Deleting(), dict, records)

    assert deletion == ("a", TOMBSTONE)
    assert document[0] == "b"
    assert document[1] not in (TOMBSTONE, None)


@pytest.mark.parametrize("time", [None, 1_000])
def test_without_a_timestamp_a_record_is_older_than_those_of_other_partitions(time: int | None) -> None:
    with Ledger(TOPIC, upserts=True) as ledger:
        for partition, timestamp in ((0, time), (1, 1_000)):
            record = Record(TOPIC, partition, 0, None, None, timestamp=timestamp)
            ledger.add_produced([(record, ("a", 100 + partition))])
        ledger.add_stored([StoredMessage("a", MessagePosition(TOPIC, 0, 0), time)])
        found = ledger.findings()

    assert [each.partition for each in found.lost_first] == [1]


def test_the_messages_of_an_id_that_is_updated_often_are_compared_in_linear_time() -> None:
    updates = [Update(0, offset, 1_000 + offset, "a", False) for offset in range(20_000)]

    found = audited(updates, {"a": updates[-1]})

    assert (found.stored, found.superseded) == (1, len(updates) - 1)
