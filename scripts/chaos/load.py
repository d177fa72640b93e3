"""The messages of a trial, as lines for `python -m src.producer --input`, and what must become of each."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

LONG_INTEGER = 2**70
DEEP = 120  # levels; MongoDB takes 100

Message = dict[str, Any]


@dataclass(frozen=True)
class Load:
    """Lines in the order in which they are sent. `good` are to be stored, `bad` to be dead-lettered, by their ids."""

    lines: tuple[str, ...]
    good: frozenset[str]
    bad: frozenset[str]

    def __add__(self, more: "Load") -> "Load":
        """Both, one after the other; a message that is in both is one message sent twice."""
        return Load(self.lines + more.lines, self.good | more.good, self.bad | more.bad)

    @property
    def size(self) -> int:
        return len(self.lines)

    def first(self, count: int) -> "Load":
        """What the first lines alone would be."""
        lines = self.lines[:count]
        ids = {json.loads(line)["id"] for line in lines}
        return Load(lines, self.good & ids, self.bad & ids)

    def refusing(self, condition: Callable[[Message], bool]) -> "Load":
        """The same lines, where those messages are to be dead-lettered."""
        bad = frozenset(message["id"] for message in map(json.loads, self.lines) if condition(message))
        return Load(self.lines, self.good - bad, self.bad | bad)

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)


NOTHING = Load((), frozenset(), frozenset())


def plain(count: int, random: Random) -> Load:
    """Messages as the specification has them."""
    return mixed(count, random, broken=0)


def mixed(count: int, random: Random, *, broken: float) -> Load:
    """Of these, the share `broken` has a field that no consumer takes."""
    spoilt = set(random.sample(range(count), round(count * broken)))
    messages = [_message(random, number) for number in range(count)]
    for number in spoilt:
        messages[number] |= random.choice(_BROKEN)
    return _load(messages, (messages[number]["id"] for number in spoilt))


def refused(count: int, random: Random, share: float = 0.02) -> Load:
    """Of these, a share is well-formed, and yet no store takes it."""
    spoilt = set(random.sample(range(count), round(count * share)))
    messages = [_message(random, number) for number in range(count)]
    for number in spoilt:
        messages[number]["extra"] = random.choice((LONG_INTEGER, _nested(DEEP)))
    return _load(messages, (messages[number]["id"] for number in spoilt))


def two_versions(count: int, random: Random) -> Load:
    """Every other message has fields of a later version, and lacks those of today."""
    messages = [_message(random, number) for number in range(count)]
    later = [_later(message) if number % 2 else message for number, message in enumerate(messages)]
    return _load(later, ())


_BROKEN: Sequence[Message] = (
    {"created_at": "yesterday"},
    {"created_at": 1_700_000_000},
    {"name": 7},
    {"metadata": "system-a"},
    {"kafka": {}},
)


def _message(random: Random, number: int) -> Message:
    return {
        "id": f"{number:06}-{random.getrandbits(64):016x}",
        "name": f"item_{number:08}",
        "created_at": "2026-01-15T12:34:56.789Z",
        "metadata": {"source": random.choice(("system-a", "system-b")), "version": "1.0.0"},
    }


def _later(message: Message) -> Message:
    return {"id": message["id"], "title": message["name"], "tags": ["a", "b"], "metadata": {"version": "2.0.0"}}


def _nested(levels: int) -> Any:
    nested: Any = 0
    for _ in range(levels):
        nested = [nested]
    return nested


def _load(messages: Sequence[Message], bad: Iterable[str]) -> Load:
    spoilt = frozenset(bad)
    good = frozenset(message["id"] for message in messages) - spoilt
    return Load(tuple(json.dumps(message) for message in messages), good, spoilt)
