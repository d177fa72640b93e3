"""Dead letters are shown completely, and without control characters."""

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from src.dead_letters.dead_letter import OFFSET, PARTITION, TOPIC, replay_headers
from src.dead_letters.entries import State
from src.dead_letters.summary import Group, summarize
from src.dead_letters.text import (
    VALUE_WIDTH,
    details,
    entry_as_json,
    group_as_json,
    quoted,
    record_as_json,
    summary_table,
    table,
)
from src.model.header_names import as_text
from src.model.record import Record
from tests.naughty import STRINGS
from tests.test_dead_letter import HEADERS
from tests.test_dead_letter_entries import dead_lettered, marker_of, read

CONTROLS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def controls(text: str) -> set[str]:
    """The characters that a terminal does not show, or that end a line."""
    return {char for char in text if unicodedata.category(char) in CONTROLS}


def all_texts(record: Record) -> list[str]:
    entries = read(record)
    groups = summarize(entries)
    return [
        *table(entries),
        *details(record, State.WAITING),
        record_as_json(record, State.WAITING),
        *map(entry_as_json, entries),
        *(line for group in groups for line in summary_table(group)),
        *(group_as_json(group) for name in groups for group in name),
    ]


def hostile(text: str) -> Record:
    """A dead letter that contains the text wherever possible."""
    content = text.encode(errors="surrogatepass")
    name = as_text(content)
    record = dead_lettered(1, key=content, value=content, headers=((name, content), ("b", content)))
    position = ((TOPIC, content), (PARTITION, b"0"), (OFFSET, b"1"))
    block = tuple((name, content) for name, _ in record.headers[2:] if name not in (PARTITION, OFFSET, TOPIC))
    return replace(record, headers=(*record.headers[:2], *block, *position))


@pytest.mark.parametrize("text", [*STRINGS, "\ud800"])
def test_a_naughty_string_is_escaped(text: str) -> None:
    for line in all_texts(hostile(text)):
        assert not controls(line)


@given(st.binary() | st.none())
def test_any_bytes_are_escaped(content: bytes | None) -> None:
    assert not controls(quoted(content))


def test_null_differs_from_the_text_null() -> None:
    assert quoted(None) == "null"
    assert quoted(b"null") == '"null"'
    assert quoted(b"\xff\n\x1b") == '"\\xff\\n\\x1b"'


def test_the_table_has_a_heading_and_one_line_per_entry() -> None:
    first = dead_lettered(1, at=10, key=b"abc")
    lines = list(
        table(
            read(first, marker_of(first), dead_lettered(2, at=12, partition=3, headers=replay_headers(first.headers)))
        )
    )

    assert [line.split()[0] for line in lines] == [
        "DEAD-LETTERED",
        "2026-11-23T00:00:00.000Z",
        "2026-11-23T00:00:00.000Z",
    ]
    assert [line.index("data-topic") for line in lines[1:]] == [lines[0].index("MESSAGE")] * 2
    assert 'replayed  not_json  data-topic 0:1  0:10         1       0        "abc"' in lines[1]
    assert "waiting   not_json  data-topic 3:2  0:12         1       1 " in lines[2]


def test_the_table_truncates_a_long_value_and_has_a_dash_for_what_is_unknown() -> None:
    (_, line) = table(read(Record("dlq", 0, 0, None, b"x" * 1000)))

    assert line.split() == ["-", "foreign", "-", "-", "0:0", "1", "0", "null", '"' + "x" * (VALUE_WIDTH - 2) + "…"]


def test_details_contain_the_whole_dead_letter() -> None:
    text = "\n".join(details(dead_lettered(41, at=7, partition=2, headers=HEADERS), State.WAITING))

    assert "dead letter   dlq 0:7, 2026-11-23T00:00:00.000Z" in text
    assert "message       data-topic 2:41, 2023-07-15T12:35:00.123Z" in text
    assert "state         waiting" in text
    assert "reason        not_json, stage process" in text
    assert "error         src.model.errors.InvalidMessage: the value is not JSON" in text
    assert "attempts      3, first failure 2023-11-14T22:13:20.250Z, last failure 2023-11-14T22:14:20.250Z" in text
    assert 'key           "\\x00key"\nvalue         "{"' in text
    assert 'headers\n  a: null\n  a: ""\n  a: "\\xff\\xfe"\n  : "x"\n  a: "2"' in text
    assert "stacktrace\n  Traceback (most recent call last):\n" in text


def test_a_header_name_that_is_not_utf8_is_shown_like_a_value() -> None:
    record = dead_lettered(41, headers=(("caf\udce9", b"\xff"),))

    assert 'headers\n  caf\\xe9: "\\xff"' in "\n".join(details(record, State.WAITING))
    assert json.loads(record_as_json(record, State.WAITING))["headers"] == [
        [{"base64": "Y2Fm6Q=="}, {"base64": "/w=="}]
    ]


def test_details_of_a_replayed_message_contain_both_failures() -> None:
    text = "\n".join(details(dead_lettered(42, headers=replay_headers(dead_lettered(41).headers)), State.WAITING))

    assert "replays       1, first failure 2023-11-14T22:13:20.250Z" in text


def test_details_of_a_foreign_record_contain_what_is_known() -> None:
    lines = list(details(Record("dlq", 0, 3, b"k", b"v", (), -1), State.WAITING))

    assert lines[0] == "dead letter   dlq 0:3, 1969-12-31T23:59:59.999Z"
    assert "message       -, no timestamp" in lines
    assert lines[-2:] == ["headers       -", "stacktrace    -"]


def test_a_timestamp_outside_of_the_calendar_is_shown_as_a_number() -> None:
    record = replace(dead_lettered(1, timestamp=2**62), timestamp=-(2**62))

    assert f", {2**62}" in "\n".join(details(record, State.WAITING))
    assert json.loads(record_as_json(record, State.WAITING))["dead_lettered_at"] == str(-(2**62))


def test_an_entry_is_one_json_object() -> None:
    (entry,) = read(dead_lettered(41, at=7, partition=2, key=None, value=b"\xff"))

    assert json.loads(entry_as_json(entry)) == {
        "state": "waiting",
        "reason": "not_json",
        "topic": "data-topic",
        "partition": 2,
        "offset": 41,
        "dead_lettered_at": "2026-11-23T00:00:00.000Z",
        "dead_letter": {"partition": 0, "offset": 7},
        "copies": 1,
        "replays": 0,
        "first_failure": None,
        "key": None,
        "value_prefix": {"base64": "/w=="},
        "value_bytes": 1,
    }


def test_a_dead_letter_is_one_json_object_with_everything() -> None:
    shown: dict[str, Any] = json.loads(
        record_as_json(dead_lettered(41, at=7, partition=2, headers=HEADERS), State.WAITING)
    )

    assert shown.pop("stacktrace").startswith("Traceback")
    assert shown == {
        "state": "waiting",
        "topic": "data-topic",
        "partition": 2,
        "offset": 41,
        "reason": "not_json",
        "stage": "process",
        "exception_class": "src.model.errors.InvalidMessage",
        "exception_message": "the value is not JSON",
        "attempts": "3",
        "first_failure": "2023-11-14T22:13:20.250Z",
        "last_failure": "2023-11-14T22:14:20.250Z",
        "timestamp_ms": "1689424500123",
        "dead_lettered_at": "2026-11-23T00:00:00.000Z",
        "dead_letter": {"partition": 0, "offset": 7},
        "replays": 0,
        "key": "\x00key",
        "value": "{",
        "headers": [["a", None], ["a", ""], ["a", {"base64": "//4="}], ["", "x"], ["a", "2"]],
    }


def test_a_summary_has_a_heading_and_one_line_per_group() -> None:
    groups = [
        Group("reason", "not_json", 12, 1_700_000_000_250, 1_700_000_060_250),
        Group("reason", "-", 1, None, None),
    ]

    assert list(summary_table(groups)) == [
        "REASON    MESSAGES  FIRST DEAD-LETTERED AT    LAST DEAD-LETTERED AT",
        "not_json  12        2023-11-14T22:13:20.250Z  2023-11-14T22:14:20.250Z",
        "-         1         -                         -",
    ]


def test_a_group_is_one_json_object() -> None:
    assert json.loads(group_as_json(Group("hour", "2023-11-14T22:00Z", 12, 1_700_000_000_250, None))) == {
        "by": "hour",
        "name": "2023-11-14T22:00Z",
        "messages": 12,
        "first_dead_lettered_at": "2023-11-14T22:13:20.250Z",
        "last_dead_lettered_at": None,
    }
