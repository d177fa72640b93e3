"""The user's own JSON lines as messages."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import BinaryIO

import msgspec

from src.data_generator import random_ids
from src.model.errors import InvalidInput
from src.model.message import Encoded, utc_text
from src.utils.config import ConfigurationError

logger = logging.getLogger(__name__)

READ_AHEAD = 4 * 1024 * 1024  # bytes of lines, and as many in a batch
LINE = 64  # bytes that a line takes in memory beside its own

Stream = AbstractContextManager[Iterable[bytes]]
"""A file; whoever enters it reads its lines, and waits where they are to come."""

_BOM = b"\xef\xbb\xbf"

_decode = msgspec.json.Decoder().decode


def opened(path: str) -> Stream:
    """The user's file, or standard input for `-`. Raises ConfigurationError."""
    try:
        if path == "-":
            return _standard_input()
        return _when_written(path) if Path(path).is_fifo() else open(path, "rb")
    except OSError as error:
        raise ConfigurationError(f"--input {path}: {error.strerror}") from error


def _standard_input() -> BinaryIO:
    """As a stream of its own: Python's own can't be left while a thread reads it.

    Whoever shares it may have made it one that does not block, which then seems to end where nothing has come yet.
    """
    if sys.platform != "win32":
        os.set_blocking(0, True)
    return open(0, "rb", closefd=False)


@contextmanager
def _when_written(path: str) -> Iterator[BinaryIO]:
    """A named pipe can be opened once somebody writes into it: that is for the reader to wait for."""
    with open(path, "rb") as stream:
        yield stream


def from_line(line: bytes, created_at: str, new_id: Callable[[], str]) -> Encoded:
    """The message in a line. Its bytes are passed on as they are; at most an `id` is put in front.

    Raises InvalidInput.
    """
    text = line.strip()
    try:
        value = _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"not a JSON object but {type(value).__name__}")
    if "id" not in value:
        value["id"] = new_id()
        text = _with_id(text, value["id"], alone=len(value) == 1)
    identifier = value["id"]
    if not isinstance(identifier, str) or not identifier:
        raise InvalidInput("its id is not a non-empty string")
    headers: list[tuple[str, bytes | None]] = [
        ("content-type", b"application/json"),
        ("created_at", created_at.encode()),
    ]
    return Encoded(identifier.encode(), text, headers)


def _with_id(text: bytes, identifier: str, *, alone: bool) -> bytes:
    return b'{"id":"' + identifier.encode() + (b'"' if alone else b'",') + text[1:]


class _Lines(Queue[bytes | Exception | None]):
    """Bounded by what its lines take in memory: there may be long ones. It is full with the first that is too much."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self._bytes = 0

    def _qsize(self) -> int:
        return self._bytes

    def _put(self, item: bytes | Exception | None) -> None:
        super()._put(item)
        self._bytes += _weight(item)

    def _get(self) -> bytes | Exception | None:
        item = super()._get()
        self._bytes -= _weight(item)
        return item


def _weight(line: bytes | Exception | None) -> int:
    return LINE + (len(line) if isinstance(line, bytes) else 0)


class UserLines:
    """Reads lines ahead, in a thread of its own: a pipe that says nothing must not hold up the one who sends.

    The stream, too, is entered and left there. A line that is no message is logged with its number and counted; an
    empty one is nothing.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: random_ids(1)[0],
    ) -> None:
        self.read = 0
        self.broken = 0
        self.exhausted = False
        self._clock = clock
        self._new_id = new_id
        self._lines = _Lines(READ_AHEAD)
        self._number = 0
        Thread(target=self._read_ahead, args=(stream,), name="reader", daemon=True).start()

    def take(self, size: int) -> list[Encoded]:
        """Up to `size` messages, as many as were read; what is not there yet is not waited for. Fewer where they are
        long.

        Raises OSError where the stream can't be read on.
        """
        created_at = utc_text(self._clock())
        messages: list[Encoded] = []
        room = READ_AHEAD
        with suppress(Empty):
            while not self.exhausted and size and room > 0:
                line = self._lines.get_nowait()
                messages += self._messages_in(line, created_at)
                size -= 1
                room -= _weight(line)
        return messages

    def _messages_in(self, line: bytes | Exception | None, created_at: str) -> list[Encoded]:
        if isinstance(line, Exception):
            raise line
        if line is None:
            self.exhausted = True
            return []
        self._number += 1
        if self._number == 1:
            line = line.removeprefix(_BOM)
        if not line.strip():
            return []
        self.read += 1
        try:
            return [from_line(line, created_at, self._new_id)]
        except InvalidInput as error:
            self.broken += 1
            logger.warning("line is no message", extra={"line": self._number, "reason": str(error)})
            return []

    def _read_ahead(self, stream: Stream) -> None:
        try:
            with stream as lines:  # closed here, for to close it elsewhere would wait for the read that is going on
                for line in lines:
                    self._lines.put(line)
        except OSError as error:
            self._lines.put(error)
        else:
            self._lines.put(None)
