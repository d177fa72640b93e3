"""Compares the expected outcome of a trial with the actual one."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from chaos.load import Load


class Expectation(NamedTuple):
    """`accepted` are the messages that the producers accepted: each must be stored or dead-lettered."""

    accepted: Load
    repeats_allowed: bool = False
    """Whether a crash explains that a dead letter was written more than once."""


class Exit(NamedTuple):
    """How a process ended, and how it is allowed to end."""

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
    resent: int
    """Messages that a producer sent again because it did not get the response: both copies may be dead-lettered."""


def count(audit: Mapping[str, Any], expected: Load) -> Counts:
    """The audit's counts, with what it cannot know: accepted messages that are not even in the topic."""
    stored, dead_lettered = int(audit["stored"]), int(audit["dead_lettered"])
    resent = max(0, int(audit["produced"]) - expected.size)
    misplaced = max(0, dead_lettered - len(expected.invalid) - resent)  # valid messages: not lost, but dead-lettered
    missing = max(0, len(expected.valid) - stored - misplaced) + max(0, len(expected.invalid) - dead_lettered)
    return Counts(
        lost=max(int(audit["lost"]), missing - int(audit["pending"])),
        twice=int(audit["twice"]) + max(0, stored - len(expected.valid)),
        stored=stored,
        dead_lettered=dead_lettered,
        repeated=int(audit["repeated"]),
        pending=int(audit["pending"]),
        resent=resent,
    )


def failures(counts: Counts, expected: Expectation, exits: Sequence[Exit], failed: Sequence[str] = ()) -> list[str]:
    """Why the trial failed; empty if it passed. `failed` are the scenario's own expectations that were not met."""
    invalid, dead_lettered = len(expected.accepted.invalid), counts.dead_lettered
    unexplained = 0 if expected.repeats_allowed else counts.repeated
    found = {
        f"{counts.lost} lost": counts.lost > 0,
        f"{counts.twice} twice": counts.twice > 0,
        f"{counts.pending} not settled": counts.pending > 0,
        f"{dead_lettered} dead-lettered instead of {invalid}": not invalid <= dead_lettered <= invalid + counts.resent,
        f"{unexplained} dead letters repeated without a crash": unexplained > 0,
    }
    return [text for text, wrong in found.items() if wrong] + unexpected_exits(exits) + list(failed)


def unexpected_exits(exits: Sequence[Exit]) -> list[str]:
    return [f"{each.name} exited with {each.code}" for each in exits if each.code not in each.allowed]
