"""The messages of a trial: lines for `python -m src.producer --input`, and which of them are to be dead-lettered."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

LONG_INTEGER = 2**70
DEEP = 120  # levels; MongoDB accepts 100

Message = dict[str, Any]


@dataclass(frozen=True)
class Load:
    """Lines in the order they are sent; the ids of those to be stored (`valid`) and of those to be dead-lettered."""

    lines: tuple[str, ...]
    valid: frozenset[str]
    invalid: frozenset[str]

    def __add__(self, more: "Load") -> "Load":
        """Both, one after the other; a message in both of them is sent twice."""
        return Load(self.lines + more.lines, self.valid | more.valid, self.invalid | more.invalid)

    @property
    def size(self) -> int:
        return len(self.lines)

    def first(self, count: int) -> "Load":
        """The first lines."""
        lines = self.lines[:count]
        ids = {json.loads(line)["id"] for line in lines}
        return Load(lines, self.valid & ids, self.invalid & ids)

    def rejecting(self, condition: Callable[[Message], bool]) -> "Load":
        """The same lines; messages that meet the condition are to be dead-lettered."""
        rejected = frozenset(message["id"] for message in map(json.loads, self.lines) if condition(message))
        return Load(self.lines, self.valid - rejected, self.invalid | rejected)

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)


NOTHING = Load((), frozenset(), frozenset())


def plain(count: int, random: Random) -> Load:
    """Valid messages."""
    return mixed(count, random, invalid=0)


def mixed(count: int, random: Random, *, invalid: float) -> Load:
    """The share `invalid` has a field with an invalid value."""
    return _partly(count, random, invalid, lambda: random.choice(_INVALID))


def rejected_by_store(count: int, random: Random, share: float = 0.02) -> Load:
    """A share is valid, but no store accepts it."""
    return _partly(count, random, share, lambda: {"extra": random.choice((LONG_INTEGER, _nested(DEEP)))})


def two_versions(count: int, random: Random) -> Load:
    """Every other message has the fields of a later version."""
    messages = [_message(random, number) for number in range(count)]
    later = [_later(message) if number % 2 else message for number, message in enumerate(messages)]
    return _load(later, ())


_INVALID: Sequence[Message] = (
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


def _partly(count: int, random: Random, share: float, fields: Callable[[], Message]) -> Load:
    """Messages of which a share, chosen at random, gets other fields and is to be dead-lettered."""
    invalid = set(random.sample(range(count), round(count * share)))
    messages = [_message(random, number) for number in range(count)]
    for number in invalid:
        messages[number] |= fields()
    return _load(messages, (messages[number]["id"] for number in invalid))


def _load(messages: Sequence[Message], invalid: Iterable[str]) -> Load:
    dead_lettered = frozenset(invalid)
    valid = frozenset(message["id"] for message in messages) - dead_lettered
    return Load(tuple(json.dumps(message) for message in messages), valid, dead_lettered)
