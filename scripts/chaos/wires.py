"""What goes over a connection: how its bytes are cut into frames, and where a server's answers name its address.

A client of Kafka goes on to the addresses that the cluster tells it. So that it stays on the proxy, the addresses in
those two answers are replaced.
"""

from asyncio import StreamReader
from collections.abc import Callable
from typing import Protocol

Address = tuple[str, int]
Placing = Callable[[Address], Address]
"""The address to tell in place of one."""

METADATA, FIND_COORDINATOR = 3, 10
_COMPACT_FROM = {METADATA: 9, FIND_COORDINATOR: 3}  # the version from which lengths are variable and tags follow


class Wire(Protocol):
    """One connection."""

    async def receive(self, reader: StreamReader) -> bytes:
        """The next frame, its length included."""

    def request(self, frame: bytes) -> None:
        """This one goes to the server."""

    def answer(self, frame: bytes, placing: Placing) -> bytes:
        """What the client gets in place of the server's answer."""


class MongoWire:
    async def receive(self, reader: StreamReader) -> bytes:
        length = await reader.readexactly(4)
        return length + await reader.readexactly(int.from_bytes(length, "little") - 4)

    def request(self, frame: bytes) -> None:
        """Nothing to remember."""

    def answer(self, frame: bytes, placing: Placing) -> bytes:  # noqa: ARG002 - a client of one server asks for no other
        return frame


class KafkaWire:
    def __init__(self) -> None:
        self._asked: dict[bytes, tuple[int, int]] = {}  # correlation id to api and version

    async def receive(self, reader: StreamReader) -> bytes:
        length = await reader.readexactly(4)
        return length + await reader.readexactly(int.from_bytes(length))

    def request(self, frame: bytes) -> None:
        api, version = int.from_bytes(frame[4:6]), int.from_bytes(frame[6:8])
        if api in _COMPACT_FROM:
            self._asked[frame[8:12]] = api, version

    def answer(self, frame: bytes, placing: Placing) -> bytes:
        asked = self._asked.pop(frame[4:8], None)
        if asked is None:
            return frame
        body = placed(*asked, frame[4:], placing)
        return len(body).to_bytes(4) + body


def placed(api: int, version: int, answer: bytes, placing: Placing) -> bytes:
    """An answer to Metadata or FindCoordinator with other addresses of brokers."""
    copy = _Copy(answer, compact=version >= _COMPACT_FROM[api], placing=placing)
    copy.keep(4)  # the correlation id
    copy.tags()
    if api == METADATA:
        _metadata(copy, version)
    else:
        _coordinator(copy, version)
    return copy.whole()


def _metadata(copy: "_Copy", version: int) -> None:
    copy.keep(4 if version >= 3 else 0)  # throttle time
    for _ in range(copy.count()):
        copy.keep(4)  # node id
        copy.address()
        if version >= 1:
            copy.text()  # rack
        copy.tags()


def _coordinator(copy: "_Copy", version: int) -> None:
    copy.keep(4 if version >= 1 else 0)  # throttle time
    if version >= 4:
        for _ in range(copy.count()):
            copy.text()  # key
            copy.keep(4)  # node id
            copy.address()
            copy.keep(2)  # error
            copy.text()  # its message
            copy.tags()
        return
    copy.keep(2)  # error
    if version >= 1:
        copy.text()  # its message
    copy.keep(4)  # node id
    copy.address()


class _Copy:
    """Goes through an answer from its beginning, and copies it but for the addresses."""

    def __init__(self, source: bytes, *, compact: bool, placing: Placing) -> None:
        self._source = source
        self._at = 0
        self._copied = bytearray()
        self._compact = compact
        self._placing = placing

    def keep(self, count: int) -> None:
        self._copied += self._take(count)

    def count(self) -> int:
        """The length of the array that begins here."""
        began = self._at
        count = self._varint() - 1 if self._compact else int.from_bytes(self._take(4), signed=True)
        self._copied += self._source[began : self._at]
        return max(0, count)

    def text(self) -> None:
        began = self._at
        self._text()
        self._copied += self._source[began : self._at]

    def tags(self) -> None:
        if not self._compact:
            return
        began = self._at
        for _ in range(self._varint()):
            self._varint()
            self._take(self._varint())
        self._copied += self._source[began : self._at]

    def address(self) -> None:
        host = self._text().decode()
        port = int.from_bytes(self._take(4), signed=True)
        if port > 0:  # -1 where there is no coordinator
            host, port = self._placing((host, port))
        encoded = host.encode()
        self._copied += _varint(len(encoded) + 1) if self._compact else len(encoded).to_bytes(2)
        self._copied += encoded + port.to_bytes(4, signed=True)

    def whole(self) -> bytes:
        return bytes(self._copied) + self._source[self._at :]

    def _take(self, count: int) -> bytes:
        taken = self._source[self._at : self._at + count]
        self._at += count
        return taken

    def _text(self) -> bytes:
        length = self._varint() - 1 if self._compact else int.from_bytes(self._take(2), signed=True)
        return self._take(max(0, length))

    def _varint(self) -> int:
        number = shift = 0
        while (byte := self._take(1)[0]) & 128:
            number |= (byte & 127) << shift
            shift += 7
        return number | byte << shift


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + _varint(number >> 7)
