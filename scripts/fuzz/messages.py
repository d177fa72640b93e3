"""Messages as nobody should send them, and as somebody does."""

from collections.abc import Iterator
from typing import NamedTuple

from fuzz.chance import DATES, Chance
from fuzz.shrinking import shorter

HUGE = 17 * 1024 * 1024  # bytes, more than a document may have
TIMESTAMPS = (0, 1, -1, 1_700_000_000_000, 2**31, 253_402_300_799_999, 253_402_300_800_000, 2**63 - 1, -(2**63))
HEADER_NAMES = (
    "",
    "a",
    "content-type",
    "created_at",
    "é",
    "__connect.errors.topic",
    "__connect.errors.offset",
    "__dead_letter.reason",
    "__dead_letter.replays",
    "__dead_letter.replayed",
)

Headers = tuple[tuple[str, bytes | None], ...]


class Sent(NamedTuple):
    """What a Kafka message carries. Headers are None where one has a name that is not UTF-8."""

    key: bytes | None
    value: bytes | None
    headers: Headers | None = ()
    timestamp: int | None = None


def sent(chance: Chance, index: int) -> Sent:
    return Sent(_key(chance), _value(chance, index), _headers(chance), _timestamp(chance))


def line(chance: Chance, index: int) -> bytes:
    """A line of a user's file."""
    return (_value(chance, index) or b"").replace(b"\n", b" ") + chance.choice((b"", b"\r", b" \t"))


def smaller(message: Sent) -> Iterator[Sent]:
    """What may show the same fault and is less to look at."""
    if message.key is not None:
        yield message._replace(key=None)
    if message.headers:
        yield message._replace(headers=())
        for position in range(len(message.headers)):
            yield message._replace(headers=message.headers[:position] + message.headers[position + 1 :])
    if message.timestamp is not None:
        yield message._replace(timestamp=None)
    for value in shorter(message.value or b""):
        yield message._replace(value=value)


def _value(chance: Chance, index: int) -> bytes | None:
    kind = chance.randrange(100)
    if kind < 3:
        return None
    if kind < 6:
        return chance.some_bytes(200)
    if kind < 8:
        return _wrapped(chance, _valid(chance, index))
    if kind < 14:
        return chance.json()
    if kind < 40:
        return chance.damaged(_valid(chance, index))
    if kind < 75:
        return _odd(chance, index)
    return _valid(chance, index)


def _valid(chance: Chance, index: int) -> bytes:
    return chance.object(_fields(chance, index))


def _odd(chance: Chance, index: int) -> bytes:
    """In form a message, with fields or contents that nobody expects."""
    fields = _fields(chance, index)
    for _ in range(chance.randrange(1, 3)):
        position = chance.randrange(len(fields))
        fields[position] = (fields[position][0] if chance.one_in(2) else chance.key(), chance.json())
    if chance.one_in(5):
        fields.append((chance.key(), chance.json()))
    if chance.one_in(5_000):
        fields.append((b'"huge"', b'"' + b"x" * HUGE + b'"'))
    return chance.object(fields)


def _fields(chance: Chance, index: int) -> list[tuple[bytes, bytes]]:
    """Now and then with the id of another message."""
    identity = chance.randrange(50) if chance.one_in(5) else index
    number = 0 if chance.one_in(2) else chance.randrange(3)
    return [
        (b'"id"', b'"%d"' % identity),
        (b'"name"', b'"item_%08d"' % number),
        (b'"created_at"', chance.string(chance.choice(DATES) if chance.one_in(6) else DATES[0])),
        (b'"metadata"', b'{"source":"system-a","version":"1.0.0"}'),
    ]


def _wrapped(chance: Chance, value: bytes) -> bytes:
    return chance.choice(
        (
            b"\xef\xbb\xbf" + value,
            value.decode().encode("utf-16"),
            b"\x00\x00\x00\x00\x0c" + value,
            b'{"schema":{},"payload":' + value + b"}",
            chance.string(value.decode()),
            value + value,
            value + b"\n",
            b"\x00" + value,
            b"[" + value + b"]",
        )
    )


def _key(chance: Chance) -> bytes | None:
    return None if chance.one_in(4) else chance.choice((b"", chance.some_bytes(), chance.text().encode()))


def _headers(chance: Chance) -> Headers | None:
    if chance.one_in(40):
        return None
    return tuple(
        (
            chance.choice(HEADER_NAMES) if chance.one_in(2) else chance.text().replace("\0", ""),
            None
            if chance.one_in(4)
            else chance.choice((b"", chance.some_bytes(), b"3 since x", chance.text().encode())),
        )
        for _ in range(chance.randrange(4))
    )


def _timestamp(chance: Chance) -> int | None:
    if chance.one_in(5):
        return None
    return chance.choice(TIMESTAMPS) if chance.one_in(2) else chance.randrange(-(2**63), 2**63)
