"""What the audit has found."""

from dataclasses import dataclass
from typing import NamedTuple

from src.stores.document import Identity

MAX_EXAMPLES = 20  # of lost messages, and of messages that are there twice


class Example(NamedTuple):
    """A message with a problem."""

    partition: int
    offset: int
    id: Identity | None
    problem: str


@dataclass(frozen=True)
class Findings:
    """Every committed message is either stored, a duplicate, superseded, dead-lettered, skipped, expired or lost.

    A tombstone that has deleted the document of its id counts as `deleted`.

    `twice` and `repeated` count messages too: some of these, and others that retention has deleted from the topic.
    `other_ids` are documents whose messages have other ids now, or none.
    """

    produced: int
    stored: int
    duplicates: int
    superseded: int
    deleted: int
    dead_lettered: int
    skipped: int
    expired: int
    lost: int
    twice: int
    repeated: int
    other_ids: int
    foreign_documents: int
    foreign_dead_letters: int
    lost_first: tuple[Example, ...] = ()
    twice_first: tuple[Example, ...] = ()
