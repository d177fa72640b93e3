"""What DataStorage guarantees with every store. A subclass has the fixtures `storage`, `store`, its empty store, and
`keyed_store`, an empty store whose documents have the key as `_id`.
"""

from collections.abc import Sequence
from copy import deepcopy
from datetime import UTC, datetime, timedelta, timezone
from itertools import chain
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from src.model.errors import StorageUnavailable
from src.model.position import MessagePosition
from src.model.record import Record
from src.model.verdict import DUPLICATE, STORED, Outcome
from src.settings import DocumentSettings
from src.storage import DataStorage, Store, StoredMessage, UnsupportedQuery
from src.stores.document import Document, DocumentBatch, SpecifiedMessage, ValidDocument, epoch_milliseconds
from src.stores.order import Overwrites, is_older
from src.stores.store import Write
from tests.histories import COORDINATES, History, batch_of, histories, keyed

Message = dict[str, Any]

DAY = datetime(2023, 7, 15, 12, 34, 56, 789000, tzinfo=UTC)


def message(identity: str = "1", **fields: Any) -> Message:
    return {
        "id": identity,
        "name": "item_12345678",
        "created_at": "2023-07-15T12:34:56.789Z",
        "metadata": {"source": "system-a", "version": "1.0.0"},
        **fields,
    }


def origin(offset: int, partition: int = 0) -> Message:
    return {"topic": "t", "partition": partition, "offset": offset, "timestamp": DAY, "received_at": DAY}


def at(offset: int) -> Record:
    return Record("t", 0, offset, None, b"", timestamp=1_689_424_496_789)


def processed(ids: str, *records: Record, **fields: Any) -> DocumentBatch:
    return DocumentBatch([{"id": each, **fields} for each in ids.split()], records, 1_689_424_496_789)


def in_order(store: Store) -> list[Document]:
    return list(store.find({}, None, [("id", 1)]))


def save(store: Store, mode: str, messages: Sequence[tuple[int, int, Message | None]]) -> list[str]:
    """The outcomes of messages with the key 1, given as partition, offset and fields."""
    storage = DataStorage({}, keyed(mode), store=store)
    return [verdict.outcome.name for verdict in storage.save_valid(batch_of([("1", *each) for each in messages]))]


def contents(store: Store) -> dict[Any, Message]:
    storage = DataStorage({}, keyed("replace"), store=store)
    return {
        found["_id"]: {name: value for name, value in found.items() if name not in ("_id", "kafka")}
        for found in storage.get({})
    }


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"x": value}
    return value


INVALID = {
    "an unsigned integer of 64 bits": ("integer_out_of_range", {"x": 2**63}),
    "an integer of 100 digits": ("integer_out_of_range", {"x": [10**100]}),
    "an integer below the minimum": ("integer_out_of_range", {"x": -(2**63) - 1}),
    "not a number": ("number_out_of_range", {"x": float("nan")}),
    "infinity": ("number_out_of_range", {"x": {"y": float("-inf")}}),
    "a NUL in a key": ("invalid_key", {"x": {"a\0b": 1}}),
    "a key that is not a string": ("invalid_key", {"x": {1: 2}}),
    "a lone surrogate in a string": ("invalid_string", {"x": "\ud800"}),
    "a lone surrogate in a key": ("invalid_key", {"\udfff": 1}),
    "101 levels": ("nesting_too_deep", {"x": nested(100)}),
    "10,000 levels": ("nesting_too_deep", {"x": nested(10_000)}),
    "17 MB": ("document_too_large", {"x": "x" * 17_000_000}),
    "16 MiB with the field kafka": ("document_too_large", {"x": "x" * (16 * 1024 * 1024 - 300)}),
    "bytes": ("not_encodable", {"x": b"x"}),
    "a set": ("not_encodable", {"x": {1}}),
    "a date without a time": ("not_encodable", {"x": DAY.date()}),
    "a datetime without a zone": ("invalid_date", {"x": [DAY.replace(tzinfo=None)]}),
    "a datetime before the year 1 in UTC": (
        "invalid_date",
        {"x": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))},
    ),
    "_id": ("reserved_field", {"_id": "1"}),
    "an id that is a float": ("invalid_id", {"id": 1.0}),
    "an id that is a boolean": ("invalid_id", {"id": True}),
    "an id of more than 64 bits": ("invalid_id", {"id": 2**63}),
    "an empty id": ("invalid_id", {"id": ""}),
    "not a date": ("invalid_created_at", {"created_at": "yesterday"}),
    "null instead of a date": ("invalid_created_at", {"created_at": None}),
    "a date without a zone": ("invalid_created_at", {"created_at": "2023-07-15T12:34:56"}),
    "a leap second": ("invalid_created_at", {"created_at": "2016-12-31T23:59:60Z"}),
    "a date before the year 1 in UTC": ("invalid_created_at", {"created_at": "0001-01-01T00:00:00+14:00"}),
    "a date after the year 9999 in UTC": ("invalid_created_at", {"created_at": "9999-12-31T23:59:59-01:00"}),
}

VALID: dict[str, Message] = {
    "the maximum and minimum integer": {"x": [2**63 - 1, -(2**63)]},
    "minus zero and the extreme floats": {"x": [-0.0, 5e-324, 1.7976931348623157e308, 1e22]},
    "100 levels": {"x": nested(99)},
    "dots and dollars in keys": {"kubernetes.io/config": 1, "$schema": "x", "x": {"$a.b": {"c.d": 1}}, "": 1},
    "objects that look like references": {"x": {"$ref": "#/a", "$id": "b"}, "y": {"$ref": 5, "$id": 1, "$db": 2}},
    "objects that look like extended JSON": {"x": {"$date": "2023-07-15"}, "y": {"$oid": "0"}},
    "unusual strings": {"x": ["\0", "\x1b[31m", "\u202e", "\u2028\u0085", "\U0001f4a9", "\ufeff", "';--", "e\u0301"]},
    "a name of another type": {"name": ["a", "b"], "metadata": "none"},
    "only the id": {},
}

CORPUS: dict[str, Message] = {
    "nested": {"metadata": {"a": {"b": 1}}},
    "dotted": {"metadata": {"a.b": 1}},
    "true": {"x": True},
    "one": {"x": 1},
    "float": {"x": 1.0},
    "two": {"x": 2},
    "null": {"x": None},
    "text": {"x": "1"},
    "list": {"x": [1, "z"]},
    "empty_list": {"x": []},
    "object": {"x": {"y": 1}},
    "quote": {'it\'s "x"': 1},
    "objects": {"l": [{"b": 1}, {"b": 3}, {}]},
    "named": {"name": "n", "created_at": "2023-07-15T12:34:56.789Z"},
    "names": {"name": ["n", "m"], "created_at": "2024-01-01T00:00:00Z", "metadata": {"source": ["s"]}},
    "source": {"created_at": "2025-01-01T00:00:00+01:00", "metadata": {"source": "s"}},
}
WITHOUT_X = "nested dotted quote objects named names source"

QUERIES: list[tuple[Message, str]] = [
    ({"metadata.a.b": 1}, "nested"),
    ({"x": 1}, "one float list"),
    ({"x": True}, "true"),
    ({"x": "1"}, "text"),
    ({"x": None}, f"null {WITHOUT_X}"),
    ({"x": {"$exists": False}}, WITHOUT_X),
    ({"x": {"$exists": True}}, "true one float two null text list empty_list object"),
    ({"x": {"$in": [2, None]}}, f"two null {WITHOUT_X}"),
    ({"x": {"$in": []}}, ""),
    ({"x": {"$nin": [1, None]}}, "true two text empty_list object"),
    ({"x": {"$eq": 1}}, "one float list"),
    ({"x": {"$ne": 1}}, f"true two null text empty_list object {WITHOUT_X}"),
    ({"x": {"$gt": 1}}, "two"),
    ({"x": {"$gte": 1}}, "one float two list"),
    ({"x": {"$lt": 2}}, "one float list"),
    ({"x": {"$lte": 1.5, "$gt": 0}}, "one float list"),
    ({"x": {"$gt": "0"}}, "text list"),
    ({"x": {"$gt": False}}, "true"),
    ({"x": {"y": 1}}, "object"),
    ({"x.y": 1}, "object"),
    ({"x.0": 1}, "list"),
    ({"x": [1, "z"]}, "list"),
    ({"x": []}, "empty_list"),
    ({"l.b": 3}, "objects"),
    ({"l.1.b": 3}, "objects"),
    ({'it\'s "x"': 1}, "quote"),
    ({"id": "one"}, "one"),
    ({"id": {"$in": ["one", "two", "nobody"]}}, "one two"),
    ({"id": "one", "x": 2}, ""),
    ({"id": {"$gt": "text", "$lte": "two"}}, "true two"),
    ({"id": {"$ne": "one"}, "x": 1}, "float list"),
    ({"created_at": {"$exists": True}}, "named names source"),
    ({"created_at": None, "x": None}, "null nested dotted quote objects"),
    ({"name": "n"}, "named names"),
    ({"name": {"$in": ["m", "q"]}}, "names"),
    ({"metadata.source": "s"}, "names source"),
    ({"metadata.source": "s", "created_at": {"$gte": "2024-06-01"}}, "source"),
    ({"created_at": "2023-07-15T12:34:56.789Z"}, "named"),
    ({"created_at": "2023-07-15T14:34:56.789+02:00"}, "named"),
    ({"created_at": DAY}, "named"),
    ({"created_at": DAY.replace(tzinfo=None)}, "named"),
    ({"created_at": {"$gt": DAY, "$lt": "2024-12-31T23:00:00Z"}}, "names"),
    ({"created_at": {"$in": [DAY, "2024-01-01"]}}, "named names"),
    ({"$or": [{"id": "one"}, {"created_at": DAY}]}, "one named"),
    ({"$and": [{"x": 1}, {"id": {"$ne": "one"}}]}, "float list"),
    ({"$nor": [{"x": {"$exists": True}}, {"id": "nested"}]}, "dotted quote objects named names source"),
    ({}, " ".join(CORPUS)),
]


class StorageContract:
    # -- saving

    def test_a_saved_message_is_found_unchanged(self, storage: DataStorage) -> None:
        stored = storage.save(message("1"))

        assert stored
        assert storage.get({"id": "1"}) == [message("1")]

    def test_the_origin_of_a_message_is_found_as_plain_json(self, storage: DataStorage) -> None:
        storage.save(message("1", kafka=origin(7)))

        [found] = storage.get({"kafka.offset": 7, "kafka.received_at": {"$gte": DAY}})

        assert found["kafka"] == {
            "topic": "t",
            "partition": 0,
            "offset": 7,
            "timestamp": "2023-07-15T12:34:56.789Z",
            "received_at": "2023-07-15T12:34:56.789Z",
        }

    @pytest.mark.parametrize("offset", [7, 2**31 - 1, 2**31])
    @pytest.mark.parametrize(
        ("timestamp", "date"),
        [
            (None, None),
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (253_402_300_800_000, None),
            (1_689_424_500_123_456_789, None),  # nanoseconds by mistake
            (-(2**63), None),
        ],
    )
    def test_every_form_of_a_document_is_found_with_the_origin_of_its_record(
        self, storage: DataStorage, offset: int, timestamp: int | None, date: str | None
    ) -> None:
        documents: list[ValidDocument] = [
            SpecifiedMessage("a", "item", DAY, {"source": "s"}),
            {"id": "b", "name": "item", "created_at": DAY, "metadata": {"source": "s"}},
        ]
        records = [Record("t", partition, offset, None, b"", timestamp=timestamp) for partition in (0, 3)]

        verdicts = storage.save_valid(DocumentBatch(documents, records, 1_689_424_500_123))

        assert verdicts == [STORED, STORED]
        for identifier, partition in (("a", 0), ("b", 3)):
            assert storage.get({"id": identifier}) == [
                {
                    "id": identifier,
                    "name": "item",
                    "created_at": "2023-07-15T12:34:56.789Z",
                    "metadata": {"source": "s"},
                    "kafka": {
                        "topic": "t",
                        "partition": partition,
                        "offset": offset,
                        "timestamp": date,
                        "received_at": "2023-07-15T12:35:00.123Z",
                    },
                }
            ]
        stored = {each.position for page in storage.scan() for each in page}
        assert stored == {each.position for each in records}

    def test_the_forms_of_a_document_are_compared_by_their_content(self, storage: DataStorage) -> None:
        specified = SpecifiedMessage("1", "item", DAY, {"source": "s"})
        records = [Record("t", 0, offset, None, b"") for offset in range(4)]
        other = SpecifiedMessage("1", "item", DAY, {"source": "other"})

        documents: list[ValidDocument] = [specified, specified.as_dict(), other, other.as_dict()]
        first = storage.save_valid(DocumentBatch(documents, records, 0))
        again = storage.save_valid(DocumentBatch(documents, records, 0))

        assert [each.outcome.name for each in first] == ["STORED", "DUPLICATE", "REJECTED", "REJECTED"]
        assert [each.outcome.name for each in again] == ["DUPLICATE", "DUPLICATE", "REJECTED", "REJECTED"]

    def test_the_callers_document_is_not_changed(self, storage: DataStorage) -> None:
        given = message("1", kafka=origin(7))
        before = deepcopy(given)

        storage.save(given)

        assert given == before

    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            ("2023-07-15T14:34:56.789+02:00", "2023-07-15T12:34:56.789Z"),
            ("2023-07-15T12:34:56.7899999999Z", "2023-07-15T12:34:56.789Z"),
            ("2023-07-15T12:34:56Z", "2023-07-15T12:34:56.000Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
            ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
            (DAY + timedelta(microseconds=999), "2023-07-15T12:34:56.789Z"),
            (DAY.astimezone(timezone(timedelta(hours=-3))), "2023-07-15T12:34:56.789Z"),
        ],
    )
    def test_dates_are_stored_in_utc_and_milliseconds(self, storage: DataStorage, given: object, kept: str) -> None:
        storage.save(message("1", created_at=given))

        assert [found["created_at"] for found in storage.get({"created_at": kept})] == [kept]

    @pytest.mark.parametrize("fields", VALID.values(), ids=VALID)
    def test_what_json_can_hold_is_found_unchanged(self, storage: DataStorage, fields: Message) -> None:
        outcomes = [storage.save_many([{"id": "1", **fields}])[0].outcome for _ in range(2)]

        assert outcomes == [Outcome.STORED, Outcome.DUPLICATE]
        assert storage.get({}) == [{"id": "1", **fields}]

    # All examples share one store, and each subclass runs them with its own.
    @settings(
        max_examples=settings().max_examples // 3,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
        ],
    )
    @given(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**63), 2**63 - 1)
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(st.text(st.characters(exclude_characters="\0", codec="utf-8")), inner, max_size=4)
            ),
            max_leaves=12,
        )
    )
    def test_any_json_value_is_found_unchanged_and_then_a_duplicate(self, storage: DataStorage, value: Any) -> None:
        given_message = {"id": str(uuid4()), "x": value}

        outcomes = [storage.save_many([given_message])[0].outcome for _ in range(2)]

        assert outcomes == [Outcome.STORED, Outcome.DUPLICATE]
        assert repr(storage.get({"id": given_message["id"]})) == repr([given_message])

    @pytest.mark.parametrize(("reason", "fields"), INVALID.values(), ids=INVALID)
    def test_an_invalid_message_is_rejected_and_its_neighbors_are_stored(
        self, storage: DataStorage, reason: str, fields: Message
    ) -> None:
        verdicts = storage.save_many([message("a"), message("b", **fields), message("c")])

        assert [verdict.outcome for verdict in verdicts] == [Outcome.STORED, Outcome.REJECTED, Outcome.STORED]
        assert verdicts[1].reason == reason
        assert verdicts[1].error is not None
        assert [found["id"] for found in storage.get({}, sort=[("id", 1)])] == ["a", "c"]

    def test_a_message_without_an_id_is_rejected(self, storage: DataStorage) -> None:
        assert not storage.save({"name": "x"})
        assert storage.get({}) == []

    def test_saving_nothing_returns_no_verdict(self, storage: DataStorage) -> None:
        assert storage.save_many([]) == []

    # -- the same id again

    def test_the_same_message_again_is_a_duplicate_whatever_its_origin(self, storage: DataStorage) -> None:
        storage.save(message("1", kafka=origin(7)))

        [verdict] = storage.save_many([message("1", kafka=origin(8))])

        assert verdict.outcome is Outcome.DUPLICATE
        assert [found["kafka"]["offset"] for found in storage.get({})] == [7]

    def test_saving_the_same_message_again_is_a_success(self, storage: DataStorage) -> None:
        assert [storage.save(message("1")), storage.save(message("1"))] == [True, True]

    def test_another_message_under_the_same_id_is_rejected(self, storage: DataStorage) -> None:
        storage.save(message("1"))

        [verdict] = storage.save_many([message("1", name="another")])

        assert (verdict.outcome, verdict.reason) == (Outcome.REJECTED, "id_conflict")
        assert storage.get({}) == [message("1")]

    def test_the_order_of_keys_and_the_time_zone_do_not_matter(self, storage: DataStorage) -> None:
        storage.save({"id": "1", "x": {"a": 1, "b": 2}, "created_at": DAY})

        [verdict] = storage.save_many(
            [{"created_at": "2023-07-15T13:34:56.789+01:00", "x": {"b": 2, "a": 1}, "id": "1"}]
        )

        assert verdict.outcome is Outcome.DUPLICATE

    @pytest.mark.parametrize(("first", "second"), [(1, 1.0), (1, True), (0.0, -0.0), (None, ""), ([1, 2], [2, 1])])
    def test_messages_with_values_of_different_types_differ(
        self, storage: DataStorage, first: object, second: object
    ) -> None:
        storage.save(message("1", x=first))

        [verdict] = storage.save_many([message("1", x=second)])

        assert verdict.reason == "id_conflict"

    def test_of_several_messages_with_one_id_in_a_batch_the_first_is_stored(self, storage: DataStorage) -> None:
        batch = [message("1"), message("2"), message("1", name="another"), message("1"), message("1", name="another")]

        verdicts = storage.save_many(batch)

        assert [verdict.outcome.name for verdict in verdicts] == [
            "STORED",
            "STORED",
            "REJECTED",
            "DUPLICATE",
            "REJECTED",
        ]
        assert storage.get({}, sort=[("id", 1)]) == [message("1"), message("2")]

    def test_each_message_of_a_batch_is_compared_with_what_is_stored(self, storage: DataStorage) -> None:
        storage.save(message("1"))

        verdicts = storage.save_many([message("1", name="another"), message("1"), message("1", name="another")])

        assert [verdict.outcome.name for verdict in verdicts] == ["REJECTED", "DUPLICATE", "REJECTED"]

    # -- the same position in Kafka

    @pytest.mark.parametrize("reprocess", [False, True])
    def test_a_message_that_is_processed_differently_now_is_recognized_by_its_position(
        self, store: Store, reprocess: bool
    ) -> None:
        DataStorage({}, store=store).save_valid(processed("1 2", at(7), at(8)))

        again = DataStorage({}, store=store, reprocess=reprocess).save_valid(
            processed("1 2 3", at(7), at(8), at(9), x=1)
        )

        assert again == ([STORED] * 3 if reprocess else [DUPLICATE, DUPLICATE, STORED])
        assert [found.get("x") for found in in_order(store)] == ([1, 1, 1] if reprocess else [None, None, 1])

    @pytest.mark.parametrize("reprocess", [False, True])
    @pytest.mark.parametrize(
        "other",
        [
            {"offset": 8},
            {"partition": 1},
            {"topic": "u"},
            {"timestamp": 1_689_424_496_790},  # the topic has been recreated
            {"timestamp": None},
            {"timestamp": 1_689_424_500_123_456_789},
        ],
        ids=str,
    )
    def test_a_message_from_another_position_is_another_one_unless_its_content_is_equal(
        self, store: Store, other: Message, reprocess: bool
    ) -> None:
        storage = DataStorage({}, store=store, reprocess=reprocess)
        storage.save_valid(processed("1", at(7)))
        [before] = in_order(store)

        [verdict] = storage.save_valid(processed("1", replace(at(7), **other), x=1))
        [equal] = storage.save_valid(processed("1", replace(at(7), **other)))

        assert (verdict.outcome, verdict.reason, equal) == (Outcome.REJECTED, "id_conflict", DUPLICATE)
        assert in_order(store) == [before]

    @pytest.mark.parametrize("reprocess", [False, True])
    def test_without_a_timestamp_the_contents_are_compared(self, store: Store, reprocess: bool) -> None:
        """The topic may have been recreated."""
        storage = DataStorage({}, store=store, reprocess=reprocess)
        record = replace(at(7), timestamp=None)
        storage.save_valid(processed("1", record))

        verdicts = [storage.save_valid(processed("1", record, **fields))[0] for fields in ({}, {"x": 1})]

        assert [verdict.outcome.name for verdict in verdicts] == ["DUPLICATE", "REJECTED"]

    @pytest.mark.parametrize(
        ("reprocess", "outcomes"),
        [(False, "DUPLICATE DUPLICATE DUPLICATE REJECTED"), (True, "STORED DUPLICATE DUPLICATE REJECTED")],
    )
    def test_each_message_of_a_batch_is_recognized(self, store: Store, reprocess: bool, outcomes: str) -> None:
        """The second is the first sent again, the third is the first, the last is another."""
        DataStorage({}, store=store).save_valid(processed("1", at(7)))
        documents: list[ValidDocument] = [{"id": "1", "x": x} for x in (1, 1, 1, 2)]
        batch = DocumentBatch(documents, [at(7), at(8), at(7), at(9)], 0)

        verdicts = DataStorage({}, store=store, reprocess=reprocess).save_valid(batch)

        assert " ".join(verdict.outcome.name for verdict in verdicts) == outcomes

    def test_a_message_that_was_replaced_is_a_duplicate_when_it_is_read_again(self, store: Store) -> None:
        DataStorage({}, store=store).save_valid(processed("1", at(7)))
        storage = DataStorage({}, store=store, reprocess=True)

        verdicts = [storage.save_valid(processed("1", at(7), x=1)) for _ in range(2)]

        assert verdicts == [[STORED], [DUPLICATE]]

    def test_a_document_is_replaced_only_if_it_still_comes_from_the_position(self, store: Store) -> None:
        """Another consumer may have stored or deleted documents since they were compared."""
        storage = DataStorage({}, store=store)
        storage.save_valid(processed("same other", at(7), at(8)))

        verdicts = store.write(
            [Write({"id": each, "x": 1, "kafka": origin(7)}) for each in ("same", "other", "none")],
            Overwrites.SAME_POSITION,
        )

        assert [verdict.outcome.name for verdict in verdicts] == ["STORED", "FAILED", "STORED"]
        assert {found["id"]: found.get("x") for found in in_order(store)} == {"same": 1, "other": None, "none": 1}

    # -- documents that are replaced or merged

    def test_the_newest_message_of_an_id_replaces_the_others(self, keyed_store: Store) -> None:
        batches = [[(0, 5, {"a": 1})], [(0, 3, {"a": 2}), (1, 9, {"b": 3})], [(0, 11, {"c": 4}), (0, 10, {"d": 5})]]

        outcomes = [save(keyed_store, "replace", batch) for batch in batches]

        assert outcomes == [["STORED"], ["DUPLICATE", "STORED"], ["STORED", "DUPLICATE"]]
        assert contents(keyed_store) == {"1": {"c": 4}}

    def test_messages_of_an_id_are_merged_in_their_order(self, keyed_store: Store) -> None:
        batches: list[list[tuple[int, int, Message | None]]] = [
            [(0, 5, {"a": 1, "b": {"c": 1}})],
            [(0, 6, {"a": 2}), (0, 7, {"b": {"d": 1}})],
            [(0, 5, {"a": 1})],
        ]

        outcomes = [save(keyed_store, "merge", batch) for batch in batches]

        assert outcomes == [["STORED"], ["STORED", "STORED"], ["DUPLICATE"]]
        assert contents(keyed_store) == {"1": {"a": 2, "b": {"d": 1}}}

    @pytest.mark.parametrize("mode", ["replace", "merge"])
    def test_a_deleted_document_stays_deleted_until_a_newer_message_comes(self, keyed_store: Store, mode: str) -> None:
        states = []
        for offset, fields in [(1, {"a": 1}), (3, None), (2, {"a": 2}), (3, None), (4, {"b": 3})]:
            save(keyed_store, mode, [(0, offset, fields)])
            states.append(contents(keyed_store))

        assert states == [{"1": {"a": 1}}, {}, {}, {}, {"1": {"b": 3}}]
        assert [each.position for page in keyed_store.scan() for each in page] == [MessagePosition("t", 0, 4)]

    @pytest.mark.parametrize("mode", ["replace", "merge"])
    def test_a_deletion_in_a_batch_counts_in_its_order(self, keyed_store: Store, mode: str) -> None:
        save(keyed_store, mode, [(0, 0, {"a": 1})])

        save(keyed_store, mode, [(0, 1, {"b": 2}), (0, 2, None), (0, 3, {"c": 3})])

        assert contents(keyed_store) == {"1": {"c": 3}}

    @pytest.mark.parametrize("kafka", [{}, {"kafka": "odd"}, {"kafka": {"topic": 1, "partition": "x", "offset": True}}])
    def test_the_document_of_another_program_is_older_than_any_message(
        self, keyed_store: Store, kafka: dict[str, Any]
    ) -> None:
        keyed_store.insert(DocumentBatch([{"_id": "1", "x": 1, **kafka}], [None], 0))

        assert save(keyed_store, "merge", [(0, 0, {"a": 1})]) == ["STORED"]
        assert contents(keyed_store) == {"1": {"x": 1, "a": 1}}

    @pytest.mark.parametrize(("mode", "name"), [("merge", "a.b"), ("merge", ""), ("merge", "$a"), ("replace", "$a")])
    def test_a_field_whose_name_is_a_path_or_an_operator_is_rejected(
        self, keyed_store: Store, mode: str, name: str
    ) -> None:
        assert save(keyed_store, mode, [(0, 1, {name: 1}), (0, 2, {"a": 2})]) == ["REJECTED", "STORED"]
        assert contents(keyed_store) == {"1": {"a": 2}}

    @given(first=COORDINATES, second=COORDINATES)
    @settings(
        max_examples=settings().max_examples // 3,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    def test_a_store_and_the_order_agree_on_what_is_older(
        self, keyed_store: Store, first: Message, second: Message
    ) -> None:
        one, other = ({"_id": str(uuid4()), "kafka": each} for each in (first, second))
        other["_id"] = one["_id"]
        keyed_store.insert(DocumentBatch([one], [None], 0))

        [verdict] = keyed_store.write([Write(other)], Overwrites.OLDER)

        assert (verdict == STORED) is is_older(one, other)

    @given(history=histories())
    @settings(
        max_examples=settings().max_examples // 3,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    def test_any_order_of_deliveries_ends_in_the_state_of_the_topic(self, keyed_store: Store, history: History) -> None:
        history.deliver_to(keyed_store)

        assert history.stored_in(keyed_store) == history.expected()

    # -- finding

    @pytest.mark.parametrize(("query", "ids"), QUERIES, ids=[str(query) for query, _ in QUERIES])
    def test_filters_match_as_in_mongodb(self, storage: DataStorage, query: Message, ids: str) -> None:
        storage.save_many([{"id": identity, **fields} for identity, fields in CORPUS.items()])

        found = storage.get(query)

        assert sorted(document["id"] for document in found) == sorted(ids.split())

    @pytest.mark.parametrize("direction", [1, -1])
    def test_values_of_different_types_are_sorted_as_in_mongodb(self, storage: DataStorage, direction: int) -> None:
        ascending: list[Any] = [[], None, -1, 2.5, 3, "", "a", {"a": 1}, {"a": 2}, False, True]
        storage.save_many([{"id": f"{index:02}", "x": value} for index, value in enumerate(ascending)])

        found = storage.get({}, sort=[("x", direction), ("id", 1)])

        assert [document["x"] for document in found] == ascending[::direction]

    def test_an_array_is_sorted_by_its_least_or_greatest_element(self, storage: DataStorage) -> None:
        storage.save_many([{"id": "a", "x": [1, 9]}, {"id": "b", "x": 5}, {"id": "c"}])

        assert [found["id"] for found in storage.get({}, sort=[("x", 1)])] == ["c", "a", "b"]
        assert [found["id"] for found in storage.get({}, sort=[("x", -1)])] == ["a", "b", "c"]

    def test_sort_and_limit_find_the_newest_messages(self, storage: DataStorage) -> None:
        storage.save_many([message(str(day), created_at=DAY + timedelta(days=day)) for day in range(5)])

        found = storage.get({"name": "item_12345678"}, sort=[("created_at", -1)], limit=2)

        assert [document["id"] for document in found] == ["4", "3"]

    def test_a_limit_does_not_need_a_sort(self, storage: DataStorage) -> None:
        storage.save_many([message(str(each)) for each in range(5)])

        assert len(storage.get({}, limit=3)) == 3

    @pytest.mark.parametrize(
        ("query", "options", "named"),
        [
            ({"_id": "1"}, {}, "_id"),
            ({"$or": [{"_id": "1"}]}, {}, "_id"),
            ({"created_at": {"$gt": "yesterday"}}, {}, "yesterday"),
            ({"id": "\ud800"}, {}, "surrogates"),
            ({}, {"limit": 0}, "limit"),
            ({}, {"sort": [("x", 2)]}, "sort"),
        ],
    )
    def test_an_unsupported_query_is_named(
        self, storage: DataStorage, query: Message, options: dict[str, Any], named: str
    ) -> None:
        with pytest.raises(UnsupportedQuery, match=named):
            storage.get(query, **options)

    # -- other identities and dates

    def test_a_number_and_its_text_are_different_ids(self, storage: DataStorage) -> None:
        one, text = {"id": 1, "x": "number"}, {"id": "1", "x": "text"}

        outcomes = [verdict.outcome for verdict in storage.save_many([one, text, one, text])]

        assert outcomes == [Outcome.STORED, Outcome.STORED, Outcome.DUPLICATE, Outcome.DUPLICATE]
        assert storage.save_many([{"id": 1, "x": "text"}])[0].reason == "id_conflict"
        assert [storage.get({"id": each}) for each in (1, "1", 1.0, True)] == [[one], [text], [one], []]
        assert storage.get({"id": {"$in": [1, "2"]}}) == storage.get({"id": {"$gte": -5}}) == [one]
        assert storage.get({"id": {"$lt": "5"}}) == [text]
        assert sorted((each.id for page in storage.scan() for each in page), key=repr) == ["1", 1]

    @pytest.mark.parametrize("identity", [0, -1, 2**63 - 1, -(2**63), "0", "\0", "a/0/1", "x" * 2000])
    def test_an_id_is_kept_as_it_is(self, storage: DataStorage, identity: str | int) -> None:
        storage.save({"id": identity})

        assert repr(storage.get({"id": identity})) == repr([{"id": identity}])
        assert [each.id for page in storage.scan() for each in page] == [identity]

    def test_a_datetime_in_any_field_is_a_date(self, storage: DataStorage) -> None:
        later = (DAY + timedelta(days=1, microseconds=7)).astimezone(timezone(timedelta(hours=2)))
        text = "2023-07-15T12:34:56.789Z"
        dates: Message = {"x": [{"y.z": DAY}, text], "seen": later, "created_at": text}

        outcomes = [storage.save_many([{"id": "1", **dates}])[0].outcome for _ in range(2)]

        assert outcomes == [Outcome.STORED, Outcome.DUPLICATE]
        shown = {"id": "1", "x": [{"y.z": text}, text], "seen": "2023-07-16T12:34:56.789Z", "created_at": text}
        assert storage.get({"seen": {"$gt": DAY}, "created_at": DAY}) == [shown]
        assert storage.get({"seen": shown["seen"]}) == storage.get({"seen": {"$lt": DAY}}) == []

    # -- administration

    def test_a_scan_returns_the_position_of_every_document(self, storage: DataStorage) -> None:
        storage.save_many(
            [
                message("1", kafka=origin(7, partition=2)),
                message("2"),
                message("3", kafka="odd"),
                message("4", kafka={}),
                message("5", kafka={"topic": "t", "partition": 2}),
            ]
        )

        assert sorted(chain.from_iterable(storage.scan())) == [
            StoredMessage("1", MessagePosition("t", 2, 7), epoch_milliseconds(DAY)),
            StoredMessage("2"),
            StoredMessage("3"),
            StoredMessage("4"),
            StoredMessage("5"),
        ]

    def test_indexes_can_be_ensured_repeatedly(self, storage: DataStorage) -> None:
        for _ in range(2):
            storage.ping()
            storage.ensure_indexes()

        assert storage.save(message("1"))
        assert storage.ttl_seconds is None
        assert [result.text for result in storage.check() if not result.ok] == []

    def test_a_closed_store_is_unavailable(self, storage: DataStorage) -> None:
        storage.save(message("1"))
        storage.close()

        assert not storage.save(message("2"))
        for call in (
            storage.ping,
            storage.ensure_indexes,
            lambda: storage.save_many([message("1"), message("2")]),
            lambda: storage.get({}),
            lambda: list(storage.scan()),
        ):
            with pytest.raises(StorageUnavailable) as caught:
                call()
            assert caught.value.cause == "unreachable"
        assert [result.ok for result in storage.check()] == [False]


OWN_DATA = DocumentSettings(id="event_id", dates=("ts.date", "seen"), rename={"ts": "time"})


class OwnDataContract:
    """The fixture `own_storage` is an empty one of the settings OWN_DATA."""

    def test_the_identity_is_underscore_id_and_id_an_ordinary_field(self, own_storage: DataStorage) -> None:
        documents: list[Message] = [{"_id": 1, "id": "a"}, {"_id": "1", "id": "a"}, {"_id": "x", "id": {"y": 1}}]

        outcomes = [verdict.outcome.name for verdict in own_storage.save_many([*documents, {"_id": 1, "id": "b"}])]

        assert outcomes == ["STORED", "STORED", "STORED", "REJECTED"]
        assert own_storage.get({}, sort=[("_id", 1)]) == documents
        assert own_storage.get({"_id": 1}) == [documents[0]]
        assert (
            own_storage.get({"_id": {"$in": ["1", "z"]}}) == own_storage.get({"_id": "1", "id": "a"}) == [documents[1]]
        )
        assert own_storage.get({"id": "a"}, sort=[("_id", -1)]) == [documents[1], documents[0]]
        assert own_storage.get({"id.y": 1}) == own_storage.get({"$or": [{"_id": "x"}]}) == [documents[2]]
        assert sorted((each.id for page in own_storage.scan() for each in page), key=repr) == ["1", "x", 1]

    def test_a_document_without_the_identity_is_rejected(self, own_storage: DataStorage) -> None:
        assert own_storage.save_many([{"id": "1", "event_id": "2"}])[0].reason == "missing_id"

    def test_text_is_compared_as_a_date_where_dates_are_stored(self, own_storage: DataStorage) -> None:
        text = "2023-07-15T12:34:56.789Z"
        document: Message = {"_id": "1", "time": {"date": text}, "seen": text, "created_at": text, "ts": {"date": text}}

        own_storage.save(document)

        assert own_storage.get({}) == [document]
        for path in ("time.date", "seen"):
            assert own_storage.get({path: "2023-07-15T14:34:56.789+02:00"}) == [document]
            assert own_storage.get({path: {"$gte": "2023-07-15", "$lt": DAY}}) == []
            assert own_storage.get({path: DAY}) == [document]
        for path in ("created_at", "ts.date"):
            assert own_storage.get({path: text}) == own_storage.get({path: {"$lt": "2024"}}) == [document]
            assert own_storage.get({path: DAY}) == []

    def test_documents_of_the_default_settings_can_be_read(self, own_storage: DataStorage) -> None:
        own_storage.save({"_id": "1", "created_at": DAY})

        assert own_storage.get({"created_at": {"$lte": DAY}}) == [
            {"_id": "1", "created_at": "2023-07-15T12:34:56.789Z"}
        ]
