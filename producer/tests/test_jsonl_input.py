"""Input lines become messages, byte for byte."""

import bz2
import gzip
import io
import json
import lzma
import os
from contextlib import suppress
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.jsonl_input import READ_AHEAD_BYTES, READ_SIZE, JsonlInput, open_input, parse_line
from src.model.errors import InvalidMessage
from src.model.message import EncodedHeaders, ProducerRecord
from src.utils.config import ConfigurationError
from tests.fakes import DEADLINE

NOON = 1_689_424_496.789
HEADERS: EncodedHeaders = [
    ("content-type", b"application/json"),
    ("created_at", b"2023-07-15T12:34:56.789Z"),
]


def parsed(line: bytes) -> ProducerRecord:
    return parse_line(line, HEADERS, lambda: "new-id")


def all_of(lines: JsonlInput) -> list[ProducerRecord]:
    messages: list[ProducerRecord] = []
    waiting = Event()
    for _ in range(int(DEADLINE / 0.001)):
        if lines.exhausted:
            return messages
        messages += lines.next_batch(100) or (waiting.wait(0.001) and []) or []
    raise AssertionError("the lines do not end")


def lines_of(content: bytes) -> JsonlInput:
    return JsonlInput(io.BytesIO(content), clock=lambda: NOON, new_id=lambda: "new-id")


def test_long_lines_are_bounded_in_batches_and_read_ahead() -> None:
    line = b'{"x":"' + b"y" * (READ_AHEAD_BYTES // 4) + b'"}\n'
    stream = io.BytesIO(line * 40)

    def until_read(lines: int) -> str:
        waiting = Event()
        for _ in range(int(DEADLINE / 0.001)):
            if stream.tell() >= lines * len(line):
                return "new-id"
            waiting.wait(0.001)
        raise AssertionError("no more is read")

    lines = JsonlInput(stream, new_id=lambda: until_read(min(6 + lines.read, 40)))
    until_read(5)
    at_first = stream.tell()

    batch = lines.next_batch(1000)

    assert at_first <= 5 * len(line) + READ_SIZE
    assert len(batch) == 4


def test_the_id_is_the_key_and_the_bytes_are_unchanged() -> None:
    line = b'{ "id" : "a", "n": 1e2, "big": 18446744073709551616, "t": "\xe2\x80\xa8" }\r\n'

    assert parsed(line) == ProducerRecord(b"a", line.strip(), HEADERS)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"{}", b'{"id":"new-id"}'),
        (b"{ }", b'{"id":"new-id" }'),
        (b' {"a": 1.50}\n', b'{"id":"new-id","a": 1.50}'),
    ],
)
def test_a_missing_id_is_inserted_and_nothing_else_changes(line: bytes, value: bytes) -> None:
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
        (b'{"id":""}', "id is not a non-empty string or an integer of 64 bits"),
        (b'{"id":7.0}', "id is not a non-empty string or an integer"),
        (b'{"id":true}', "id is not a non-empty string or an integer"),
        (b'{"id":9223372036854775808}', "id is not a non-empty string or an integer"),
        (b'{"id":null}', "id is not a non-empty string or an integer"),
    ],
)
def test_an_invalid_line_is_rejected_with_its_reason(line: bytes, reason: str) -> None:
    with pytest.raises(InvalidMessage, match=reason):
        parsed(line)


@given(st.binary())
def test_no_line_raises_any_other_error(line: bytes) -> None:
    try:
        message = parsed(line)
    except InvalidMessage:
        return
    assert str(json.loads(message.value or b"")["id"]).encode() == message.key


@pytest.mark.parametrize(
    ("line", "path", "key"),
    [
        (b'{"id":-7}', "id", b"-7"),
        (b'{"event_id":"e-1"}', "event_id", b"e-1"),
        (b'{"meta":{"event":{"id":12}},"id":null}', "meta.event.id", b"12"),
    ],
)
def test_the_id_field_is_the_key_and_the_line_unchanged(line: bytes, path: str, key: bytes) -> None:
    [record] = all_of(JsonlInput(io.BytesIO(line), clock=lambda: 0, id_field=path))

    assert (record.key, record.value) == (key, line)


@pytest.mark.parametrize("line", [b"{}", b'{"id":"1"}', b'{"meta":{"x":1}}', b'{"meta":[{"id":"1"}]}'])
def test_an_id_field_that_is_missing_is_named_and_not_inserted(line: bytes) -> None:
    with pytest.raises(InvalidMessage, match=r"the message has no meta\.id, which is the id; see --id-field"):
        parse_line(line, HEADERS, lambda: "new", ("meta", "id"))


def test_invalid_lines_are_logged_by_number_and_the_others_are_sent(caplog: pytest.LogCaptureFixture) -> None:
    lines = lines_of(b'{"id":"a"}\n\nbroken\n{"id":"b"}\n[]')

    messages = all_of(lines)

    assert [message.key for message in messages] == [b"a", b"b"]
    assert (lines.read, lines.invalid) == (4, 2)
    assert [record.__dict__["line"] for record in caplog.records] == [3, 5]


def test_a_byte_order_mark_at_the_start_is_ignored() -> None:
    messages = all_of(lines_of('\ufeff{"id":"a"}\n{"id":"b"}'.encode()))

    assert [message.value for message in messages] == [b'{"id":"a"}', b'{"id":"b"}']


def test_lines_end_only_at_newline_characters() -> None:
    text = '{"id":"a","t":"\u2028\u2029\u0085"}\n'.encode()

    messages = all_of(lines_of(text * 2))

    assert [message.value for message in messages] == [text.strip()] * 2


class Pieces(io.RawIOBase):
    """A stream that arrives in pieces of these sizes, and then of one byte."""

    def __init__(self, content: bytes, sizes: list[int]) -> None:
        self._content = io.BytesIO(content)
        self._sizes = iter(sizes)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = self._content.read(next(self._sizes, 1))
        buffer[: len(piece)] = piece
        return len(piece)


@given(
    st.lists(st.sampled_from((b'{"id":"a"}', b"{}", b"", b" \r", b"[]")) | st.binary()), st.lists(st.integers(1, 40))
)
def test_lines_are_the_same_in_whatever_pieces_they_arrive(some_lines: list[bytes], sizes: list[int]) -> None:
    content = b"\n".join([b"{}", *some_lines])  # the first line shows that it is no other format
    lines = JsonlInput(io.BufferedReader(Pieces(content, sizes)), clock=lambda: NOON, new_id=lambda: "new-id")

    messages = all_of(lines)

    expected = []
    for line in content.split(b"\n"):
        with suppress(InvalidMessage):
            expected.append(parsed(line))
    assert messages == expected
    assert lines.read == sum(bool(line.strip()) for line in content.split(b"\n"))


def test_lines_without_id_get_different_ids() -> None:
    messages = all_of(JsonlInput(io.BytesIO(b"{}\n" * 1000)))

    assert len({message.key for message in messages}) == 1000


def test_an_idle_pipe_does_not_block() -> None:
    receiving, sending = os.pipe()
    with open(sending, "wb", buffering=0) as pipe:
        lines = JsonlInput(os.fdopen(receiving, "rb"))
        nothing = lines.next_batch(10)
        pipe.write(b'{"id":"a"}\n')
        pipe.close()

        messages = all_of(lines)

    assert nothing == []
    assert [message.key for message in messages] == [b"a"]


def test_a_named_pipe_without_a_writer_does_not_block(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    lines = JsonlInput(open_input(str(pipe)))
    nothing = lines.next_batch(10)

    pipe.write_bytes(b'{"id":"a"}\n')

    assert nothing == []
    assert [message.key for message in all_of(lines)] == [b"a"]


def test_a_read_error_is_raised() -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        all_of(JsonlInput(io.BufferedReader(Broken())))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ('{"id": "a"}\n'.encode("utf-16"), "UTF-16"),
        ('{"id": "a"}\n'.encode("utf-16-le"), "UTF-16"),
        ('{"id": "a"}\n'.encode("utf-16-be"), "UTF-16"),
        (gzip.compress(b'{"id": "a"}\n'), "compressed with gzip"),
        (bz2.compress(b'{"id": "a"}\n'), "compressed with bzip2"),
        (lzma.compress(b'{"id": "a"}\n'), "compressed with xz"),
        (b"PK\x03\x04...", "a zip archive"),
    ],
    ids=["utf-16", "utf-16-le", "utf-16-be", "gzip", "bzip2", "xz", "zip"],
)
def test_an_input_that_is_not_utf_8_text_is_one_error(content: bytes, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"the input is {name}; convert it to UTF-8 text"):
        all_of(lines_of(content))
