"""The store's answer for one document."""

from enum import Enum, auto
from typing import NamedTuple


class Outcome(Enum):
    STORED = auto()
    """It was stored by this call, durably."""
    DUPLICATE = auto()
    """The same message was already stored."""
    REFUSED = auto()
    """It can never be stored, through a fault of its own."""
    FAILED = auto()
    """It was not stored, for an unknown reason; a later attempt with this document alone may succeed."""
    DEFERRED = auto()
    """It was not stored because the store is overloaded, full or changing its primary; retry later."""


class Verdict(NamedTuple):
    """What is not stored has a `reason`, a short constant for labels, and the store's `error`."""

    outcome: Outcome
    reason: str = ""
    error: Exception | None = None


STORED = Verdict(Outcome.STORED)
DUPLICATE = Verdict(Outcome.DUPLICATE)

DUPLICATE_KEY = "duplicate_key"
"""A store's reason where the id, or another unique field, is taken: compare with the stored document."""
