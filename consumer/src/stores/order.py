"""Which of two messages with one identity is older: the newest one decides what is stored, in whatever order they come.

In a partition the offset decides. Across partitions only the timestamp can: see decision 31.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from src.stores.document import Document, StoredMessage, has_same_position


class Overwrites(Enum):
    """What a document may be written over."""

    SAME_POSITION = "the document that was made from the same message before"
    OLDER = "a document that was made from an older message, or by another program"


def may_overwrite(stored: Document, document: Document, condition: Overwrites) -> bool:
    return _CONDITIONS[condition](stored, document)


def is_older(stored: Document, document: Document) -> bool:
    """Without a position, it was stored by another program, and any message is newer."""
    one, other = (StoredMessage.of("", each.get("kafka")) for each in (stored, document))
    if one.position is None or other.position is None:
        return one.position is None
    if one.position[:2] == other.position[:2]:
        return one.position.offset < other.position.offset
    return _rank(one) < _rank(other)


def _rank(message: StoredMessage) -> tuple[Any, ...]:
    """A message without a timestamp is older than any with one."""
    return (message.timestamp is not None, message.timestamp, (message.position or ())[:2])


_CONDITIONS: Mapping[Overwrites, Callable[[Document, Document], bool]] = {
    Overwrites.SAME_POSITION: has_same_position,
    Overwrites.OLDER: is_older,
}
