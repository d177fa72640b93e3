"""The outcome of storing one document."""

from enum import Enum, auto
from typing import NamedTuple


class Outcome(Enum):
    STORED = auto()
    """It was stored by this call, durably."""
    DUPLICATE = auto()
    """The same message was already stored."""
    REJECTED = auto()
    """It can never be stored: the document itself is at fault."""
    FAILED = auto()
    """It was not stored, for an unknown reason; a later attempt with this document alone may succeed."""
    DEFERRED = auto()
    """It was not stored because the store is overloaded, full or changing its primary; retry later."""


class Verdict(NamedTuple):
    """If the document is not stored, `reason` is a short constant for labels, and `error` is the store's."""

    outcome: Outcome
    reason: str = ""
    error: Exception | None = None


STORED = Verdict(Outcome.STORED)
DUPLICATE = Verdict(Outcome.DUPLICATE)

DUPLICATE_KEY = "duplicate_key"
"""A store's reason where the id, or another unique field, is taken: compare with the stored document."""
