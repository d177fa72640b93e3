"""The format of a dead letter, and how it is read."""

from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from src.dead_letters.dead_letter import (
    ATTEMPTS,
    EXCEPTION_CLASS,
    EXCEPTION_MESSAGE,
    FIRST_FAILURE,
    LAST_FAILURE,
    MAX_EXCEPTION_MESSAGE_BYTES,
    MAX_OVERHEAD_BYTES,
    MAX_STACKTRACE_BYTES,
    OFFSET,
    PARTITION,
    REASON,
    REPLAYED,
    REPLAYS,
    STACKTRACE,
    STAGE,
    TIMESTAMP,
    TOPIC,
    DeadLetter,
    Replays,
    dead_letter_of,
    discard_marker,
    header_text,
    is_discard_marker,
    message_identity,
    original_headers,
    original_position,
    original_timestamp,
    read_replay_marker,
    read_replays,
    replay_headers,
    replay_marker,
)
from src.model.errors import InvalidMessage
from src.model.header_names import as_text, sendable
from src.model.position import MessagePosition
from src.model.record import ORIGINAL_POSITION, Record, Rejection
from tests.naughty import STRINGS

HEADERS = (("a", None), ("a", b""), ("a", b"\xff\xfe"), ("", b"x"), ("a", b"2"))
FAILED_AT = 1_700_000_000.25
NAMES = st.text() | st.sampled_from([TOPIC, PARTITION, OFFSET, STACKTRACE, "__connect.errors.stage"])


def encoded(name: bytes) -> bytes:
    return b"base64:" + b64encode(name)


def raised(error: Exception) -> Exception:
    """With its stack trace."""
    try:
        raise error
    except type(error) as caught:
        return caught


def rejection(headers: Any = HEADERS, *, error: Exception | None = None, **fields: Any) -> Rejection:
    record = Record("data-topic", 2, 41, b"\x00key", b"{", tuple(headers), 1_689_424_500_123)
    error = error or raised(InvalidMessage("not_json", "the value is not JSON"))
    record = replace(record, **fields)
    return Rejection(record, "not_json", "process", error, 3, FAILED_AT, FAILED_AT + 60)


def replayed_and_rejected(dead_letter: DeadLetter, *, offset: int) -> DeadLetter:
    """The next dead letter, of a message that is still invalid."""
    again = rejection(replay_headers(dead_letter.headers), key=dead_letter.key, value=dead_letter.value, offset=offset)
    return dead_letter_of(again._replace(first_failure=FAILED_AT + 3600, last_failure=FAILED_AT + 3600))


def test_a_dead_letter_keeps_key_value_and_headers_followed_by_the_reason() -> None:
    dead_letter = dead_letter_of(rejection())

    assert (dead_letter.key, dead_letter.value) == (b"\x00key", b"{")
    assert dead_letter.headers[: len(HEADERS)] == HEADERS
    added = {name: content for name, content in dead_letter.headers[len(HEADERS) :] if name != STACKTRACE}
    assert added == {
        REASON: b"not_json",
        TOPIC: b"data-topic",
        PARTITION: b"2",
        OFFSET: b"41",
        STAGE: b"process",
        EXCEPTION_CLASS: b"src.model.errors.InvalidMessage",
        EXCEPTION_MESSAGE: b"the value is not JSON",
        ATTEMPTS: b"3",
        FIRST_FAILURE: b"2023-11-14T22:13:20.250Z",
        LAST_FAILURE: b"2023-11-14T22:14:20.250Z",
        TIMESTAMP: b"1689424500123",
    }


def test_a_dead_letter_contains_the_stack_trace() -> None:
    stacktrace = header_text(dead_letter_of(rejection(error=raised(KeyError("lost")))).headers, STACKTRACE) or ""

    assert stacktrace.startswith("Traceback")
    assert stacktrace.endswith("KeyError: 'lost'\n")


def test_nulls_are_kept_and_a_missing_timestamp_has_no_header() -> None:
    dead_letter = dead_letter_of(rejection((), key=None, value=None, timestamp=None))

    assert (dead_letter.key, dead_letter.value) == (None, None)
    assert header_text(dead_letter.headers, TIMESTAMP) is None


def test_long_errors_are_truncated_to_limit_the_overhead() -> None:
    dead_letter = dead_letter_of(rejection((), error=raised(ValueError("ü" * 1_000_000 + "end")), topic="t" * 249))

    text, stacktrace = (
        header_text(dead_letter.headers, EXCEPTION_MESSAGE) or "",
        header_text(dead_letter.headers, STACKTRACE) or "",
    )
    assert MAX_EXCEPTION_MESSAGE_BYTES - 2 <= len(text.encode()) <= MAX_EXCEPTION_MESSAGE_BYTES
    assert stacktrace.endswith("end\n")
    assert MAX_STACKTRACE_BYTES - 2 <= len(stacktrace.encode()) <= MAX_STACKTRACE_BYTES
    assert sum(len(name) + len(content or b"") for name, content in dead_letter.headers) < MAX_OVERHEAD_BYTES


@pytest.mark.parametrize("text", [*STRINGS, "\ud800"])
def test_an_error_may_contain_any_text(text: str) -> None:
    dead_letter = dead_letter_of(rejection(error=raised(ValueError(text))))

    assert header_text(dead_letter.headers, EXCEPTION_MESSAGE) == text.encode(errors="backslashreplace").decode()


def test_only_the_stack_trace_of_this_service_is_removed() -> None:
    foreign = (*HEADERS, (STACKTRACE, b"another program's"))
    dead_letter = dead_letter_of(rejection(foreign))

    smaller = dead_letter.without_stacktrace()

    assert smaller.headers[: len(foreign)] == foreign
    assert [name for name, _ in smaller.headers].count(STACKTRACE) == 1
    assert len(smaller.headers) == len(dead_letter.headers) - 1


def test_a_message_is_replayed_with_its_original_headers_and_the_number_of_replays() -> None:
    headers = replay_headers(dead_letter_of(rejection()).headers)

    assert headers == (
        *HEADERS,
        (REPLAYS, b"1 since 2023-11-14T22:13:20.250Z"),
        (ORIGINAL_POSITION, b"data-topic/2/41"),
    )


def test_the_dead_letter_of_a_message_that_was_replayed_thirty_times_does_not_grow() -> None:
    second = replayed_and_rejected(dead_letter_of(rejection()), offset=42)
    last = second
    for replay in range(2, 31):
        last = replayed_and_rejected(last, offset=41 + replay)

    assert [name for name, _ in last.headers] == [name for name, _ in second.headers]
    assert read_replays(last.headers) == Replays(30, "2023-11-14T22:13:20.250Z")
    assert header_text(last.headers, FIRST_FAILURE) == "2023-11-14T22:13:20.250Z"
    assert header_text(last.headers, LAST_FAILURE) == "2023-11-14T23:13:20.250Z"
    assert original_position(last.headers) == MessagePosition("data-topic", 2, 71)
    assert header_text(replay_headers(last.headers), ORIGINAL_POSITION) == "data-topic/2/41"
    assert original_headers(last.headers) == HEADERS


def test_a_dead_letter_that_another_program_replayed_keeps_its_first_failure() -> None:
    copied = dead_letter_of(rejection()).headers

    again = dead_letter_of(rejection(copied)._replace(first_failure=FAILED_AT + 3600))

    assert original_headers(again.headers) == HEADERS
    assert [name for name, _ in again.headers].count(REASON) == 1
    assert header_text(again.headers, FIRST_FAILURE) == "2023-11-14T22:13:20.250Z"


def test_headers_that_another_program_added_after_the_block_are_original_headers() -> None:
    headers = (*dead_letter_of(rejection()).headers, ("traceparent", b"00-1"))

    assert original_headers(headers) == (*HEADERS, ("traceparent", b"00-1"))


@given(st.lists(st.tuples(NAMES.filter(lambda name: not name.startswith("__dead_letter.")), st.none() | st.binary())))
def test_any_headers_are_restored_in_order(headers: list[tuple[str, bytes | None]]) -> None:
    dead_letter = dead_letter_of(rejection(headers))

    assert original_headers(dead_letter.headers) == tuple(headers)
    assert original_headers(replay_headers(dead_letter.headers)) == tuple(headers)
    assert original_position(dead_letter.headers) == MessagePosition("data-topic", 2, 41)


@given(st.binary() | st.binary().map(lambda name: b"base64:" + name) | st.binary().map(encoded))
def test_a_header_name_is_sent_unchanged_or_in_base64_and_is_restored(content: bytes) -> None:
    name = as_text(content)
    ((original, _),) = original_headers([(name, None)])

    sent = sendable(original)

    assert sent == (name if is_text(content) else encoded(content).decode())
    assert original_headers([(sent, None)]) == ((original, None),)


def is_text(name: bytes) -> bool:
    try:
        return "\0" not in name.decode()
    except UnicodeDecodeError:
        return False


@pytest.mark.parametrize("name", ["base64:", "base64:YQ==", "base64:!", "base64:/w", "base64:6Q==\n", "base64:é"])
def test_a_header_name_that_only_looks_encoded_is_not_decoded(name: str) -> None:
    assert original_headers([(name, b"1")]) == ((name, b"1"),)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        HEADERS,
        ((TOPIC, b"t"), (PARTITION, b"0")),
        ((TOPIC, b"t"), (PARTITION, b"zero"), (OFFSET, b"1")),
        ((TOPIC, b"t"), (PARTITION, b"0"), (OFFSET, b"-1")),
        ((TOPIC, b"t"), (PARTITION, b"0"), (OFFSET, b"1" * 5000)),
        ((TOPIC, b"t"), (PARTITION, "٣".encode()), (OFFSET, b"1")),
        ((TOPIC, b"t"), (PARTITION, None), (OFFSET, b"1")),
        ((TOPIC, b"\xff"), (PARTITION, b"0"), (OFFSET, b"1")),
        ((TOPIC, None), (PARTITION, b""), (OFFSET, b"1")),
        ((TOPIC, b"a\0b"), (PARTITION, b"0"), (OFFSET, b"1")),
        ((TOPIC, b""), (PARTITION, b"0"), (OFFSET, b"1")),
        ((TOPIC, b"t\n"), (PARTITION, b"0"), (OFFSET, b"1")),
        ((TOPIC, b"t"), (PARTITION, b"0"), (OFFSET, b"%d" % 2**63)),
    ],
)
def test_without_a_valid_position_there_is_no_original_position(headers: tuple[tuple[str, bytes | None], ...]) -> None:
    assert original_position(headers) is None
    assert message_identity(headers) is None


def test_a_timestamp_has_up_to_63_bits() -> None:
    assert original_timestamp(((TIMESTAMP, b"%d" % (2**63 - 1)),)) == 2**63 - 1
    assert original_timestamp(((TIMESTAMP, b"%d" % 2**63),)) is None


def test_a_dead_letter_of_kafka_connect_has_an_original_position() -> None:
    headers = ((TOPIC, b"orders"), (PARTITION, b"3"), (OFFSET, b"7"), (STAGE, b"VALUE_CONVERTER"))

    assert original_position(headers) == MessagePosition("orders", 3, 7)
    assert replay_headers(headers) == (*headers, (REPLAYS, b"1"), (ORIGINAL_POSITION, b"orders/3/7"))


def test_the_identity_is_that_of_the_message_even_if_the_topic_was_recreated() -> None:
    first = dead_letter_of(rejection()).headers
    repeated = dead_letter_of(rejection()._replace(attempts=9, last_failure=FAILED_AT + 5)).headers
    recreated = dead_letter_of(rejection(timestamp=1_789_424_500_123)).headers

    assert message_identity(first) == message_identity(repeated) != message_identity(recreated)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"3 since 2023-11-14T22:13:20.250Z", Replays(3, "2023-11-14T22:13:20.250Z")),
        (b"3", Replays(3)),
        (b"", Replays()),
        (None, Replays()),
        (b"\xff", Replays()),
        (b"-1", Replays()),
        (b"9" * 5000, Replays()),
    ],
)
def test_an_invalid_number_of_replays_counts_as_none(content: bytes | None, expected: Replays) -> None:
    assert read_replays(((REPLAYS, content),)) == expected


def test_a_replay_marker_identifies_the_message() -> None:
    key, value, headers = replay_marker("data-topic/2/41/1689424500123")

    assert read_replay_marker(Record("dlq", 0, 0, key, value, headers)) == "data-topic/2/41/1689424500123"
    assert key
    assert original_position(headers) is None


def test_a_dead_letter_is_never_read_as_a_replay_marker() -> None:
    tombstone = dead_letter_of(rejection(((REPLAYED, b"data-topic/2/41/1"),), value=None))

    assert read_replay_marker(Record("dlq", 0, 0, *tombstone)) is None
    assert read_replay_marker(Record("dlq", 0, 0, None, b"x", ((REPLAYED, b"data-topic/2/41/1"),))) is None
    assert read_replay_marker(Record("dlq", 0, 0, None, None, (("a", b"1"),))) is None


def test_a_discard_marker_is_a_replay_marker_for_versions_that_know_no_other() -> None:
    discarded = Record("dlq", 0, 0, *discard_marker("data-topic/2/41/1689424500123"))
    replayed = Record("dlq", 0, 0, *replay_marker("data-topic/2/41/1689424500123"))

    assert read_replay_marker(discarded) == read_replay_marker(replayed) == "data-topic/2/41/1689424500123"
    assert (is_discard_marker(discarded), is_discard_marker(replayed)) == (True, False)
