"""A network between clients and a server that can be cut, frozen and slowed down."""

import asyncio
from collections.abc import Callable
from threading import Event

from local.connectivity import Address
from local.protocols import KafkaProtocol, MongoProtocol, WireProtocol
from local.relay import Connection, Relay

LARGE = 2048  # bytes: a request of at least this size carries messages


class Proxy(Relay):
    uri_option = ("directConnection", "true")
    """Keeps a client of MongoDB here, whom a replica set would redirect."""

    def __init__(self, server: Address, protocol: Callable[[], WireProtocol]) -> None:
        super().__init__(server, protocol, name="proxy")
        self.delayed_responses = 0
        self._unfrozen = asyncio.Event()
        self._unfrozen.set()
        self._delay = 0.0
        self._pending_cut: _PendingCut | None = None
        self._carries_messages: dict[Connection, bool] = {}  # of the last request of each connection

    # -- faults

    def cut(self) -> None:
        """Close every connection and refuse new ones until `heal`."""
        self._accepting = False
        self._call(self._close_connections)

    def freeze(self) -> None:
        """Let nothing through in either direction until `heal`; connections stay open."""
        self._call(self._unfrozen.clear)

    def slow(self, seconds: float) -> None:
        """Delay the responses to requests that carry messages until `heal`."""
        self._delay = seconds

    def cut_in_flight(self, *, answered: bool) -> Event:
        """Close every connection at the next request that carries messages: half sent, or answered by the server.

        The event is set when that has happened; new connections are accepted at once.
        """
        self._pending_cut = _PendingCut(answered=answered)
        return self._pending_cut.done

    def heal(self) -> None:
        self._accepting = True
        self._delay = 0.0
        self._call(self._unfrozen.set)

    # -- in the relay's thread

    async def forward(self, connection: Connection, request: bytes) -> None:
        await self._unfrozen.wait()
        carries_messages = self._carries_messages[connection] = len(request) >= LARGE
        if carries_messages and self._pending_cut and not self._pending_cut.answered:
            await connection.send_to_server(request[: len(request) // 2])
            await self._cut_now(self._pending_cut)
        await super().forward(connection, request)

    async def reply(self, connection: Connection, response: bytes) -> None:
        await self._unfrozen.wait()
        if self._carries_messages.get(connection):
            if self._delay:
                await asyncio.sleep(self._delay)
                self.delayed_responses += 1
            if self._pending_cut and self._pending_cut.answered:
                await self._cut_now(self._pending_cut)
        await super().reply(connection, response)

    def disconnected(self, connection: Connection) -> None:
        self._carries_messages.pop(connection, None)

    async def _cut_now(self, cut: "_PendingCut") -> None:
        """Does not return: this connection is closed as well."""
        self._pending_cut = None
        cut.done.set()
        self._close_connections()
        await asyncio.Future()


class _PendingCut:
    def __init__(self, *, answered: bool) -> None:
        self.answered = answered
        self.done = Event()


def kafka_proxy(server: Address) -> Proxy:
    return Proxy(server, KafkaProtocol)


def mongodb_proxy(server: Address) -> Proxy:
    return Proxy(server, MongoProtocol)
