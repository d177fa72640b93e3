"""The wire protocols that the relay understands: where a frame ends, and which responses contain broker addresses.

A Kafka client connects to the addresses that the cluster returns. The relay replaces them with its own, so that the
client stays on the relay.
"""

from asyncio import StreamReader
from collections.abc import Callable
from typing import Protocol

from local.connectivity import Address

AddressMapping = Callable[[Address], Address]
"""Returns the address to give to a client in place of a server's."""

PRODUCE, METADATA, FIND_COORDINATOR = 0, 3, 10  # API keys
_FIRST_FLEXIBLE_VERSION = {METADATA: 9, FIND_COORDINATOR: 3}  # from here on with compact lengths and tagged fields


class WireProtocol(Protocol):
    """The state of one connection."""

    async def read_frame(self, reader: StreamReader) -> bytes:
        """The next frame, including its length."""

    def on_request(self, frame: bytes) -> None:
        """Called for each frame before it goes to the server."""

    def rewrite_response(self, frame: bytes, mapping: AddressMapping) -> bytes:
        """The response with the server's addresses replaced."""


class MongoProtocol:
    async def read_frame(self, reader: StreamReader) -> bytes:
        length = await reader.readexactly(4)
        return length + await reader.readexactly(int.from_bytes(length, "little") - 4)

    def on_request(self, frame: bytes) -> None:
        """No state."""

    def rewrite_response(self, frame: bytes, mapping: AddressMapping) -> bytes:  # noqa: ARG002 - directConnection=true
        return frame


class KafkaProtocol:
    def __init__(self) -> None:
        self._pending: dict[bytes, tuple[int, int]] = {}  # correlation id to API key and version

    async def read_frame(self, reader: StreamReader) -> bytes:
        length = await reader.readexactly(4)
        return length + await reader.readexactly(int.from_bytes(length))

    def on_request(self, frame: bytes) -> None:
        api_key, version = int.from_bytes(frame[4:6]), int.from_bytes(frame[6:8])
        if api_key in _FIRST_FLEXIBLE_VERSION:
            self._pending[request_correlation_id(frame)] = api_key, version

    def rewrite_response(self, frame: bytes, mapping: AddressMapping) -> bytes:
        request = self._pending.pop(response_correlation_id(frame), None)
        if request is None:
            return frame
        body = replace_addresses(*request, frame[4:], mapping)
        return len(body).to_bytes(4) + body


def request_correlation_id(frame: bytes) -> bytes:
    return frame[8:12]


def response_correlation_id(frame: bytes) -> bytes:
    return frame[4:8]


def produces_to(topic: bytes, frame: bytes) -> bool:
    """Whether a frame is a Produce request for this topic, in either encoding. The name is near its beginning."""
    if int.from_bytes(frame[4:6]) != PRODUCE:
        return False
    beginning = frame[:1024]
    return len(topic).to_bytes(2) + topic in beginning or unsigned_varint(len(topic) + 1) + topic in beginning


def replace_addresses(api_key: int, version: int, response: bytes, mapping: AddressMapping) -> bytes:
    """A response to Metadata or FindCoordinator with the brokers' addresses replaced."""
    rewriter = _AddressRewriter(response, flexible=version >= _FIRST_FLEXIBLE_VERSION[api_key], mapping=mapping)
    rewriter.skip(4)  # correlation id
    rewriter.skip_tags()
    if api_key == METADATA:
        _rewrite_metadata(rewriter, version)
    else:
        _rewrite_coordinators(rewriter, version)
    return rewriter.result()


def _rewrite_metadata(rewriter: "_AddressRewriter", version: int) -> None:
    rewriter.skip(4 if version >= 3 else 0)  # throttle time
    for _ in range(rewriter.read_array_length()):
        rewriter.skip(4)  # node id
        rewriter.rewrite_address()
        if version >= 1:
            rewriter.skip_string()  # rack
        rewriter.skip_tags()


def _rewrite_coordinators(rewriter: "_AddressRewriter", version: int) -> None:
    rewriter.skip(4 if version >= 1 else 0)  # throttle time
    if version >= 4:
        for _ in range(rewriter.read_array_length()):
            rewriter.skip_string()  # key
            rewriter.skip(4)  # node id
            rewriter.rewrite_address()
            rewriter.skip(2)  # error code
            rewriter.skip_string()  # error message
            rewriter.skip_tags()
        return
    rewriter.skip(2)  # error code
    if version >= 1:
        rewriter.skip_string()  # error message
    rewriter.skip(4)  # node id
    rewriter.rewrite_address()


class _AddressRewriter:
    """Walks through a response and copies everything except the addresses."""

    def __init__(self, response: bytes, *, flexible: bool, mapping: AddressMapping) -> None:
        self._response = response
        self._flexible = flexible
        self._mapping = mapping
        self._position = 0
        self._copied = 0
        self._output = bytearray()

    def skip(self, count: int) -> None:
        self._position += count

    def skip_string(self) -> None:
        self._read_string()

    def skip_tags(self) -> None:
        if self._flexible:
            for _ in range(self._read_varint()):
                self._read_varint()
                self.skip(self._read_varint())

    def read_array_length(self) -> int:
        return max(0, self._read_varint() - 1 if self._flexible else self._read_integer(4))

    def rewrite_address(self) -> None:
        self._output += self._response[self._copied : self._position]
        host, port = self._read_string().decode(), self._read_integer(4)
        if port > 0:  # -1 if there is no coordinator
            host, port = self._mapping((host, port))
        encoded = host.encode()
        self._output += unsigned_varint(len(encoded) + 1) if self._flexible else len(encoded).to_bytes(2)
        self._output += encoded + port.to_bytes(4, signed=True)
        self._copied = self._position

    def result(self) -> bytes:
        return bytes(self._output) + self._response[self._copied :]

    def _read_string(self) -> bytes:
        length = max(0, self._read_varint() - 1 if self._flexible else self._read_integer(2))
        return self._read(length)

    def _read_integer(self, size: int) -> int:
        return int.from_bytes(self._read(size), signed=True)

    def _read_varint(self) -> int:
        number = shift = 0
        while (byte := self._read(1)[0]) & 128:
            number |= (byte & 127) << shift
            shift += 7
        return number | byte << shift

    def _read(self, count: int) -> bytes:
        self._position += count
        return self._response[self._position - count : self._position]


def unsigned_varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + unsigned_varint(number >> 7)
