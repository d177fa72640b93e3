"""What a dead letter looks like: the parked message as it came, and behind its own headers those that say why.

Our headers are one block, in this order, and everything before it is the message's own:

    __dead_letter.reason                       a short constant, as in consumer_dead_letters_total
    __connect.errors.topic, .partition, .offset            where the message was; named as Kafka Connect names them
    __connect.errors.stage                     process or store
    __connect.errors.exception.class.name, .exception.message, .exception.stacktrace
    __dead_letter.attempts, .first_failure, .last_failure
    __dead_letter.timestamp_ms                 the message's own timestamp; the letter has one of now
    __dead_letter.replays                      how often it was sent back, and since when it fails: "3 since 2023-…Z"

A message that is sent back has its own headers and `__dead_letter.replays`. If it is parked again, the block of the
last time goes and the new one counts on, so that a letter does not grow from round to round.

A header name that the client cannot send is base64-encoded, see `model/header_names.py`. Reading a dead letter restores
the name. A replayed message keeps the encoded name, because the same client sends it; its next dead letter has the same
name.

A note in the dead-letter topic (`__dead_letter.replayed`, no value) says which message was sent back. It lives as long
as the letters do.
"""

import re
import traceback
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from src.model.header_names import original
from src.model.record import Headers, Record, Rejection
from src.settings import TOPIC_NAME

REASON = "__dead_letter.reason"
TOPIC = "__connect.errors.topic"
PARTITION = "__connect.errors.partition"
OFFSET = "__connect.errors.offset"
STAGE = "__connect.errors.stage"
EXCEPTION = "__connect.errors.exception.class.name"
TEXT = "__connect.errors.exception.message"
TRACE = "__connect.errors.exception.stacktrace"
ATTEMPTS = "__dead_letter.attempts"
FIRST_FAILURE = "__dead_letter.first_failure"
LAST_FAILURE = "__dead_letter.last_failure"
TIMESTAMP = "__dead_letter.timestamp_ms"
REPLAYS = "__dead_letter.replays"
REPLAYED = "__dead_letter.replayed"

LONGEST_TRACE = 8192  # bytes
LONGEST_TEXT = 1024  # bytes; the store's errors may quote a whole document
HEADROOM = 16_384  # bytes that the block adds to a message at most

_PREFIX = "__dead_letter."
_BLOCK = frozenset((TOPIC, PARTITION, OFFSET, STAGE, EXCEPTION, TEXT, TRACE))
_SINCE = " since "


class Letter(NamedTuple):
    """What is sent to the dead-letter topic."""

    key: bytes | None
    value: bytes | None
    headers: Headers

    def without_trace(self) -> "Letter":
        """The same a little smaller; a header of that name that is the message's own stays."""
        position = max(index for index, (name, _) in enumerate(self.headers) if name == TRACE)
        return self._replace(headers=self.headers[:position] + self.headers[position + 1 :])


class Origin(NamedTuple):
    """Where a parked message was."""

    topic: str
    partition: int
    offset: int


class Replays(NamedTuple):
    """How often a message was sent back, and when it failed for the first time (empty if that is not known)."""

    times: int = 0
    since: str = ""


# -- writing


def letter(rejection: Rejection) -> Letter:
    """The letter that parks a record: key and value as they are, its own headers and then ours."""
    record = rejection.record
    return Letter(record.key, record.value, own_headers(record.headers) + tuple(_block(rejection)))


def sent_back(headers: Sequence[tuple[str, bytes | None]]) -> Headers:
    """The headers with which a parked message goes back: its own, and how often that was done."""
    replays = read_replays(headers)
    since = replays.since or text_of(headers, FIRST_FAILURE) or ""
    return (*own_headers(headers), _replays(replays.times + 1, since))


def note(identity: str) -> Letter:
    """Says that the message of this identity was sent back. It has a key: a compacted topic takes no other."""
    return Letter(identity.encode(), None, ((REPLAYED, identity.encode()),))


def utc(seconds: float) -> str:
    """An instant as text, in UTC and to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _block(rejection: Rejection) -> Iterable[tuple[str, bytes]]:
    record, error = rejection.record, rejection.error
    before = read_replays(record.headers)
    first_failure = before.since or text_of(record.headers, FIRST_FAILURE) or utc(rejection.first_failure)
    yield REASON, rejection.reason.encode()
    yield TOPIC, record.topic.encode()
    yield PARTITION, b"%d" % record.partition
    yield OFFSET, b"%d" % record.offset
    yield STAGE, rejection.stage.encode()
    yield EXCEPTION, f"{type(error).__module__}.{type(error).__qualname__}".encode()
    yield TEXT, _beginning(str(error), LONGEST_TEXT)
    yield TRACE, _end("".join(traceback.format_exception(error)), LONGEST_TRACE)  # its last lines say most
    yield ATTEMPTS, b"%d" % rejection.attempts
    yield FIRST_FAILURE, first_failure.encode()
    yield LAST_FAILURE, utc(rejection.last_failure).encode()
    if record.timestamp is not None:
        yield TIMESTAMP, b"%d" % record.timestamp
    if before.times:
        yield _replays(before.times, first_failure)


def _replays(times: int, since: str) -> tuple[str, bytes]:
    return REPLAYS, f"{times}{_SINCE}{since}".removesuffix(_SINCE).encode()


def _beginning(text: str, length: int) -> bytes:
    return text.encode(errors="backslashreplace")[:length].decode(errors="ignore").encode()


def _end(text: str, length: int) -> bytes:
    return text.encode(errors="backslashreplace")[-length:].decode(errors="ignore").encode()


# -- reading


def own_headers(headers: Sequence[tuple[str, bytes | None]]) -> Headers:
    """The message's own: in their order, with repeats and nulls. Names that begin with `__dead_letter.` are ours."""
    begin = next((index for index, (name, _) in enumerate(headers) if name == REASON), len(headers))
    behind = (header for header in headers[begin:] if header[0] not in _BLOCK)  # what another program has added
    own = (header for header in (*headers[:begin], *behind) if not header[0].startswith(_PREFIX))
    return tuple((original(name), content) for name, content in own)


def read_origin(headers: Sequence[tuple[str, bytes | None]]) -> Origin | None:
    """Where the message was. None if the headers are not a dead letter's, or name a position that Kafka cannot have."""
    topic = text_of(headers, TOPIC)
    partition, offset = _number(headers, PARTITION), _number(headers, OFFSET)
    if topic is None or not re.match(TOPIC_NAME, topic) or partition is None or offset is None:
        return None
    return Origin(topic, partition, offset)


def read_time(headers: Sequence[tuple[str, bytes | None]]) -> int | None:
    """The parked message's own time, in milliseconds since 1970."""
    return _number(headers, TIMESTAMP)


def read_replays(headers: Sequence[tuple[str, bytes | None]]) -> Replays:
    times, _, since = (text_of(headers, REPLAYS) or "").partition(_SINCE)
    return Replays(_whole(times) or 0, since)


def read_note(record: Record) -> str | None:
    """The identity of the message that was sent back; None for what is no note."""
    return text_of(record.headers, REPLAYED) if record.value is None else None


def identity(headers: Sequence[tuple[str, bytes | None]]) -> str | None:
    """What is the same in every letter of one message, and in no other's: its place and its time.

    The time tells a message from its namesake in a topic that was deleted and made again.
    """
    origin = read_origin(headers)
    return None if origin is None else "/".join((*map(str, origin), text_of(headers, TIMESTAMP) or "-"))


def text_of(headers: Sequence[tuple[str, bytes | None]], name: str) -> str | None:
    """The last header of that name, ours: the message's own come before it. None if there is none, or no text."""
    content = next((content for header, content in reversed(headers) if header == name), None)
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        return None


def _number(headers: Sequence[tuple[str, bytes | None]], name: str) -> int | None:
    return _whole(text_of(headers, name) or "")


def _whole(text: str) -> int | None:
    """A number that Kafka can have: of 63 bits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 and int(text) < 2**63 else None
