"""The format of a dead letter: the original message, followed by one block of headers with the reason.

The headers of the block, in this order; every header before the block is the message's own:

    __dead_letter.reason                       a short constant, as in consumer_dead_letters_total
    __connect.errors.topic, .partition, .offset            the message's position; Kafka Connect uses the same names
    __connect.errors.stage                     process or store
    __connect.errors.exception.class.name, .exception.message, .exception.stacktrace
    __dead_letter.attempts, .first_failure, .last_failure
    __dead_letter.timestamp_ms                 the message's timestamp; that of the dead letter is the current time
    __dead_letter.replays                      the number of replays and the first failure: "3 since 2023-…Z"

A replayed message has its original headers, `__dead_letter.replays`, and `__dead_letter.original_position`. If it is
dead-lettered again, the new block replaces the old one, keeps that position and continues the count, so that dead
letters do not grow.

A header name that the client cannot send is base64-encoded, see `model/header_names.py`. Reading a dead letter restores
the name. A replayed message keeps the encoded name, because the same client sends it; its next dead letter has the same
name.

A replay marker in the dead-letter topic (`__dead_letter.replayed`, no value) names a message that was replayed. It is
retained as long as the dead letters. A discard marker has the header `__dead_letter.discarded` in addition, so that
versions that know only replay markers do not replay the message either.
"""

import re
import traceback
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from src.model.header_names import original
from src.model.position import MessagePosition
from src.model.record import ORIGINAL_POSITION, Header, Headers, Record, Rejection
from src.model.topic_names import NAME
from src.utils.text import utc_text

REASON = "__dead_letter.reason"
TOPIC = "__connect.errors.topic"
PARTITION = "__connect.errors.partition"
OFFSET = "__connect.errors.offset"
STAGE = "__connect.errors.stage"
EXCEPTION_CLASS = "__connect.errors.exception.class.name"
EXCEPTION_MESSAGE = "__connect.errors.exception.message"
STACKTRACE = "__connect.errors.exception.stacktrace"
ATTEMPTS = "__dead_letter.attempts"
FIRST_FAILURE = "__dead_letter.first_failure"
LAST_FAILURE = "__dead_letter.last_failure"
TIMESTAMP = "__dead_letter.timestamp_ms"
REPLAYS = "__dead_letter.replays"
REPLAYED = "__dead_letter.replayed"
DISCARDED = "__dead_letter.discarded"

MAX_STACKTRACE_BYTES = 8192
MAX_EXCEPTION_MESSAGE_BYTES = 1024  # errors of the store may contain a whole document
MAX_OVERHEAD_BYTES = 16_384  # of the block

_PREFIX = "__dead_letter."
_CONNECT_HEADERS = frozenset((TOPIC, PARTITION, OFFSET, STAGE, EXCEPTION_CLASS, EXCEPTION_MESSAGE, STACKTRACE))
_SINCE = " since "


class DeadLetter(NamedTuple):
    """What is produced to the dead-letter topic."""

    key: bytes | None
    value: bytes | None
    headers: Headers

    def without_stacktrace(self) -> "DeadLetter":
        """A smaller copy. A header of this name that is the message's own is kept."""
        index = max(index for index, (name, _) in enumerate(self.headers) if name == STACKTRACE)
        return self._replace(headers=self.headers[:index] + self.headers[index + 1 :])


class Replays(NamedTuple):
    """How often a message was replayed, and when it failed for the first time (empty if unknown)."""

    times: int = 0
    first_failure: str = ""


# -- writing


def dead_letter_of(rejection: Rejection) -> DeadLetter:
    record = rejection.record
    return DeadLetter(record.key, record.value, original_headers(record.headers) + tuple(_block(rejection)))


def replay_headers(headers: Sequence[Header]) -> Headers:
    """The headers with which a dead letter is replayed: the original ones, the number of replays, and where it was."""
    replays = read_replays(headers)
    first_failure = replays.first_failure or header_text(headers, FIRST_FAILURE) or ""
    position = original_position(headers)
    first_position = header_text(headers, ORIGINAL_POSITION) or (position and "/".join(map(str, position)))
    return (
        *original_headers(headers),
        _replays_header(replays.times + 1, first_failure),
        *([(ORIGINAL_POSITION, first_position.encode())] if first_position else []),
    )


def replay_marker(identity: str) -> DeadLetter:
    """Records that the message was replayed. It has a key, without which a compacted topic would reject it."""
    return DeadLetter(identity.encode(), None, ((REPLAYED, identity.encode()),))


def discard_marker(identity: str) -> DeadLetter:
    """Records that the message is to stay in the dead-letter topic for good."""
    marker = replay_marker(identity)
    return marker._replace(headers=(*marker.headers, (DISCARDED, b"")))


def _block(rejection: Rejection) -> Iterable[tuple[str, bytes]]:
    record, error = rejection.record, rejection.error
    replays = read_replays(record.headers)
    first_failure = (
        replays.first_failure or header_text(record.headers, FIRST_FAILURE) or utc_text(rejection.first_failure)
    )
    yield REASON, rejection.reason.encode()
    yield TOPIC, record.topic.encode()
    yield PARTITION, b"%d" % record.partition
    yield OFFSET, b"%d" % record.offset
    yield STAGE, rejection.stage.encode()
    yield EXCEPTION_CLASS, f"{type(error).__module__}.{type(error).__qualname__}".encode()
    yield EXCEPTION_MESSAGE, _first_bytes(str(error), MAX_EXCEPTION_MESSAGE_BYTES)
    yield STACKTRACE, _last_bytes("".join(traceback.format_exception(error)), MAX_STACKTRACE_BYTES)
    yield ATTEMPTS, b"%d" % rejection.attempts
    yield FIRST_FAILURE, first_failure.encode()
    yield LAST_FAILURE, utc_text(rejection.last_failure).encode()
    if record.timestamp is not None:
        yield TIMESTAMP, b"%d" % record.timestamp
    if replays.times:
        yield _replays_header(replays.times, first_failure)
    if (position := header_text(record.headers, ORIGINAL_POSITION)) is not None:
        yield ORIGINAL_POSITION, position.encode()


def _replays_header(count: int, first_failure: str) -> tuple[str, bytes]:
    return REPLAYS, f"{count}{_SINCE}{first_failure}".removesuffix(_SINCE).encode()


def _first_bytes(text: str, length: int) -> bytes:
    return text.encode(errors="backslashreplace")[:length].decode(errors="ignore").encode()


def _last_bytes(text: str, length: int) -> bytes:
    return text.encode(errors="backslashreplace")[-length:].decode(errors="ignore").encode()


# -- reading


def original_headers(headers: Sequence[Header]) -> Headers:
    """The message's own: in order, with repeats and nulls. Names that begin with `__dead_letter.` are reserved."""
    begin = next((index for index, (name, _) in enumerate(headers) if name == REASON), len(headers))
    after = (header for header in headers[begin:] if header[0] not in _CONNECT_HEADERS)  # added by another program
    own = (header for header in (*headers[:begin], *after) if not header[0].startswith(_PREFIX))
    return tuple((original(name), content) for name, content in own)


def original_position(headers: Sequence[Header]) -> MessagePosition | None:
    """None if the headers are not a dead letter's, or name a position that Kafka cannot have."""
    topic = header_text(headers, TOPIC)
    partition, offset = _number(headers, PARTITION), _number(headers, OFFSET)
    if topic is None or not re.match(NAME, topic) or partition is None or offset is None:
        return None
    return MessagePosition(topic, partition, offset)


def original_timestamp(headers: Sequence[Header]) -> int | None:
    """In milliseconds since the epoch."""
    return _number(headers, TIMESTAMP)


def read_replays(headers: Sequence[Header]) -> Replays:
    count, _, first_failure = (header_text(headers, REPLAYS) or "").partition(_SINCE)
    return Replays(_parse_number(count) or 0, first_failure)


def read_replay_marker(record: Record) -> str | None:
    """The identity of the message that was replayed or discarded; None if the record is not a marker."""
    return header_text(record.headers, REPLAYED) if record.value is None else None


def is_discard_marker(marker: Record) -> bool:
    return header_text(marker.headers, DISCARDED) is not None


def message_identity(headers: Sequence[Header]) -> str | None:
    """The message's position and timestamp: the same in every dead letter of the message, and in no other.

    The timestamp distinguishes messages at the same position of a topic that was recreated.
    """
    position = original_position(headers)
    return None if position is None else "/".join((*map(str, position), header_text(headers, TIMESTAMP) or "-"))


def header_text(headers: Sequence[Header], name: str) -> str | None:
    """The last header of this name: the message's own precede the block. None if there is none, or it is not UTF-8."""
    content = next((content for header, content in reversed(headers) if header == name), None)
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        return None


def _number(headers: Sequence[Header], name: str) -> int | None:
    return _parse_number(header_text(headers, name) or "")


def _parse_number(text: str) -> int | None:
    """A number that Kafka can have: up to 63 bits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 and int(text) < 2**63 else None
