"""Messages are serialized, or rejected as invalid."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.model.errors import InvalidMessage
from src.model.message import Headers, Message, ProducerRecord, encode, encode_batch

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=10,
)


@given(st.text(), st.dictionaries(st.text(), JSON))
def test_decoding_an_encoded_message_returns_the_original(key: str, value: dict[str, Any]) -> None:
    encoded = encode(Message(key, value))

    assert (encoded.key or b"").decode() == key
    assert json.loads(encoded.value or b"") == value


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (None, []),
        ({"a": "ü"}, [("a", "ü".encode())]),
        ([("a", b"\xff"), ("a", None), ("a", "x")], [("a", b"\xff"), ("a", None), ("a", b"x")]),
    ],
)
def test_headers_keep_order_duplicates_and_nulls(headers: Headers, expected: list[tuple[str, bytes | None]]) -> None:
    assert encode(("key", {}, headers)).headers == expected


def _nested() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["itself"] = value
    return value


@pytest.mark.parametrize(
    "message",
    [
        ("key", {"a": object()}, None),
        ("key", {"a": "\ud800"}, None),
        ("\ud800", {}, None),
        (None, {}, None),
        ("key", {}, 1),
        ("key", _nested(), None),
        ("key", {}),
        ("key", {}, {"\ud800": "x"}),
        ("key", {}, {"a\0b": "x"}),
        ("key", {}, {"n": 5}),
        ("key", {}, [("n", bytearray(b"x"))]),
        ("key", {"a": float("nan")}, None),
        ("key", {"a": [{"b": (1.0, float("-inf"))}]}, None),
    ],
    ids=[
        "an object",
        "a lone surrogate",
        "a surrogate in the key",
        "no key",
        "headers of another type",
        "endless",
        "two parts",
        "a surrogate in a header's name",
        "a NUL in a header's name",
        "a number in a header",
        "bytes in a header that may change",
        "not a number",
        "an infinity deep inside",
    ],
)
def test_an_invalid_message_raises_invalid_message(message: Any) -> None:
    with pytest.raises(InvalidMessage, match="not a message"):
        encode(message)


@given(st.dictionaries(st.text(), st.dictionaries(st.text(), JSON)), st.dictionaries(st.text("ab"), st.text()))
def test_a_batch_is_encoded_as_each_of_its_messages(values: dict[str, dict[str, Any]], headers: Headers) -> None:
    together = encode_batch(values.keys(), list(values.values()), headers)

    assert together == [encode(Message(key, value, headers)) for key, value in values.items()]


def test_null_is_a_valid_value() -> None:
    assert encode(("key", {"a": None, "b": [None, 1.5, "null"]}, None)).value == b'{"a":null,"b":[null,1.5,"null"]}'


def test_the_size_counts_key_and_value() -> None:
    assert [ProducerRecord(b"ab", b"cde", []).size, ProducerRecord(None, None, []).size] == [5, 0]
