"""Messages, input lines and configuration values that real systems send, and what is close to them."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import strategies as st

TEXTS = (
    "",
    " ",
    "null",
    "NaN",
    "1e400",
    "\x00",
    "a\x00b",
    "\x1b[31mred\x1b]0;title\x07",
    "line\r\nbreak\u2028\u2029\u0085\x1c",
    "\ufeff\u202e\u200b",
    "\x7f\x80\x9f",
    "e\u0301\u00e9",
    "👩🏽‍🤝‍👨🏿",
    "田中さん",
    "../../etc/passwd",
    "'; DROP TABLE messages; --",
    '{"$gt": ""}',
    "${jndi:ldap://x/a}",
    "%s%n{0}",
    "\uffff\U0010ffff",
)
KEYS = ("id", "_id", "kafka", "name", "created_at", "metadata", "$set", "a.b", "", "__proto__", "ID", "x")
NUMBERS = (
    *(b"0", b"-0", b"-0.0", b"1", b"1.0", b"1e0", b"2147483648", b"9007199254740993", b"0.1", b"1E+2"),
    *(b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808", b"-9223372036854775809"),
    *(b"18446744073709551616", b"1e22", b"1e308", b"1e309", b"-1e999", b"5e-324", b"1e-999"),
    *(b"1" * 400, b"9" * 5000, b"0." + b"3" * 400),
)
NOT_JSON = (
    *(b"NaN", b"-Infinity", b"+1", b"01", b"1.", b".5", b"0x1", b"'a'", b"True", b"nul", b"[1,]", b"{,}", b'{"a"}'),
    *(b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u12"', b'"\\x41"', b'"\x01"', b'"\xff"', b'"\xed\xa0\x80"'),
    *(b'"\xc0\xaf"', b"// a", b"[", b'"', b""),
)
VALID_DATE = "2023-07-15T12:34:56.789Z"
DATES = (
    "2023-07-15t12:34:56z",
    "2023-07-15 12:34:56+0530",
    "2016-12-31T23:59:60Z",
    "2023-07-15T24:00:00Z",
    "2023-07-15T12:34:56,5Z",
    "2023-07-15T12:34:56." + "9" * 60 + "Z",
    "0001-01-01T00:00:00+01:00",
    "9999-12-31T23:59:59.999999-23:59",
    "0000-00-00T00:00:00Z",
    "+12023-07-15T12:34:56Z",
    "2023-02-30T00:00:00Z",
    "2023-07-15",
    "1689424496",
    "Sat, 15 Jul 2023 12:34:56 GMT",
    "٢٠٢٣-٠٧-١٥T12:34:56Z",
)
DEPTHS = (50, 97, 98, 99, 100, 101, 500, 5_000)
TIMESTAMPS = (0, 1, -1, 1_700_000_000_000, 2**31, 253_402_300_799_999, 253_402_300_800_000, 2**63 - 1, -(2**63))
HEADER_NAMES = (
    *("", "a", "content-type", "created_at", "é", "__connect.errors.topic", "__connect.errors.offset"),
    *("__dead_letter.reason", "__dead_letter.replays", "__dead_letter.replayed", "__dead_letter.discarded"),
)

Headers = tuple[tuple[str, bytes | None], ...]


class KafkaMessage(NamedTuple):
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp: int | None = None


texts = st.sampled_from(TEXTS) | st.text(max_size=20)
strings = st.builds(lambda text, ascii_: json.dumps(text, ensure_ascii=ascii_).encode(), texts, st.booleans())
keys = st.sampled_from([json.dumps(key).encode() for key in KEYS]) | strings
separators = st.sampled_from((b",", b", ", b" \t,\r\n"))


def objects(fields: Sequence[tuple[bytes, bytes]], separator: bytes = b",") -> bytes:
    """A JSON object; the same key may occur several times."""
    return b"{" + separator.join(name + b":" + value for name, value in fields) + b"}"


def _nested(levels: int, brackets: tuple[bytes, bytes], closed: bool) -> bytes:
    opening, closing = brackets
    return opening * levels + b"1" + closing * (levels if closed else 0)


nested = st.builds(
    _nested,
    st.sampled_from(DEPTHS),
    st.sampled_from(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]"))),
    st.booleans(),
)
json_values = st.recursive(
    st.sampled_from(NUMBERS)
    | st.sampled_from((b"null", b"true", b"false"))
    | strings
    | st.sampled_from([json.dumps(date).encode() for date in DATES])
    | st.sampled_from(NOT_JSON)
    | nested,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: b"[" + b",".join(items) + b"]")
        | st.builds(objects, st.lists(st.tuples(keys, inner), max_size=3), separators)
    ),
    max_leaves=6,
)


@st.composite
def values(draw: st.DrawFn) -> bytes:
    """Valid messages with few ids and names, and in one of three a field replaced, added or repeated."""
    fields = [
        (b'"id"', b'"%d"' % draw(st.integers(0, 5))),
        (b'"name"', b'"item_%08d"' % draw(st.integers(0, 2))),
        (b'"created_at"', json.dumps(draw(st.sampled_from((*[VALID_DATE] * 50, *DATES)))).encode()),
        (b'"metadata"', b'{"source":"system-a","version":"1.0.0"}'),
    ]
    if draw(st.integers(0, 2)) == 2:
        value, position = draw(json_values), draw(st.integers(0, 2 * len(fields) - 1))
        if position < len(fields):
            fields[position] = (fields[position][0], value)
        else:
            fields.append((draw(keys), value))
    return objects(fields, draw(separators))


@st.composite
def damaged(draw: st.DrawFn, contents: st.SearchStrategy[bytes]) -> bytes:
    """Contents in which a few bytes are changed, deleted, repeated or inserted."""
    content = draw(contents)
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(content)))
        end = min(len(content), begin + draw(st.sampled_from((0, 1, 2, 8, 64))))
        part = draw(st.binary(max_size=4) | st.sampled_from((b'"', b"}", content[begin:end] * 2)))
        content = content[:begin] + part + content[end:]
    return content


def _wrapped(value: bytes) -> st.SearchStrategy[bytes]:
    """A message in the envelope that some clients add."""
    return st.sampled_from(
        (
            b"\xef\xbb\xbf" + value,
            value.decode(errors="replace").encode("utf-16"),
            b"\x00\x00\x00\x00\x0c" + value,
            b'{"schema":{},"payload":' + value + b"}",
            json.dumps(value.decode(errors="replace")).encode(),
            value + value,
            value + b"\n",
            b"\x00" + value,
            b"[" + value + b"]",
        )
    )


_kinds = (values(), damaged(values()), values().flatmap(_wrapped), json_values, st.binary(max_size=200))
any_values = st.sampled_from((*[_kinds[0]] * 8, *[_kinds[1]] * 3, *_kinds[2:])).flatmap(lambda kind: kind)
contents = st.none() | st.binary(max_size=40) | texts.map(str.encode)
header_names = st.sampled_from(HEADER_NAMES) | texts.map(lambda text: text.replace("\0", ""))
headers = st.lists(st.tuples(header_names, contents | st.just(b"3 since x")), max_size=3).map(tuple)
timestamps = st.none() | st.sampled_from(TIMESTAMPS) | st.integers(-(2**63), 2**63 - 1)
kafka_messages = st.builds(
    KafkaMessage, contents, st.integers(0, 19).flatmap(lambda n: any_values if n else st.none()), headers, timestamps
)

lines = st.builds(
    lambda value, end: value.replace(b"\n", b" ") + end, any_values, st.sampled_from((b"", b"\r", b" \t"))
)
