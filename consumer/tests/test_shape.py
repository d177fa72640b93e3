"""What the section `document` of the settings makes of a message, with and without a transform."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from src.data_processor import DataProcessor
from src.model.errors import InvalidMessage
from src.model.record import ORIGINAL_POSITION, Record
from src.settings import DocumentSettings
from src.stores.document import Schema, identity_of
from src.stores.validation import validated
from src.utils.config import ConfigurationError, parse

AT = datetime(2023, 7, 15, 12, 34, 56, 789000, tzinfo=UTC)
TEXT = "2023-07-15T12:34:56.789Z"
EVENT: dict[str, Any] = {
    "event_id": "e-1",
    "id": 7,
    "ts": {"date": TEXT, "zone": "UTC"},
    "customer": {"id": 17, "name": "Ada"},
    "items": [{"n": 1}],
    "total": 12.5,
    "paid": True,
}


def settings_of(**settings: Any) -> DocumentSettings:
    return parse(DocumentSettings, settings)


def record_of(message: Any, key: bytes | None = b"a key", **fields: Any) -> Record:
    return Record("t", 2, 41, key, json.dumps(message).encode(), **fields)


def shaped(message: Any = EVENT, *, record: Record | None = None, **settings: Any) -> dict[str, Any]:
    """The document of a message. An ordinary one is processed in both ways."""
    record = record or record_of(message)
    processor = DataProcessor(settings_of(**settings))
    [ordinary] = processor.process_ordinary([record])
    document = processor.process(record)
    assert document is not None
    document = dict(validated(document, Schema(settings_of(**settings))))
    assert ordinary is None or ordinary == document
    return document


def reason_and_text(message: Any = EVENT, *, record: Record | None = None, **settings: Any) -> tuple[str, str]:
    with pytest.raises(InvalidMessage) as caught:
        shaped(message, record=record, **settings)
    return caught.value.reason, str(caught.value)


# -- identity


@pytest.mark.parametrize(
    ("path", "identity"), [("event_id", "e-1"), ("customer.id", 17), ("key", "a key"), ("coordinates", "t/2/41")]
)
def test_an_identity_of_ones_own_is_underscore_id_beside_the_fields_of_the_message(
    path: str, identity: str | int
) -> None:
    document = shaped(id=path, dates=[])

    assert document == {**EVENT, "_id": identity}
    assert identity_of(document) == identity


def test_by_default_the_field_id_is_the_identity() -> None:
    document = shaped(dates=[])

    assert document == EVENT
    assert identity_of(document) == 7


def test_the_field_underscore_id_can_be_the_identity() -> None:
    assert shaped({"_id": "a", "x": 1}, id="_id") == {"_id": "a", "x": 1}


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("order", ("missing_id", "the message has no order")),
        ("ts.id", ("missing_id", "the message has no ts.id")),
        ("items.n", ("missing_id", "the message has no items.n")),
        ("total", ("invalid_id", "total is a number instead of a string or an integer of 64 bits")),
        ("paid", ("invalid_id", "paid is a boolean instead of a string or an integer of 64 bits")),
        ("ts", ("invalid_id", "ts is an object instead of a string or an integer of 64 bits")),
    ],
)
def test_a_message_without_a_usable_identity_is_invalid(path: str, problem: tuple[str, str]) -> None:
    assert reason_and_text(id=path) == problem


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (None, ("missing_id", "the message has no key")),
        (b"", ("invalid_id", "the key is empty instead of a string or an integer of 64 bits")),
        (b"\xff", ("invalid_id", "the key is not UTF-8: invalid start byte")),
    ],
)
def test_a_key_that_is_no_text_is_invalid(key: bytes | None, problem: tuple[str, str]) -> None:
    assert reason_and_text(record=record_of(EVENT, key), id="key") == problem


def test_a_replayed_message_has_the_coordinates_of_the_original_one() -> None:
    replayed = record_of(EVENT, headers=(("a", None), (ORIGINAL_POSITION, b"t/0/3")))

    assert shaped(record=replayed, id="coordinates", dates=[])["_id"] == "t/0/3"


# -- fields


def test_dates_are_converted_wherever_they_are() -> None:
    document = shaped(dates=["ts.date", "missing", "total.date"])

    assert document == {**EVENT, "ts": {"date": AT, "zone": "UTC"}}


def test_fields_are_dropped_kept_and_renamed() -> None:
    assert shaped(drop=["ts", "customer.name", "no.such"], dates=["ts.date"]) == {
        **{name: value for name, value in EVENT.items() if name != "ts"},
        "customer": {"id": 17},
    }
    assert shaped(keep=["total", "customer.id", "ts", "ts.zone", "no.such"], dates=["ts.date"]) == {
        "id": 7,
        "total": 12.5,
        "customer": {"id": 17},
        "ts": {"date": AT, "zone": "UTC"},
    }
    renamed = shaped(
        id="event_id", rename={"ts.date": "at", "id": "ts.number", "event_id": "id", "no": "new"}, dates=["ts.date"]
    )
    assert renamed == {
        **{name: value for name, value in EVENT.items() if name != "event_id"},
        "_id": "e-1",
        "id": "e-1",
        "at": AT,
        "ts": {"zone": "UTC", "number": 7},
    }


def test_an_object_that_is_empty_without_the_field_goes_with_it() -> None:
    message = {"id": "1", "a": {"b": {"c": 1}}, "x": {"y": {}, "z": 2}, "empty": {}}

    assert shaped(message, drop=["a.b.c", "x.z", "empty.no"]) == {"id": "1", "x": {"y": {}}, "empty": {}}
    assert shaped(message, rename={"a.b.c": "a", "x.z": "x.y.z"}) == (
        {"id": "1", "a": 1, "x": {"y": {"z": 2}}, "empty": {}}
    )


def test_names_can_be_swapped() -> None:
    assert shaped({"id": "1", "a": 1, "b": 2}, rename={"a": "b", "b": "a"}) == {"id": "1", "a": 2, "b": 1}


def test_a_reserved_field_can_be_renamed() -> None:
    message = {"id": "1", "_id": "theirs", "kafka": {"x": 1}}

    assert shaped(message, rename={"_id": "their_id"}, drop=["kafka"]) == {"id": "1", "their_id": "theirs"}
    assert reason_and_text(message, drop=["kafka"])[0] == "reserved_field"


@pytest.mark.parametrize("new", ["total", "customer.id", "total.x", "paid.x.y"])
def test_a_field_never_replaces_another_one(new: str) -> None:
    reason, text = reason_and_text(rename={"items": new})

    assert reason == "rename_conflict"
    assert text == f"items cannot be renamed to {new}, which the message has, too"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("string", {"event_id", "ts.date"}),
        ("integer", {"id", "customer.id"}),
        ("number", {"id", "customer.id", "total"}),
        ("boolean", {"paid"}),
        ("object", {"ts", "customer"}),
        ("array", {"items"}),
    ],
)
def test_a_check_holds_for_values_of_its_type_alone(kind: str, fields: set[str]) -> None:
    paths = ["event_id", "ts.date", "id", "customer.id", "total", "paid", "ts", "customer", "items"]

    assert all(shaped(checks={path: kind, "no.such": kind}) for path in fields)
    for path in set(paths) - fields:
        reason, text = reason_and_text(checks={path: kind})
        assert reason == f"invalid_{path}"
        assert text.endswith(f" instead of {'an' if kind[0] in 'aio' else 'a'} {kind}")


def test_a_required_field_must_be_there_whatever_its_value() -> None:
    assert shaped({"id": "1", "a": {"b": None}}, required=["a.b"]) == {"id": "1", "a": {"b": None}}
    for message in ({"id": "1"}, {"id": "1", "a": {}}, {"id": "1", "a": [{"b": 1}]}):
        assert reason_and_text(message, required=["a.b"]) == ("missing_a.b", "the message has no a.b")


@pytest.mark.parametrize("value", [1689424496, None, "yesterday", {"a": 1}])
def test_a_date_in_another_format_is_invalid_and_the_field_named(value: object) -> None:
    reason, text = reason_and_text({**EVENT, "ts": {"date": value}}, dates=["ts.date"])

    assert reason == "invalid_ts.date"
    assert text.startswith("ts.date is not a date of the years 1 to 9999 in UTC: ")


def test_the_message_is_not_changed() -> None:
    message = json.loads(json.dumps(EVENT))
    processor = DataProcessor(
        settings_of(dates=["ts.date"], drop=["customer.name"], rename={"ts.zone": "zone", "total": "customer.total"})
    )

    processor.check(message)

    assert message == EVENT


def test_the_reasons_of_the_settings_are_known_from_the_start() -> None:
    processor = DataProcessor(
        settings_of(required=["n"], dates=["ts.date"], checks={"total": "number"}, rename={"a": "b"})
    )

    assert {"missing_n", "invalid_ts.date", "invalid_total", "rename_conflict", "missing_id"} <= set(processor.reasons)


# -- any settings and messages

names = st.sampled_from(["id", "a", "b", "c", "_id", "kafka"])
paths = st.lists(names, min_size=1, max_size=3).map(".".join)
leaves = st.sampled_from([None, True, 0, 2**63, 1.5, "", "x", TEXT, "2023-07-15T12:34:56.789999+02:00", "24:00"])
values = st.recursive(
    leaves, lambda inner: st.dictionaries(names, inner, max_size=3) | st.lists(inner, max_size=2), max_leaves=8
)
any_settings = st.fixed_dictionaries(
    {"id": paths | st.sampled_from(["id", "key", "coordinates"])},
    optional={
        "required": st.lists(paths, max_size=1),
        "dates": st.lists(paths, max_size=2),
        "checks": st.dictionaries(
            paths, st.sampled_from(["string", "number", "integer", "object", "array"]), max_size=2
        ),
        "drop": st.lists(paths, max_size=2),
        "keep": st.lists(paths, max_size=2),
        "rename": st.dictionaries(paths, paths, max_size=2),
    },
)


def verdict_of(processor: DataProcessor, record: Record, schema: Schema) -> Mapping[str, Any] | str:
    try:
        document = processor.process(record)
        assert document is not None
        return validated(document, schema)
    except InvalidMessage as error:
        return error.reason


@given(any_settings, st.dictionaries(names, values, max_size=4), st.sampled_from([None, b"", b"k", b"\xff"]))
def test_ordinary_messages_have_the_documents_that_any_message_has(
    settings: dict[str, Any], message: dict[str, Any], key: bytes | None
) -> None:
    try:
        document = settings_of(**settings)
    except ConfigurationError:
        assume(False)
    processor, record = DataProcessor(document), record_of(message, key)

    [ordinary] = processor.process_ordinary([record])
    general = verdict_of(processor, record, Schema(document))

    assert ordinary is None or repr(ordinary) == repr(general)


def test_the_usual_messages_are_ordinary_whatever_the_settings() -> None:
    for identity in ("id", "event_id", "customer.id", "key", "coordinates"):
        settings = settings_of(id=identity, dates=["ts.date"], rename={"total": "sum"}, drop=["customer.name"])

        [ordinary] = DataProcessor(settings).process_ordinary([record_of(EVENT)])

        assert ordinary is not None


# -- transforms


@pytest.fixture
def transform(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """Writes a module with the given code, and returns the settings that use its function `made`."""

    def written(body: str, **settings: Any) -> dict[str, Any]:
        name = f"module_{abs(hash((request.node.nodeid, body)))}"
        (tmp_path / f"{name}.py").write_text(body)
        return {"transform": f"{name}:made", "transforms_folder": str(tmp_path), **settings}

    return written


RETURNS = "from datetime import *\nfrom decimal import Decimal\ndef made(message):\n    return "


def test_a_transform_makes_the_document_before_anything_else(transform: Any) -> None:
    body = RETURNS + '{"number": message["event_id"], "at": message["ts"]["date"], "total": message["total"]}'

    document = shaped(**transform(body, id="number", dates=["at"], rename={"total": "sum"}))

    assert document == {"_id": "e-1", "number": "e-1", "at": AT, "sum": 12.5}


def test_a_transform_may_make_dates_anywhere(transform: Any) -> None:
    zone = timezone(timedelta(hours=2))
    body = RETURNS + '{**message, "at": [datetime(2023, 7, 15, 14, 34, 56, 789000, timezone(timedelta(hours=2)))]}'

    assert shaped(**transform(body))["at"] == [AT.astimezone(zone)]


def test_a_message_is_skipped_if_the_transform_returns_none(transform: Any) -> None:
    processor = DataProcessor(settings_of(**transform(RETURNS + 'message if message["paid"] else None')))
    records = [record_of({**EVENT, "paid": False}), record_of(EVENT)]

    assert processor.process_ordinary(records) == [None, None]
    assert [processor.process(record) is None for record in records] == [True, False]
    assert processor.check({**EVENT, "paid": False}) is None


def test_objects_that_the_transform_shares_between_documents_are_not_changed(transform: Any) -> None:
    body = f'SHARED = {{"date": "{TEXT}"}}\ndef made(message):\n    return {{"id": "1", "ts": SHARED}}'
    options = transform(body, dates=["ts.date"], rename={"ts.date": "at"})

    assert [shaped(**options), shaped(**options)] == [{"id": "1", "at": AT}] * 2


@pytest.mark.parametrize(
    ("result", "reason", "text"),
    [
        ("[message]", "transform_failed", "returned list, and not a dictionary or None"),
        ("True", "transform_failed", "returned bool, and not a dictionary or None"),
        ('{**message, "at": datetime(2023, 7, 15)}', "invalid_date", "^at: date has no offset from UTC"),
        ('{**message, "x": [{}, {"y": datetime(2023, 7, 15)}]}', "invalid_date", "^x.1.y: date has no offset from UTC"),
        ('{**message, "x": {1}}', "not_encodable", "^x: set is not a JSON type"),
        ('{**message, "x": {"y": (1, Decimal("1.5"))}}', "not_encodable", "^x.y.1: Decimal is not a JSON type"),
        ('{**message, "x": 2**70}', "integer_out_of_range", "^x: an integer of more than 64 bits"),
        ('{**message, "x": float("nan")}', "number_out_of_range", "^x: nan is not a JSON number"),
        ('{**message, "x": "\\ud800"}', "invalid_string", "^x: a string with a lone surrogate"),
        ('{**message, 1: "x"}', "invalid_key", "the key 1 is not a string"),
        ('{**message, "x": {1: "x"}}', "invalid_key", "^x: the key 1 is not a string"),
        ('{**message, "x": [type("Text", (str,), {})("x")]}', "not_encodable", "^x.0: .* is unsupported"),
        ('{"total": 1}', "missing_id", "the message has no id"),
        ('{**message, "kafka": 1}', "reserved_field", "reserved"),
        ('message["nothing"]', "transform_failed", r"made raised KeyError: 'nothing' \(module_\d+.py, line 4\)"),
        ("exit(3)", "transform_failed", "made raised SystemExit: 3"),
        ("made(message)", "transform_failed", "made raised RecursionError: maximum recursion depth exceeded"),
    ],
)
def test_a_wrong_result_of_a_transform_is_that_messages_fault(
    transform: Any, result: str, reason: str, text: str
) -> None:
    with pytest.raises(InvalidMessage, match=text) as caught:
        shaped(**transform(RETURNS + result))

    assert caught.value.reason == reason


def test_a_transform_rejects_a_message_with_a_reason_of_its_own(transform: Any) -> None:
    body = "from src.model.errors import InvalidMessage\ndef made(message):\n    raise InvalidMessage({!r}, 'not paid')"

    assert reason_and_text(**transform(body.format("unpaid"))) == ("unpaid", "not paid")
    assert reason_and_text(**transform(body.format("not paid, 5 EUR")))[0] == "transform_failed"


@pytest.mark.parametrize(
    ("body", "name", "text"),
    [
        (None, "no_such_module:made", r"there is no module no_such_module in .*; see document.transforms_folder"),
        (None, "no_such_package.part:made", "there is no module no_such_package.part in"),
        ("made = 1", None, "made is not a function"),
        ("", None, "made does not exist"),
        ("import no_such_library", None, r"cannot import .*: ModuleNotFoundError: .*no_such_library.* \(.*, line 1\)"),
        ("def made(:", None, "cannot import .*: SyntaxError"),
        ("async def made(message): ...", None, "made is asynchronous; use `def`"),
        ("def made(message, more): ...", None, "made cannot be called with one argument, the message"),
        ("1 / 0", None, r"cannot import .*: ZeroDivisionError: division by zero \(.*, line 1\)"),
        ("raise SystemExit(0)", None, "cannot import .*: SystemExit: 0"),
    ],
)
def test_a_transform_that_cannot_be_imported_is_a_wrong_setting(
    transform: Any, body: str | None, name: str | None, text: str
) -> None:
    settings = transform(body or "")

    with pytest.raises(ConfigurationError, match=f"^document.transform: .*{text}") as caught:
        DataProcessor(settings_of(**{**settings, "transform": name or settings["transform"]}))

    assert "\n" not in str(caught.value)
