"""Produces records that confluent-kafka cannot write, for example with header names that are not UTF-8."""

import socket
import struct
import time
from collections.abc import Sequence
from threading import Event
from typing import NamedTuple

TIMEOUT = 30.0  # seconds
RETRY_INTERVAL = 0.1

_PRODUCE = 0
_VERSION = 3  # the first that takes headers
_LEADER_ONLY = 1
_NO_LEADER_YET = (3, 5, 6)  # errors for a topic that was just created
_TIMEOUT_MS = 20_000
_POLYNOMIAL = 0x82F63B78  # CRC-32C, reflected


RawHeader = tuple[bytes, bytes | None]


class RawRecord(NamedTuple):
    """`timestamp` is in milliseconds since 1970, None is now.

    `magic` and `codec` are those of the batch; nothing is compressed by the codec.
    """

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[RawHeader] = ()
    timestamp: int | None = None
    magic: int = 2
    codec: int = 0


def produce_raw(address: str, topic: str, records: Sequence[RawRecord], partition: int = 0) -> None:
    """Write each record in a batch of its own. `address` is host:port of the partition's leader."""
    deadline = time.monotonic() + TIMEOUT
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), TIMEOUT) as connection:
        for record in records:
            request = _request(topic, partition, _batch(record))
            while error := _error(_exchange(connection, request), topic):
                if error not in _NO_LEADER_YET or time.monotonic() > deadline:
                    raise RuntimeError(f"the broker returned error {error} for a record to {topic}[{partition}]")
                Event().wait(RETRY_INTERVAL)


def _exchange(connection: socket.socket, request: bytes) -> bytes:
    connection.sendall(struct.pack(">i", len(request)) + request)
    with connection.makefile("rb") as answers:
        (size,) = struct.unpack(">i", answers.read(4))
        return answers.read(size)


def _request(topic: str, partition: int, batch: bytes) -> bytes:
    header = struct.pack(">hhi", _PRODUCE, _VERSION, 1) + _string(b"raw-producer")
    body = struct.pack(">hhi", -1, _LEADER_ONLY, _TIMEOUT_MS)  # no transactional id
    topics = struct.pack(">i", 1) + _string(topic.encode())
    return header + body + topics + struct.pack(">iii", 1, partition, len(batch)) + batch


def _error(answer: bytes, topic: str) -> int:
    """The error code of the only partition in the response."""
    position = 4 + 4 + 2 + len(topic.encode()) + 4 + 4
    return int(struct.unpack_from(">h", answer, position)[0])


def _batch(record: RawRecord) -> bytes:
    timestamp = round(time.time() * 1000) if record.timestamp is None else record.timestamp
    content = struct.pack(">hiqqqhii", record.codec, 0, timestamp, timestamp, -1, -1, -1, 1) + _record(record)
    checked = struct.pack(">ibI", -1, record.magic, _crc32c(content)) + content
    return struct.pack(">qi", 0, len(checked)) + checked


def _record(record: RawRecord) -> bytes:
    headers = b"".join(_bytes(name) + _bytes(value) for name, value in record.headers)
    first = b"\0" + _varint(0) + _varint(0)  # attributes, timestamp delta, offset delta
    content = first + _bytes(record.key) + _bytes(record.value) + _varint(len(record.headers)) + headers
    return _varint(len(content)) + content


def _string(text: bytes) -> bytes:
    return struct.pack(">h", len(text)) + text


def _bytes(content: bytes | None) -> bytes:
    return _varint(-1) if content is None else _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """Zigzag, seven bits a byte."""
    rest = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes((*encoded, rest))


def _crc32c(content: bytes) -> int:
    checksum = 0xFFFFFFFF
    for byte in content:
        checksum = _CHECKSUMS[(checksum ^ byte) & 0xFF] ^ (checksum >> 8)
    return checksum ^ 0xFFFFFFFF


def _checksum(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_CHECKSUMS = tuple(_checksum(byte) for byte in range(256))
