"""What the topic and the store contain, on disk, to be compared one range of positions at a time.

A page is one row of a SQLite table, whatever the number of its messages or documents. Those of one range are read
together, and fit into memory.
"""

import marshal
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from src.stores.document import Identity

Key = tuple[int, Identity | None, int | None]
"""The position, id and timestamp of a message, or those that a document has."""

RANGE_BITS = 14  # 2^14 positions in a range: about 10 MB of memory

_TABLE = 'CREATE TABLE pages ("range" INTEGER, is_produced INTEGER, content BLOB)'
_INDEX = 'CREATE INDEX IF NOT EXISTS pages_range ON pages ("range")'
_INSERT = "INSERT INTO pages VALUES (?, ?, ?)"
_SELECT = 'SELECT "range", is_produced, content FROM pages ORDER BY "range"'


class PositionRange(NamedTuple):
    """The messages of a range of positions, with the hashes of their contents, and the documents."""

    first: int
    last: int
    produced: Mapping[Key, int]
    stored: Set[Key]

    def irregular(self, dead_lettered: Set[int]) -> Set[Key]:
        """All except messages with exactly one document, an equal one, and documents without a message.

        These exceptions concern no other message, unless it has the same id. `dead_lettered` are positions.
        """
        if self.produced.keys() == self.stored and not dead_lettered:
            return frozenset()
        keys = self.produced.keys() | self.stored
        number = Counter(position for position, _, _ in keys)
        return {key for key in keys if number[key[0]] > 1 or key[0] in dead_lettered or key not in self.stored}


class Pages:
    """Used by one thread."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._database.execute(_TABLE)

    def add_produced(self, messages: Iterable[tuple[Key, int]]) -> None:
        """Messages, with the hashes of their contents."""
        by_range = defaultdict(list)
        for message in messages:
            by_range[message[0][0] >> RANGE_BITS].append(message)
        self._insert(True, by_range)

    def add_stored(self, documents: Iterable[Key]) -> None:
        by_range = defaultdict(list)
        for document in documents:
            by_range[document[0] >> RANGE_BITS].append(document)
        self._insert(False, by_range)

    def ranges(self) -> Iterator[PositionRange]:
        self._database.execute(_INDEX)
        for number, pages in groupby(self._database.execute(_SELECT), itemgetter(0)):
            produced: dict[Key, int] = {}
            stored: set[Key] = set()
            for _, is_produced, content in pages:
                (produced if is_produced else stored).update(marshal.loads(content))  # noqa: S302 - written below
            first = number << RANGE_BITS
            yield PositionRange(first, first + (1 << RANGE_BITS) - 1, produced, stored)

    def _insert(self, is_produced: bool, by_range: Mapping[int, list[Any]]) -> None:
        rows = ((number, is_produced, marshal.dumps(entries, 2)) for number, entries in by_range.items())
        self._database.executemany(_INSERT, rows)
