"""What the topic and the store contain, on disk, to be compared one range of positions at a time.

A page is one row of a SQLite table, whatever the number of its messages or documents. Those of one range are read
together, and fit into memory.
"""

import marshal
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any

from src.stores.document import Identity

Key = tuple[int, Identity | None, int | None]
"""The position, id and timestamp of a message, or those that a document has."""
Entry = tuple[int, Identity | None, int | None, int | None]
"""The key of a message, and the hash of its content; None if the processing skips it."""

RANGE_BITS = 14  # 2^14 positions in a range: about 10 MB of memory

_TABLE = 'CREATE TABLE pages ("range" INTEGER, is_produced INTEGER, content BLOB)'
_INDEX = 'CREATE INDEX IF NOT EXISTS pages_range ON pages ("range")'
_INSERT = "INSERT INTO pages VALUES (?, ?, ?)"
_SELECT = 'SELECT "range", is_produced, content FROM pages ORDER BY "range"'

_position = itemgetter(0)


class PositionRange:
    """The messages of a range of positions, and the documents."""

    def __init__(self, number: int, messages: Sequence[Entry], documents: Sequence[Key]) -> None:
        self.first = number << RANGE_BITS
        self.last = self.first + (1 << RANGE_BITS) - 1
        self._messages = sorted(messages, key=_position)
        self._documents = sorted(documents, key=_position)

    @cached_property
    def produced(self) -> Mapping[Key, int | None]:
        """The hash of the content of each message."""
        return {message[:3]: message[3] for message in self._messages}

    @cached_property
    def stored(self) -> Set[Key]:
        return frozenset(self._documents)

    def irregular(self, dead_lettered: Set[int]) -> Set[Key]:
        """All except messages with exactly one document, an equal one, skipped ones, and documents without a message.

        These exceptions concern no other message, unless it has the same id. `dead_lettered` are positions.
        """
        if not dead_lettered and self._is_complete:
            return frozenset()
        keys = self.produced.keys() | self.stored
        number = Counter(map(_position, keys))
        return {
            key
            for key in keys
            if number[key[0]] > 1
            or key[0] in dead_lettered
            or (key not in self.stored and self.produced[key] is not None)
        }

    def contents_without(self, irregular: Set[Key]) -> list[int | None]:
        """The hashes of the other messages: each is stored, or None."""
        if not irregular and self._is_complete:
            return [message[3] for message in self._messages]
        return [content for key, content in self.produced.items() if key not in irregular]

    @cached_property
    def _is_complete(self) -> bool:
        """Whether each message has its document. Comparing lists is three times as fast as comparing sets."""
        return [message[:3] for message in self._messages] == self._documents


class Pages:
    """Used by one thread."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._database.execute(_TABLE)

    def add_produced(self, messages: Iterable[Entry]) -> None:
        self._insert(True, messages)

    def add_stored(self, documents: Iterable[Key]) -> None:
        self._insert(False, documents)

    def ranges(self) -> Iterator[PositionRange]:
        self._database.execute(_INDEX)
        for number, pages in groupby(self._database.execute(_SELECT), itemgetter(0)):
            messages: list[Entry] = []
            documents: list[Key] = []
            for _, is_produced, content in pages:
                (messages if is_produced else documents).extend(marshal.loads(content))  # noqa: S302 - written below
            yield PositionRange(number, messages, documents)

    def _insert(self, is_produced: bool, entries: Iterable[tuple[int, *tuple[Any, ...]]]) -> None:
        by_range = defaultdict(list)
        for entry in entries:
            by_range[entry[0] >> RANGE_BITS].append(entry)
        rows = ((number, is_produced, marshal.dumps(each, 2)) for number, each in by_range.items())
        self._database.executemany(_INSERT, rows)
