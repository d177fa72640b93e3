"""The headers of a Kafka message, with names of any bytes.

confluent-kafka's `Message.headers()` decodes names as UTF-8. If that fails, it returns a list with null pointers in it
and leaves an exception set, which surfaces at some later call. Therefore it must not be called. This module reads the
names and values from librdkafka's own list of headers instead, to which a consumed message holds a pointer.

librdkafka cuts a name at its first NUL, and returns no headers for a message that has more than 100,000 of them.
"""

import ctypes
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple, overload

from confluent_kafka import KafkaError, Message, cimpl
from msgspec import Struct

from src.model.header_names import as_text
from src.model.record import Header, Headers

_POINTER_SIZE = ctypes.sizeof(ctypes.c_void_p)


@Sequence.register
class MessageHeaders(Struct, gc=False):  # it is created for every message
    """A Sequence[Header]. Reads the headers on first access; storing a message does not access them."""

    _message: Message
    _read: Headers | None = None

    @overload
    def __getitem__(self, index: int) -> Header: ...

    @overload
    def __getitem__(self, index: slice) -> Headers: ...

    def __getitem__(self, index: int | slice) -> Header | Headers:
        return self._headers[index]

    def __len__(self) -> int:
        return len(self._headers)

    def __iter__(self) -> Iterator[Header]:
        return iter(self._headers)

    @property
    def _headers(self) -> Headers:
        if self._read is None:
            self._read = tuple(_headers(self._message))
        return self._read


def check_client() -> None:
    """Raise RuntimeError now, instead of at the first dead letter, if the installed client has an unknown layout."""
    _client()


class _Client(NamedTuple):
    """The librdkafka that the client has loaded, and the offset of the pointer to its headers in a `Message`."""

    library: ctypes.CDLL
    pointer_offset: int


def _headers(message: Message) -> Iterator[Header]:
    client = _client()
    headers = ctypes.c_void_p.from_address(id(message) + client.pointer_offset)
    if not headers:
        return
    name, value, size = ctypes.c_char_p(), ctypes.c_void_p(), ctypes.c_size_t()
    index = 0
    while not client.library.rd_kafka_header_get_all(
        headers, ctypes.c_size_t(index), ctypes.byref(name), ctypes.byref(value), ctypes.byref(size)
    ):
        yield as_text(name.value or b""), None if value.value is None else ctypes.string_at(value, size.value)
        index += 1


@cache
def _client() -> _Client:
    return _Client(ctypes.CDLL(cimpl.__file__), _pointer_offset())


def _pointer_offset() -> int:
    """The pointer to librdkafka's headers lies between the pointers to the Python objects `headers` and `error`.

    Both are located in a message constructed for this purpose, so an unknown layout raises an error.
    """
    headers: list[tuple[str, str | bytes | None]] = [("name", b"value")]
    error = KafkaError(KafkaError.NO_ERROR)
    message = Message(headers=headers, error=error)
    pointers = list((ctypes.c_void_p * (Message.__basicsize__ // _POINTER_SIZE)).from_address(id(message)))
    for index in range(1, len(pointers) - 1):
        if pointers[index - 1 : index + 2] == [id(headers), None, id(error)]:
            return index * _POINTER_SIZE
    raise RuntimeError("unknown layout of confluent_kafka.Message; install the confluent-kafka of requirements.txt")
