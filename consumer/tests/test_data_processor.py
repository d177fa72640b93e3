"""A record becomes a document, or an InvalidMessage says why not. There is no other result."""

import copy
import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.data_processor import REASONS, DataProcessor
from src.model.errors import InvalidMessage
from src.model.record import Record
from src.stores.document import fields_of
from src.stores.ordinary import MAX_BYTES
from src.stores.validation import MAX_DEPTH, validated
from tests.naughty import IDS, INVALID, INVALID_DATES, MESSAGE, STRINGS, VALID, VALID_DATES, VALUE, wrapping

NOW = datetime(2026, 11, 23, 14, 47, 15, 123987, tzinfo=UTC)

processor = DataProcessor()

DECIDED_BY_CONTENT = (
    "connect_envelope",
    "missing_id",
    "invalid_id",
    "invalid_created_at",
    "invalid_name",
    "invalid_metadata",
    "reserved_field",
    "integer_out_of_range",
    "number_out_of_range",
    "invalid_key",
    "invalid_string",
)

json_keys = st.text(max_size=8).map(lambda key: key.replace("\0", ""))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(json_keys, children, max_size=3),
    max_leaves=8,
)


def process(value: bytes | None) -> dict[str, Any]:
    """The document of a value: processed, and validated as the storage does. Ordinary messages are processed twice."""
    record = Record("data-topic", 2, 41, b"some other key", value)
    [ordinary] = processor.process_ordinary([record])
    document = dict(validated(processor.process(record) or {}))
    assert ordinary is None or repr(sorted(fields_of(ordinary).items())) == repr(sorted(document.items()))
    return document


def is_ordinary(*values: bytes | None) -> list[bool]:
    return [each is not None for each in processor.process_ordinary([Record("t", 0, 0, None, each) for each in values])]


def check(message: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a decoded message."""
    document = processor.check(message) or {}
    validated(document)
    return document


def outcome(attempt: Callable[[], object]) -> str:
    """The reason why it is invalid, or "valid"."""
    try:
        attempt()
    except InvalidMessage as error:
        return error.reason
    return "valid"


def test_a_document_is_the_message_with_its_date() -> None:
    document = process(VALUE)

    assert document == {**MESSAGE, "created_at": datetime(2023, 7, 15, 12, 34, 56, 789000, tzinfo=UTC)}


def test_only_an_id_is_required_and_unknown_fields_are_kept() -> None:
    document = process(b'{"id": "1", "$schema": "/mediawiki/1.0.0", "labels": {"kubernetes.io/config": "seen"}}')

    assert document == {"id": "1", "$schema": "/mediawiki/1.0.0", "labels": {"kubernetes.io/config": "seen"}}


@pytest.mark.parametrize(("expected", "value"), [(name, value) for name, values in INVALID.items() for value in values])
def test_an_invalid_value_has_a_reason(expected: str, value: bytes | None) -> None:
    assert outcome(lambda: process(value)) == expected


@pytest.mark.parametrize("part", VALID)
def test_unusual_but_valid_json_is_unchanged(part: bytes) -> None:
    expected = json.loads(part)

    assert repr(process(wrapping(part))["metadata"]["x"]) == repr(expected)


def test_a_line_break_after_the_message_is_valid() -> None:
    assert process(VALUE + b"\r\n")["id"] == MESSAGE["id"]


def test_the_order_of_the_fields_does_not_matter() -> None:
    in_reverse = json.dumps(dict(reversed(MESSAGE.items()))).encode()

    assert process(in_reverse) == process(VALUE)
    assert is_ordinary(in_reverse) == [True]


def test_the_last_of_several_equal_keys_is_kept() -> None:
    assert process(b'{"id": "first", "id": "last"}')["id"] == "last"
    assert outcome(lambda: process(b'{"id": "first", "id": null}')) == "invalid_id"


@pytest.mark.parametrize("text", STRINGS)
def test_a_naughty_string_is_unchanged(text: str) -> None:
    document = process(json.dumps({"id": "1", "metadata": {"source": text}}).encode())

    assert document["metadata"]["source"] == text


@pytest.mark.parametrize("text", STRINGS)
def test_a_naughty_string_alone_is_invalid(text: str) -> None:
    assert outcome(lambda: process(text.encode())) in REASONS


@pytest.mark.parametrize("text", IDS)
def test_an_id_is_kept_exactly_as_sent(text: str) -> None:
    assert process(json.dumps({"id": text}).encode())["id"] == text


@pytest.mark.parametrize(("text", "expected"), VALID_DATES.items())
def test_a_date_is_converted_to_utc_and_truncated_to_milliseconds(text: str, expected: str) -> None:
    created_at = process(json.dumps({"id": "1", "created_at": text}).encode())["created_at"]

    assert created_at.isoformat(timespec="microseconds") == f"{expected}000+00:00"


@pytest.mark.parametrize("text", INVALID_DATES)
def test_a_date_in_another_format_is_invalid(text: str) -> None:
    assert outcome(lambda: process(json.dumps({"id": "1", "created_at": text}).encode())) == "invalid_created_at"


def test_a_message_as_deep_as_the_limit_is_valid_and_one_level_more_is_not() -> None:
    def nested(levels: int) -> dict[str, Any]:
        message: dict[str, Any] = {}
        for _ in range(levels - 1):
            message = {"a": message}
        return {**message, "id": "1"}

    assert check(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    assert outcome(lambda: check(nested(MAX_DEPTH + 1))) == "nesting_too_deep"
    assert outcome(lambda: check({"id": "1", "a": [nested(MAX_DEPTH)]})) == "nesting_too_deep"


def test_a_message_that_contains_itself_is_too_deep() -> None:
    message: dict[str, Any] = {"id": "1"}
    message["again"] = message

    assert outcome(lambda: check(message)) == "nesting_too_deep"


def test_a_decoded_message_is_checked_and_left_unchanged() -> None:
    message = copy.deepcopy(MESSAGE)

    document = check(message)

    assert document == {**MESSAGE, "created_at": datetime(2023, 7, 15, 12, 34, 56, 789000, tzinfo=UTC)}
    assert message == MESSAGE


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ({"x": math.nan}, "number_out_of_range"),
        ({"x": [-math.inf]}, "number_out_of_range"),
        ({"x": "\ud800"}, "invalid_string"),
        ({"x": {"\ud800": 1}}, "invalid_key"),
        ({"x": {1: "one"}}, "invalid_key"),
        ({b"x": 1}, "invalid_key"),
        ({"x": b"bytes"}, "not_encodable"),
        ({"x": {1, 2}}, "not_encodable"),
        ({"x": date(2023, 7, 15)}, "not_encodable"),
        ({"created_at": NOW}, "valid"),
        ({"x": 2**63}, "integer_out_of_range"),
        ({"kafka": None}, "reserved_field"),
    ],
)
def test_a_decoded_message_has_the_rules_of_a_raw_one(field: dict[Any, Any], expected: str) -> None:
    assert outcome(lambda: check({"id": "1", **field})) == expected


@pytest.mark.parametrize("value", [value for name in DECIDED_BY_CONTENT for value in INVALID[name]])
def test_raw_and_decoded_messages_have_the_same_rules(value: bytes) -> None:
    message = json.loads(value, parse_int=lambda digits: int(digits[:40]))

    assert outcome(lambda: check(message)) == outcome(lambda: process(value))


def test_the_usual_messages_are_ordinary() -> None:
    with_own_fields = b'{"id": "1", "amount": 1.5, "tags": ["a"], "at": {"x": [{"y": null}]}}'
    dates = [json.dumps({"id": "1", "created_at": date}).encode() for date in VALID_DATES]

    assert all(is_ordinary(VALUE, rb'{"id": "\u00e9"}', with_own_fields, *dates))


def test_what_takes_a_closer_look_is_not_ordinary() -> None:
    nul_in_key = json.dumps({"id": "1", "metadata": {"a\0b": 1}}).encode()
    deep = b'{"id": "1", "a": ' + b"[" * 6 + b"]" * 6 + b"}"
    large = json.dumps({"id": "1", "a": "x" * MAX_BYTES}).encode()

    assert not any(is_ordinary(None, b"{", b'{"id": ""}', nul_in_key, deep, large))


def test_a_processor_with_rules_of_its_own_has_no_ordinary_messages() -> None:
    class Strict(DataProcessor):
        def check(self, message: Mapping[str, Any]) -> dict[str, Any]:
            raise InvalidMessage("strict", "nothing is valid")

    assert Strict().process_ordinary([Record("t", 0, 0, None, VALUE)]) == [None]


ordinary_fields = st.fixed_dictionaries(
    {"id": st.text(max_size=3)},
    optional={
        "name": st.text(max_size=3) | json_values,
        "metadata": st.dictionaries(json_keys, json_values, max_size=2) | json_values,
        "created_at": st.sampled_from([*VALID_DATES, *INVALID_DATES]) | json_values,
        "_id": json_values,
        "kafka": json_values,
        "own": json_values,
    },
)


@given(ordinary_fields, st.booleans())
def test_ordinary_messages_have_the_documents_that_any_message_has(fields: dict[str, Any], ensure_ascii: bool) -> None:
    value = json.dumps(fields, ensure_ascii=ensure_ascii).encode(errors="surrogatepass")

    result = outcome(lambda: process(value))

    assert result == "valid" or is_ordinary(value) == [False]


@given(st.binary())
def test_any_bytes_become_a_document_or_a_known_reason(value: bytes) -> None:
    assert outcome(lambda: process(value)) in ("valid", *REASONS)


@given(st.integers(0, len(VALUE)), st.binary(max_size=4), st.integers(0, 4))
def test_any_damaged_message_becomes_a_document_or_a_known_reason(position: int, inserted: bytes, deleted: int) -> None:
    damaged = VALUE[:position] + inserted + VALUE[position + deleted :]

    assert outcome(lambda: process(damaged)) in ("valid", *REASONS)


@given(
    st.dictionaries(
        st.sampled_from(["", "a.b", "$set", "ID", "x\u202e", "\U0001f47e"]) | json_keys, json_values, max_size=4
    )
)
def test_any_fields_of_a_message_are_unchanged(fields: dict[str, Any]) -> None:
    message = {"id": "1", "theirs": fields}

    assert process(json.dumps(message).encode())["theirs"] == fields


def test_every_reason_is_listed_and_has_an_example() -> None:
    assert set(INVALID) == set(REASONS)
    assert len(set(REASONS)) == len(REASONS)
