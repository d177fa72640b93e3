"""As much of MongoDB's wire protocol as a server or a relay needs that does not decode the documents. Pure.

Documents that are written are counted by their lengths, so that a server costs next to nothing.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import bson

HEADER = struct.Struct("<iiii")  # length, request id, response to, opcode
OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013

_CHECKSUM_PRESENT, _MORE_TO_COME = 1, 2
_BODY, _DOCUMENT_SEQUENCE = 0, 1
BATCHES = {"insert": "documents", "update": "updates", "delete": "deletes"}

_int = struct.Struct("<i").unpack_from
_FIXED_SIZES = {0x01: 8, 0x06: 0, 0x07: 12, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x11: 8, 0x12: 8, 0x13: 16}
_PREFIXED = {0x02: 4, 0x0D: 4, 0x0E: 4, 0x05: 5, 0x03: 0, 0x04: 0}  # type to the bytes that its length does not count


@dataclass(frozen=True)
class Command:
    """`batch` is where the documents of an insert, update or delete are; `is_array` if they have keys."""

    name: str
    target: str
    body: memoryview
    batch: memoryview | None = None
    is_array: bool = False
    wants_reply: bool = True

    @property
    def arguments(self) -> dict[str, Any]:
        return bson.decode(self.body)

    def documents(self) -> Iterator[memoryview]:
        """Each document of the batch, still encoded."""
        batch = self.batch or memoryview(b"")
        return (batch[start:end] for start, end in self._bounds())

    def count(self) -> int:
        return sum(1 for _ in self._bounds())

    def _bounds(self) -> Iterator[tuple[int, int]]:
        """Where each document starts and ends."""
        batch = self.batch or b""
        start, end = (4, len(batch) - 1) if self.is_array else (0, len(batch))
        index = 0
        while start < end:
            if self.is_array:
                start += 2 + len(str(index))  # the type, and the index as text
                index += 1
            following = start + _int(batch, start)[0]
            yield start, following
            start = following


def parse_message(message: memoryview) -> Command:
    """An OP_MSG, without its header."""
    (flags,) = _int(message)
    end = len(message) - (4 if flags & _CHECKSUM_PRESENT else 0)
    body, sequence, position = message[:0], None, 4
    while position < end:
        (size,) = _int(message, position + 1)
        if message[position] == _BODY:
            body = message[position + 1 : position + 1 + size]
        elif message[position] == _DOCUMENT_SEQUENCE:
            identifier_end = _end_of_text(message, position + 5)
            sequence = message[identifier_end : position + 1 + size]
        position += 1 + size
    return _command(body, sequence, wants_reply=not flags & _MORE_TO_COME)


def parse_query(message: memoryview) -> tuple[str, dict[str, Any]]:
    """Database and command of an OP_QUERY, without its header; drivers send their first hello in one."""
    collection_end = _end_of_text(message, 4)
    namespace = bytes(message[4 : collection_end - 1]).decode()
    return namespace.removesuffix(".$cmd"), bson.decode(message[collection_end + 8 :])


def message(request: int, document: Mapping[str, Any]) -> bytes:
    """An OP_MSG that responds to this request."""
    body = bson.encode(document)
    return HEADER.pack(HEADER.size + 5 + len(body), 0, request, OP_MSG) + b"\0\0\0\0\0" + body


def reply(request: int, document: Mapping[str, Any]) -> bytes:
    """An OP_REPLY, which responds to an OP_QUERY."""
    body = bson.encode(document)
    return HEADER.pack(HEADER.size + 20 + len(body), 0, request, OP_REPLY) + struct.pack("<iqii", 8, 0, 0, 1) + body


def command_message(request: int, document: Mapping[str, Any], batch: Sequence[memoryview], key: str) -> bytes:
    """An OP_MSG with a command, and with the documents of its batch under this key."""
    body, name = bson.encode(document), key.encode() + b"\0"
    size = 4 + len(name) + sum(map(len, batch))
    sequence = b"\1" + size.to_bytes(4, "little") + name + b"".join(batch)
    return HEADER.pack(HEADER.size + 5 + len(body) + len(sequence), request, 0, OP_MSG) + b"\0" * 5 + body + sequence


def response_document(frame: bytes) -> tuple[int, int, dict[str, Any]]:
    """Of an OP_MSG or OP_REPLY: the id of the request, the opcode and the document."""
    _, _, request, opcode = HEADER.unpack_from(frame)
    return request, opcode, bson.decode(frame[HEADER.size + (20 if opcode == OP_REPLY else 5) :])


def _command(body: memoryview, sequence: memoryview | None, *, wants_reply: bool) -> Command:
    elements = _elements(body)
    name, first = next(elements)
    target = bytes(first[4:-1]).decode(errors="replace") if body[4] == 0x02 else ""
    key = BATCHES.get(name)
    if key is None or sequence is not None:
        return Command(name, target, body, sequence, wants_reply=wants_reply)
    array = next((value for element, value in elements if element == key), None)
    return Command(name, target, body, array, is_array=True, wants_reply=wants_reply)


def _elements(document: memoryview) -> Iterator[tuple[str, memoryview]]:
    """The keys of a document with their encoded values."""
    position = 4
    while kind := document[position]:
        start = _end_of_text(document, position + 1)
        end = start + _size(kind, document, start)
        yield bytes(document[position + 1 : start - 1]).decode(errors="replace"), document[start:end]
        position = end


def _size(kind: int, document: memoryview, start: int) -> int:
    if kind in _FIXED_SIZES:
        return _FIXED_SIZES[kind]
    if kind in _PREFIXED:
        return int(_int(document, start)[0]) + _PREFIXED[kind]
    raise ValueError(f"a command with a value of BSON type {kind:#x} is not supported")


def _end_of_text(data: memoryview, start: int) -> int:
    """The position after the NUL."""
    while data[start]:
        start += 1
    return start + 1
