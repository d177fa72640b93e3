"""Messages from the user's JSON Lines input."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from io import BufferedIOBase, BufferedReader
from itertools import islice
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import msgspec

from src.data_generator import random_ids
from src.model.errors import InvalidMessage
from src.model.message import EncodedHeaders, ProducerRecord
from src.utils.config import ConfigurationError
from src.utils.text import utc_text

logger = logging.getLogger(__name__)

READ_AHEAD_BYTES = 4 * 1024 * 1024  # of lines that are read ahead, and of those in a batch
READ_SIZE = 64 * 1024  # bytes that are read at a time, if there are as many
BLOCK_OVERHEAD = 64  # bytes that a block of lines occupies in memory beside its own

Stream = AbstractContextManager[BufferedIOBase]
"""Entering it may block until the other end of a pipe is opened, and so may reading lines."""

_BOM = b"\xef\xbb\xbf"
_OTHER_FORMATS = {
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"\x1f\x8b": "compressed with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"\xfd7zXZ": "compressed with xz",
    b"BZh": "compressed with bzip2",
    b"PK\x03\x04": "a zip archive",
}
"""By the first bytes."""

_decode = msgspec.json.Decoder().decode


def open_input(path: str) -> Stream:
    """The file, or standard input for `-`. Raises ConfigurationError."""
    try:
        if path == "-":
            return _standard_input()
        return _named_pipe(path) if Path(path).is_fifo() else open(path, "rb")
    except OSError as error:
        raise ConfigurationError(f"--input {path}: {error.strerror}") from error


def _standard_input() -> BufferedReader:
    """A stream of its own: `sys.stdin` cannot be closed while a thread reads it.

    A process that shares the file may have made it non-blocking, which would look like its end while it is empty.
    """
    if sys.platform != "win32":
        os.set_blocking(0, True)
    return open(0, "rb", closefd=False)


@contextmanager
def _named_pipe(path: str) -> Iterator[BufferedReader]:
    """Opening it blocks until a process opens it for writing, so this is left to the reading thread."""
    with open(path, "rb") as stream:
        yield stream


def parse_line(
    line: bytes, headers: EncodedHeaders, new_id: Callable[[], str], id_path: Sequence[str] = ("id",)
) -> ProducerRecord:
    """The record for a line, whose key is the value at the path. Its bytes are unchanged, except that a missing `id` is
    inserted if that is the path.

    Raises InvalidMessage.
    """
    text = line.strip()
    try:
        value = _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidMessage(f"not a JSON object but {type(value).__name__}")
    if "id" not in value and tuple(id_path) == ("id",):
        value["id"] = new_id()
        text = _with_id(text, value["id"], only_key=len(value) == 1)
    return ProducerRecord(_key(value, id_path), text, headers)


def _key(message: Any, path: Sequence[str]) -> bytes:
    """An id is text or an integer of 64 bits, as in the consumer."""
    for name in path:
        if not isinstance(message, dict) or name not in message:
            raise InvalidMessage(f"the message has no {'.'.join(path)}, which is the id; see --id-field")
        message = message[name]
    if (isinstance(message, str) and message) or (type(message) is int and -(2**63) <= message < 2**63):
        return str(message).encode()
    raise InvalidMessage(f"{'.'.join(path)} is not a non-empty string or an integer of 64 bits")


def _with_id(text: bytes, identifier: str, *, only_key: bool) -> bytes:
    return b'{"id":"' + identifier.encode() + (b'"' if only_key else b'",') + text[1:]


def _endless_ids() -> Iterator[str]:
    while True:
        yield from random_ids(100)


def _check_format(start: bytes) -> None:
    """Raises ConfigurationError where no line of the input can be read."""
    found = next((name for prefix, name in _OTHER_FORMATS.items() if start.startswith(prefix)), None)
    if found is None and b"\0" in start[:2]:  # JSON begins with two ASCII characters
        found = "UTF-16"
    if found is not None:
        raise ConfigurationError(f"the input is {found}; convert it to UTF-8 text, one JSON object per line")


def _blocks(stream: BufferedIOBase) -> Iterator[bytes]:
    """Complete lines as they arrive, without the last newline. Never waits for more than one line."""
    unfinished: list[bytes] = []
    while data := stream.read1(READ_SIZE):
        lines, newline, rest = data.rpartition(b"\n")
        if newline:
            yield b"".join([*unfinished, lines])
            unfinished.clear()
        unfinished.append(rest)
    if last := b"".join(unfinished):
        yield last


class _BlockQueue(Queue[bytes | Exception | None]):
    """Bounded by the memory its blocks occupy. The block that exceeds the bound is still accepted."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self._bytes = 0

    def _qsize(self) -> int:
        return self._bytes

    def _put(self, item: bytes | Exception | None) -> None:
        super()._put(item)
        self._bytes += _memory(item)

    def _get(self) -> bytes | Exception | None:
        item = super()._get()
        self._bytes -= _memory(item)
        return item


def _memory(block: bytes | Exception | None) -> int:
    return BLOCK_OVERHEAD + (len(block) if isinstance(block, bytes) else 0)


class JsonlInput:
    """Reads lines ahead in a thread of its own, so that an idle pipe does not block the main loop.

    The stream is opened and closed in that thread, too. An invalid line is logged with its number and counted; an empty
    one is ignored.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] | None = None,
        id_field: str = "id",
    ) -> None:
        self.read = 0
        self.invalid = 0
        self.exhausted = False
        self._clock = clock
        self._id_path = id_field.split(".")
        self._new_id = new_id or _endless_ids().__next__
        self._blocks = _BlockQueue(READ_AHEAD_BYTES)
        self._lines: Iterator[bytes] = iter(())
        self._number = 0
        Thread(target=self._read_ahead, args=(stream,), name="reader", daemon=True).start()

    def next_batch(self, size: int) -> list[ProducerRecord]:
        """Up to `size` records of the lines read so far, fewer where they are long. Never waits.

        Raises OSError where the stream cannot be read, and ConfigurationError where it is no UTF-8 text at all.
        """
        created_at = utc_text(self._clock()).encode()
        headers: EncodedHeaders = [("content-type", b"application/json"), ("created_at", created_at)]
        records: list[ProducerRecord] = []
        budget = READ_AHEAD_BYTES
        while size and budget > 0 and (lines := self._next_lines(size)):
            records += self._parse(lines, headers)
            size -= len(lines)
            budget -= sum(map(len, lines))
        return records

    def _next_lines(self, limit: int) -> list[bytes]:
        """Up to `limit` lines of one block; none if no block has been read, or the input has ended."""
        lines = list(islice(self._lines, limit))
        if lines or self.exhausted or self._blocks.empty():
            return lines
        block = self._blocks.get_nowait()
        if isinstance(block, Exception):
            raise block
        if block is None:
            self.exhausted = True
            return []
        self._lines = iter(block.split(b"\n"))
        return list(islice(self._lines, limit))

    def _parse(self, lines: Sequence[bytes], headers: EncodedHeaders) -> list[ProducerRecord]:
        records: list[ProducerRecord] = []
        for number, line in enumerate(lines, self._number + 1):
            try:
                if line and not line.isspace():
                    records.append(parse_line(line, headers, self._new_id, self._id_path))
            except InvalidMessage as error:
                self.invalid += 1
                self.read += 1
                logger.warning("invalid input line", extra={"line": number, "reason": str(error)})
        self._number += len(lines)
        self.read += len(records)
        return records

    def _read_ahead(self, stream: Stream) -> None:
        try:
            with stream as file:  # closed here: closing it elsewhere would wait for a read in progress
                for number, block in enumerate(_blocks(file)):
                    if number == 0:
                        _check_format(block)
                    self._blocks.put(block.removeprefix(_BOM) if number == 0 else block)
        except (OSError, ConfigurationError) as error:
            self._blocks.put(error)
        else:
            self._blocks.put(None)
