"""What people see: everything, and nothing that a terminal would obey."""

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.dead_letters.letter import OFFSET, PARTITION, TOPIC, sent_back
from src.dead_letters.text import VALUE_WIDTH, entry_as_json, escaped, page, record_as_json, shown, table
from src.model.header_names import as_text
from src.model.record import Record
from tests.naughty import STRINGS
from tests.test_dead_letter import AGENTS
from tests.test_dead_letter_entries import noted, parked, read

CONTROLS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def obeyed(text: str) -> set[str]:
    """The characters that a terminal would not show, or that end a line."""
    return {char for char in text if unicodedata.category(char) in CONTROLS}


def everything_said(record: Record) -> list[str]:
    found = read(record)
    return [*table(found), *page(record), record_as_json(record), *map(entry_as_json, found)]


def hostile(text: str) -> Record:
    """A letter that has this text wherever a text can be."""
    content = text.encode(errors="surrogatepass")
    name = as_text(content)
    record = parked(1, key=content, value=content, headers=((name, content), ("b", content)))
    theirs = ((TOPIC, content), (PARTITION, b"0"), (OFFSET, b"1"))
    ours = tuple((name, content) for name, _ in record.headers[2:] if name not in (PARTITION, OFFSET, TOPIC))
    return record._replace(headers=(*record.headers[:2], *ours, *theirs))


@pytest.mark.parametrize("text", [*STRINGS, "\ud800"])
def test_a_naughty_string_reaches_no_terminal(text: str) -> None:
    for line in everything_said(hostile(text)):
        assert not obeyed(line)


@given(st.text(st.characters()))
def test_no_text_reaches_the_terminal_as_anything_but_characters_to_show(text: str) -> None:
    assert not obeyed(escaped(text))


@given(st.binary() | st.none())
def test_no_bytes_do_either(content: bytes | None) -> None:
    assert not obeyed(shown(content))


def test_a_null_is_told_from_the_text_null() -> None:
    assert shown(None) == "null"
    assert shown(b"null") == '"null"'
    assert shown(b"\xff\n\x1b") == '"\\xff\\n\\x1b"'


def test_the_table_has_a_line_an_entry_under_its_names() -> None:
    first = parked(1, at=10, key=b"abc")
    lines = list(table(read(first, noted(first), parked(2, at=12, partition=3, headers=sent_back(first.headers)))))

    assert [line.split()[0] for line in lines] == ["PARKED", "2026-11-23T00:00:00.000Z", "2026-11-23T00:00:00.000Z"]
    assert [line.index("data-topic") for line in lines[1:]] == [lines[0].index("ORIGIN")] * 2
    assert 'sent back  not_json  data-topic 0:1  0:10    1        0        "abc"' in lines[1]
    assert "waiting    not_json  data-topic 3:2  0:12    1        1 " in lines[2]


def test_the_table_shows_the_beginning_of_a_long_value_and_a_dash_for_what_is_not_told() -> None:
    (_, line) = table(read(Record("dlq", 0, 0, None, b"x" * 1000)))

    assert line.split() == ["-", "foreign", "-", "-", "0:0", "1", "0", "null", '"' + "x" * (VALUE_WIDTH - 2) + "…"]


def test_a_page_shows_everything_of_a_letter() -> None:
    text = "\n".join(page(parked(41, at=7, partition=2, headers=AGENTS)))

    assert "dead letter   dlq 0:7, 2026-11-23T00:00:00.000Z" in text
    assert "origin        data-topic 2:41, 2023-07-15T12:35:00.123Z" in text
    assert "reason        not_json, stage process" in text
    assert "error         src.model.errors.InvalidMessage: the value is no JSON" in text
    assert "attempts      3, first failure 2023-11-14T22:13:20.250Z, last failure 2023-11-14T22:14:20.250Z" in text
    assert 'key           "\\x00key"\nvalue         "{"' in text
    assert 'own headers\n  a: null\n  a: ""\n  a: "\\xff\\xfe"\n  : "x"\n  a: "2"' in text
    assert "trace\n  Traceback (most recent call last):\n" in text


def test_a_header_name_that_is_not_utf8_is_shown_as_a_value_is() -> None:
    record = parked(41, headers=(("caf\udce9", b"\xff"),))

    assert 'own headers\n  caf\\xe9: "\\xff"' in "\n".join(page(record))
    assert json.loads(record_as_json(record))["headers"] == [[{"base64": "Y2Fm6Q=="}, {"base64": "/w=="}]]


def test_a_page_of_what_went_round_tells_both_failures() -> None:
    text = "\n".join(page(parked(42, headers=sent_back(parked(41).headers))))

    assert "replays       1, first failure 2023-11-14T22:13:20.250Z" in text


def test_a_page_of_a_foreign_record_shows_what_there_is() -> None:
    lines = list(page(Record("dlq", 0, 3, b"k", b"v", (), -1)))

    assert lines[0] == "dead letter   dlq 0:3, 1969-12-31T23:59:59.999Z"
    assert "origin        -, no time" in lines
    assert lines[-2:] == ["own headers   -", "trace         -"]


def test_a_time_that_no_calendar_holds_is_shown_as_its_number() -> None:
    record = parked(1, timestamp=2**62)._replace(timestamp=-(2**62))

    assert f", {2**62}" in "\n".join(page(record))
    assert json.loads(record_as_json(record))["parked_at"] == str(-(2**62))


def test_an_entry_is_one_json_object() -> None:
    (entry,) = read(parked(41, at=7, partition=2, key=None, value=b"\xff"))

    assert json.loads(entry_as_json(entry)) == {
        "state": "waiting",
        "reason": "not_json",
        "topic": "data-topic",
        "partition": 2,
        "offset": 41,
        "parked_at": "2026-11-23T00:00:00.000Z",
        "dead_letter": {"partition": 0, "offset": 7},
        "letters": 1,
        "replays": 0,
        "first_failure": None,
        "key": None,
        "value_begins": {"base64": "/w=="},
        "value_bytes": 1,
    }


def test_a_letter_is_one_json_object_with_everything() -> None:
    told: dict[str, Any] = json.loads(record_as_json(parked(41, at=7, partition=2, headers=AGENTS)))

    assert told.pop("trace").startswith("Traceback")
    assert told == {
        "topic": "data-topic",
        "partition": 2,
        "offset": 41,
        "reason": "not_json",
        "stage": "process",
        "exception": "src.model.errors.InvalidMessage",
        "text": "the value is no JSON",
        "attempts": "3",
        "first_failure": "2023-11-14T22:13:20.250Z",
        "last_failure": "2023-11-14T22:14:20.250Z",
        "timestamp_ms": "1689424500123",
        "parked_at": "2026-11-23T00:00:00.000Z",
        "dead_letter": {"partition": 0, "offset": 7},
        "replays": 0,
        "key": "\x00key",
        "value": "{",
        "headers": [["a", None], ["a", ""], ["a", {"base64": "//4="}], ["", "x"], ["a", "2"]],
    }
