"""What the store says of one document."""

from enum import Enum, auto
from typing import NamedTuple


class Outcome(Enum):
    STORED = auto()
    """It is in the store now, durably."""
    DUPLICATE = auto()
    """The same message was there already."""
    REFUSED = auto()
    """It can never be stored: the document's own fault."""
    FAILED = auto()
    """It was not stored, for a reason nobody foresaw; alone and later it may be."""
    DEFERRED = auto()
    """It was not stored because the store is overloaded, full or moving: nobody's fault, try again later."""


class Verdict(NamedTuple):
    """`reason` is a short constant for labels and `error` what the store said; both are for what was not stored."""

    outcome: Outcome
    reason: str = ""
    error: Exception | None = None


STORED = Verdict(Outcome.STORED)
DUPLICATE = Verdict(Outcome.DUPLICATE)

KEY_TAKEN = "duplicate_key"
"""The reason that a store gives where an id, or another unique field, is there already: compare what is there."""
