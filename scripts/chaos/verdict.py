"""What a trial must come to, and what it came to."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from chaos.load import Load


class Expectation(NamedTuple):
    """`accepted` is what the producers took: each of these messages has to be somewhere."""

    accepted: Load
    repeats: bool = False
    """Whether a crash explains that a dead letter is there more than once."""


class Exit(NamedTuple):
    """How a process ended, and how it may end."""

    name: str
    code: int | None
    allowed: frozenset[int]


class Counts(NamedTuple):
    lost: int
    twice: int
    stored: int
    dead_lettered: int
    repeated: int
    pending: int
    copies: int
    """Messages that a producer sent again, as the answer to the first was lost: of a broken one, both are parked."""


def counted(audit: Mapping[str, Any], expected: Load) -> Counts:
    """The audit's counts, and what it can't know: messages that were accepted and are not even in the topic."""
    stored, parked = int(audit["stored"]), int(audit["dead_lettered"])
    missing = max(0, len(expected.good) - stored - _strays(audit, expected)) + max(0, len(expected.bad) - parked)
    return Counts(
        lost=max(int(audit["lost"]), missing - int(audit["pending"])),
        twice=int(audit["twice"]) + max(0, stored - len(expected.good)),
        stored=stored,
        dead_lettered=parked,
        repeated=int(audit["repeated"]),
        pending=int(audit["pending"]),
        copies=_copies(audit, expected),
    )


def complaints(counts: Counts, expected: Expectation, exits: Sequence[Exit], broken: Sequence[str] = ()) -> list[str]:
    """Why the trial failed; empty where it did not. `broken` are the scenario's own facts that did not hold."""
    bad, parked = len(expected.accepted.bad), counts.dead_lettered
    found = {
        f"{counts.lost} lost": counts.lost > 0,
        f"{counts.twice} twice": counts.twice > 0,
        f"{counts.pending} not settled": counts.pending > 0,
        f"{parked} dead-lettered instead of {bad}": not bad <= parked <= bad + counts.copies,
        f"{counts.repeated} dead letters repeated without a crash": counts.repeated > 0 and not expected.repeats,
    }
    return [text for text, wrong in found.items() if wrong] + wrong_ends(exits) + list(broken)


def wrong_ends(exits: Sequence[Exit]) -> list[str]:
    return [f"{end.name} ended with {end.code}" for end in exits if end.code not in end.allowed]


def _strays(audit: Mapping[str, Any], expected: Load) -> int:
    """Good messages that were dead-lettered are not lost, only in the wrong place."""
    return max(0, int(audit["dead_lettered"]) - len(expected.bad) - _copies(audit, expected))


def _copies(audit: Mapping[str, Any], expected: Load) -> int:
    return max(0, int(audit["produced"]) - expected.size)
