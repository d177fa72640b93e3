"""The user's own lines become messages, byte for byte."""

import io
import json
import os
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.jsonl_input import READ_AHEAD, UserLines, from_line, opened
from src.model.errors import InvalidInput
from src.model.message import Encoded
from tests.fakes import DEADLINE

NOON = 1_689_424_496.789
HEADERS: list[tuple[str, bytes | None]] = [
    ("content-type", b"application/json"),
    ("created_at", b"2023-07-15T12:34:56.789Z"),
]


def parsed(line: bytes) -> Encoded:
    return from_line(line, "2023-07-15T12:34:56.789Z", lambda: "new-id")


def all_of(lines: UserLines) -> list[Encoded]:
    messages: list[Encoded] = []
    waiting = Event()
    for _ in range(int(DEADLINE / 0.001)):
        if lines.exhausted:
            return messages
        messages += lines.take(100) or (waiting.wait(0.001) and []) or []
    raise AssertionError("the lines do not end")


def lines_of(content: bytes) -> UserLines:
    return UserLines(io.BytesIO(content), clock=lambda: NOON, new_id=lambda: "new-id")


def test_long_lines_come_in_small_batches_and_are_not_read_far_ahead() -> None:
    line = b'{"x":"' + b"y" * (READ_AHEAD // 4) + b'"}\n'
    stream = io.BytesIO(line * 40)

    def until_read(lines: int) -> str:
        waiting = Event()
        for _ in range(int(DEADLINE / 0.001)):
            if stream.tell() >= lines * len(line):
                return "new-id"
            waiting.wait(0.001)
        raise AssertionError("no more is read")

    lines = UserLines(stream, new_id=lambda: until_read(min(5 + lines.read, 40)))
    until_read(5)
    at_first = stream.tell()

    batch = lines.take(1000)

    assert at_first == 5 * len(line)
    assert len(batch) == 4


def test_the_id_is_the_key_and_the_bytes_are_passed_on() -> None:
    line = b'{ "id" : "a", "n": 1e2, "big": 18446744073709551616, "t": "\xe2\x80\xa8" }\r\n'

    assert parsed(line) == Encoded(b"a", line.strip(), HEADERS)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"{}", b'{"id":"new-id"}'),
        (b"{ }", b'{"id":"new-id" }'),
        (b' {"a": 1.50}\n', b'{"id":"new-id","a": 1.50}'),
    ],
)
def test_a_line_without_an_id_is_given_one_and_nothing_else_of_it_changes(line: bytes, value: bytes) -> None:
    message = parsed(line)

    assert (message.key, message.value) == (b"new-id", value)
    assert json.loads(value)["id"] == "new-id"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"a":"\xff"}', "not JSON"),
        (b'{"a":NaN}', "not JSON"),
        (b'{"id":"a"} {"id":"b"}', "not JSON"),
        (b'{"a":"\\ud800"}', "not JSON"),
        (b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "not JSON"),
        ('\ufeff{"id":"a"}'.encode(), "not JSON"),
        ('{"id":"a"}'.encode("utf-16"), "not JSON"),
        (b"[]", "not a JSON object but list"),
        (b"null", "not a JSON object but NoneType"),
        (b'"text"', "not a JSON object but str"),
        (b'{"id":""}', "its id is not a non-empty string"),
        (b'{"id":7}', "its id is not a non-empty string"),
        (b'{"id":null}', "its id is not a non-empty string"),
    ],
)
def test_what_is_no_message_is_refused_with_its_reason(line: bytes, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        parsed(line)


@given(st.binary())
def test_no_line_raises_anything_else(line: bytes) -> None:
    try:
        message = parsed(line)
    except InvalidInput:
        return
    assert json.loads(message.value or b"")["id"].encode() == message.key


def test_broken_lines_are_named_by_their_number_and_their_neighbours_are_sent(caplog: pytest.LogCaptureFixture) -> None:
    lines = lines_of(b'{"id":"a"}\n\nbroken\n{"id":"b"}\n[]')

    messages = all_of(lines)

    assert [message.key for message in messages] == [b"a", b"b"]
    assert (lines.read, lines.broken) == (4, 2)
    assert [record.__dict__["line"] for record in caplog.records] == [3, 5]


def test_a_bom_at_the_start_is_no_part_of_the_first_line() -> None:
    messages = all_of(lines_of('\ufeff{"id":"a"}\n{"id":"b"}'.encode()))

    assert [message.value for message in messages] == [b'{"id":"a"}', b'{"id":"b"}']


def test_lines_end_at_newlines_alone() -> None:
    text = '{"id":"a","t":"\u2028\u2029\u0085"}\n'.encode()

    messages = all_of(lines_of(text * 2))

    assert [message.value for message in messages] == [text.strip()] * 2


def test_a_pipe_that_says_nothing_holds_nobody_up() -> None:
    receiving, sending = os.pipe()
    with open(sending, "wb", buffering=0) as pipe:
        lines = UserLines(os.fdopen(receiving, "rb"))
        nothing = lines.take(10)
        pipe.write(b'{"id":"a"}\n')
        pipe.close()

        messages = all_of(lines)

    assert nothing == []
    assert [message.key for message in messages] == [b"a"]


def test_a_named_pipe_is_waited_for_by_the_reader_alone(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    lines = UserLines(opened(str(pipe)))
    nothing = lines.take(10)

    pipe.write_bytes(b'{"id":"a"}\n')

    assert nothing == []
    assert [message.key for message in all_of(lines)] == [b"a"]


def test_a_stream_that_breaks_off_is_an_error() -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        all_of(UserLines(io.BufferedReader(Broken())))
