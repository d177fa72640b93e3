"""What a dead letter says, and how it is read back."""

from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.dead_letters.letter import (
    ATTEMPTS,
    EXCEPTION,
    FIRST_FAILURE,
    HEADROOM,
    LAST_FAILURE,
    LONGEST_TEXT,
    LONGEST_TRACE,
    OFFSET,
    PARTITION,
    REASON,
    REPLAYED,
    REPLAYS,
    STAGE,
    TEXT,
    TIMESTAMP,
    TOPIC,
    TRACE,
    Letter,
    Origin,
    Replays,
    identity,
    letter,
    note,
    own_headers,
    read_note,
    read_origin,
    read_replays,
    read_time,
    sent_back,
    text_of,
    utc,
)
from src.model.errors import InvalidMessage
from src.model.header_names import as_text, sendable
from src.model.record import Record, Rejection
from tests.naughty import STRINGS

AGENTS = (("a", None), ("a", b""), ("a", b"\xff\xfe"), ("", b"x"), ("a", b"2"))
FAILED_AT = 1_700_000_000.25
NAMES = st.text() | st.sampled_from([TOPIC, PARTITION, OFFSET, TRACE, "__connect.errors.stage"])


def encoded(name: bytes) -> bytes:
    return b"base64:" + b64encode(name)


def raised(error: Exception) -> Exception:
    """The error as it is once it was raised, with its trace."""
    try:
        raise error
    except type(error) as caught:
        return caught


def rejection(headers: Any = AGENTS, *, error: Exception | None = None, **fields: Any) -> Rejection:
    record = Record("data-topic", 2, 41, b"\x00key", b"{", tuple(headers), 1_689_424_500_123)
    error = error or raised(InvalidMessage("not_json", "the value is no JSON"))
    parked = Rejection(record, "not_json", "process", error, 3, FAILED_AT, FAILED_AT + 60)
    return parked._replace(record=record._replace(**fields))


def parked_again(parked: Letter, *, offset: int) -> Letter:
    """The letter of a message that was sent back and is still broken."""
    again = rejection(sent_back(parked.headers), key=parked.key, value=parked.value, offset=offset)
    return letter(again._replace(first_failure=FAILED_AT + 3600, last_failure=FAILED_AT + 3600))


def test_a_letter_keeps_key_value_and_headers_and_says_why_behind_them() -> None:
    parked = letter(rejection())

    assert (parked.key, parked.value) == (b"\x00key", b"{")
    assert parked.headers[: len(AGENTS)] == AGENTS
    said = {name: content for name, content in parked.headers[len(AGENTS) :] if name != TRACE}
    assert said == {
        REASON: b"not_json",
        TOPIC: b"data-topic",
        PARTITION: b"2",
        OFFSET: b"41",
        STAGE: b"process",
        EXCEPTION: b"src.model.errors.InvalidMessage",
        TEXT: b"the value is no JSON",
        ATTEMPTS: b"3",
        FIRST_FAILURE: b"2023-11-14T22:13:20.250Z",
        LAST_FAILURE: b"2023-11-14T22:14:20.250Z",
        TIMESTAMP: b"1689424500123",
    }


def test_a_letter_has_the_trace_of_the_failure() -> None:
    trace = text_of(letter(rejection(error=raised(KeyError("lost")))).headers, TRACE) or ""

    assert trace.startswith("Traceback")
    assert trace.endswith("KeyError: 'lost'\n")


def test_nulls_stay_nulls_and_a_message_without_time_says_none() -> None:
    parked = letter(rejection((), key=None, value=None, timestamp=None))

    assert (parked.key, parked.value) == (None, None)
    assert text_of(parked.headers, TIMESTAMP) is None


def test_what_an_error_says_is_cut_so_that_every_letter_fits() -> None:
    parked = letter(rejection((), error=raised(ValueError("ü" * 1_000_000 + "end")), topic="t" * 249))

    text, trace = text_of(parked.headers, TEXT) or "", text_of(parked.headers, TRACE) or ""
    assert LONGEST_TEXT - 2 <= len(text.encode()) <= LONGEST_TEXT
    assert trace.endswith("end\n")
    assert LONGEST_TRACE - 2 <= len(trace.encode()) <= LONGEST_TRACE
    assert sum(len(name) + len(content or b"") for name, content in parked.headers) < HEADROOM


@pytest.mark.parametrize("text", [*STRINGS, "\ud800"])
def test_an_error_may_say_anything(text: str) -> None:
    parked = letter(rejection(error=raised(ValueError(text))))

    assert text_of(parked.headers, TEXT) == text.encode(errors="backslashreplace").decode()


def test_without_its_trace_a_letter_is_the_same_but_for_that() -> None:
    theirs = (*AGENTS, (TRACE, b"another program's"))
    parked = letter(rejection(theirs))

    smaller = parked.without_trace()

    assert smaller.headers[: len(theirs)] == theirs
    assert [name for name, _ in smaller.headers].count(TRACE) == 1
    assert len(smaller.headers) == len(parked.headers) - 1


def test_a_message_goes_back_with_its_own_headers_and_the_count_of_replays() -> None:
    headers = sent_back(letter(rejection()).headers)

    assert headers == (*AGENTS, (REPLAYS, b"1 since 2023-11-14T22:13:20.250Z"))


def test_a_message_replayed_thirty_times_has_a_letter_that_does_not_grow() -> None:
    second = parked_again(letter(rejection()), offset=42)
    last = second
    for round_ in range(2, 31):
        last = parked_again(last, offset=41 + round_)

    assert [name for name, _ in last.headers] == [name for name, _ in second.headers]
    assert read_replays(last.headers) == Replays(30, "2023-11-14T22:13:20.250Z")
    assert text_of(last.headers, FIRST_FAILURE) == "2023-11-14T22:13:20.250Z"
    assert text_of(last.headers, LAST_FAILURE) == "2023-11-14T23:13:20.250Z"
    assert read_origin(last.headers) == Origin("data-topic", 2, 71)
    assert own_headers(last.headers) == AGENTS


def test_a_letter_that_another_program_copied_back_keeps_its_first_failure() -> None:
    copied = letter(rejection()).headers

    again = letter(rejection(copied)._replace(first_failure=FAILED_AT + 3600))

    assert own_headers(again.headers) == AGENTS
    assert [name for name, _ in again.headers].count(REASON) == 1
    assert text_of(again.headers, FIRST_FAILURE) == "2023-11-14T22:13:20.250Z"


def test_headers_that_were_added_behind_a_letters_are_the_messages_own() -> None:
    headers = (*letter(rejection()).headers, ("traceparent", b"00-1"))

    assert own_headers(headers) == (*AGENTS, ("traceparent", b"00-1"))


@given(st.lists(st.tuples(NAMES.filter(lambda name: not name.startswith("__dead_letter.")), st.none() | st.binary())))
def test_whatever_headers_a_message_has_they_come_back_in_their_order(headers: list[tuple[str, bytes | None]]) -> None:
    parked = letter(rejection(headers))

    assert own_headers(parked.headers) == tuple(headers)
    assert own_headers(sent_back(parked.headers)) == tuple(headers)
    assert read_origin(parked.headers) == Origin("data-topic", 2, 41)


@given(st.binary() | st.binary().map(lambda name: b"base64:" + name) | st.binary().map(encoded))
def test_a_header_name_of_any_bytes_is_sent_as_it_is_or_in_base64_and_stays_so(content: bytes) -> None:
    name = as_text(content)
    ((original, _),) = own_headers([(name, None)])

    sent = sendable(original)

    assert sent == (name if is_text(content) else encoded(content).decode())
    assert own_headers([(sent, None)]) == ((original, None),)


def is_text(name: bytes) -> bool:
    try:
        return "\0" not in name.decode()
    except UnicodeDecodeError:
        return False


@pytest.mark.parametrize("name", ["base64:", "base64:YQ==", "base64:!", "base64:/w", "base64:6Q==\n", "base64:é"])
def test_a_header_name_that_only_looks_encoded_stays(name: str) -> None:
    assert own_headers([(name, b"1")]) == ((name, b"1"),)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        AGENTS,
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
def test_what_says_no_readable_place_has_no_origin(headers: tuple[tuple[str, bytes | None], ...]) -> None:
    assert read_origin(headers) is None
    assert identity(headers) is None


def test_a_time_is_a_number_of_63_bits() -> None:
    assert read_time(((TIMESTAMP, b"%d" % (2**63 - 1)),)) == 2**63 - 1
    assert read_time(((TIMESTAMP, b"%d" % 2**63),)) is None


def test_a_letter_of_kafka_connect_has_an_origin_too() -> None:
    headers = ((TOPIC, b"orders"), (PARTITION, b"3"), (OFFSET, b"7"), (STAGE, b"VALUE_CONVERTER"))

    assert read_origin(headers) == Origin("orders", 3, 7)
    assert sent_back(headers) == (*headers, (REPLAYS, b"1"))


def test_letters_of_one_message_have_one_identity_and_its_namesake_in_a_new_topic_has_another() -> None:
    first = letter(rejection()).headers
    repeated = letter(rejection()._replace(attempts=9, last_failure=FAILED_AT + 5)).headers
    namesake = letter(rejection(timestamp=1_789_424_500_123)).headers

    assert identity(first) == identity(repeated) != identity(namesake)


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
def test_a_count_of_replays_that_was_tampered_with_counts_nothing(content: bytes | None, expected: Replays) -> None:
    assert read_replays(((REPLAYS, content),)) == expected


def test_a_note_says_which_message_was_sent_back() -> None:
    key, value, headers = note("data-topic/2/41/1689424500123")

    assert read_note(Record("dlq", 0, 0, key, value, headers)) == "data-topic/2/41/1689424500123"
    assert key
    assert read_origin(headers) is None


def test_a_letter_is_never_taken_for_a_note() -> None:
    tombstone = letter(rejection(((REPLAYED, b"data-topic/2/41/1"),), value=None))

    assert read_note(Record("dlq", 0, 0, *tombstone)) is None
    assert read_note(Record("dlq", 0, 0, None, b"x", ((REPLAYED, b"data-topic/2/41/1"),))) is None
    assert read_note(Record("dlq", 0, 0, None, None, (("a", b"1"),))) is None


def test_times_are_told_in_utc_to_the_millisecond() -> None:
    assert utc(0.0) == "1970-01-01T00:00:00.000Z"
    assert utc(FAILED_AT) == "2023-11-14T22:13:20.250Z"
