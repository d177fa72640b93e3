"""A network that can be cut, frozen and slowed: relays TCP to a server, frame by frame."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

from chaos.wires import Address, KafkaWire, MongoWire, Wire

LARGE = 2048  # bytes: a request of at least so many carries messages


class Proxy:
    """Relays from a thread of its own while the `with` block runs; `address` is where clients connect.

    A server that sends its clients on to further addresses gets a port here for each of them.
    """

    def __init__(self, server: Address, wire: Callable[[], Wire]) -> None:
        self._server = server
        self._wire = wire
        self._ports: dict[Address, Address] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._listeners: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._over = asyncio.Event()
        self._open = Event()
        self._refusing = False
        self._delay = 0.0
        self.slowed = 0
        """Answers that came late by `slow`."""
        self._scissors: _Scissors | None = None
        self._thread = Thread(target=self._loop.run_until_complete, args=(self._serve(),), name="proxy", daemon=True)

    @property
    def address(self) -> Address:
        return self._ports[self._server]

    # -- what can happen to a network

    def cut(self) -> None:
        """End every connection, and let none be made until `mend`."""
        self._refusing = True
        self._loop.call_soon_threadsafe(self._end_connections)

    def freeze(self) -> None:
        """Let nothing through in either direction until `mend`; connections stay open."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def slow(self, seconds: float) -> None:
        """Let answers to requests that carry messages come so much later, until `mend`."""
        self._delay = seconds

    def cut_in_flight(self, *, answered: bool) -> Event:
        """Cut at the next request that carries messages: in its middle, or once the server has answered it.

        The event is set when that has happened; new connections can be made at once.
        """
        self._scissors = _Scissors(answered=answered)
        return self._scissors.done

    def mend(self) -> None:
        self._refusing = False
        self._delay = 0.0
        self._loop.call_soon_threadsafe(self._flowing.set)

    def __enter__(self) -> Self:
        self._thread.start()
        self._open.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()

    # -- inside, all in the proxy's own thread

    async def _serve(self) -> None:
        self._flowing.set()
        self._place(self._server)
        self._open.set()
        await self._over.wait()
        for listener in self._listeners:
            listener.close()
        connections = list(self._connections)
        self._end_connections()
        await asyncio.gather(*connections, return_exceptions=True)

    def _place(self, server: Address) -> Address:
        """Our address for one of the server's."""
        if server not in self._ports:
            listening = socket.create_server(("127.0.0.1", 0))
            self._ports[server] = ("127.0.0.1", listening.getsockname()[1])
            self._loop.create_task(self._listen(listening, server))
        return self._ports[server]

    async def _listen(self, listening: socket.socket, server: Address) -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._relay(server, reader, writer))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

        self._listeners.append(await asyncio.start_server(accept, sock=listening))

    def _end_connections(self) -> None:
        for task in self._connections:
            task.cancel()

    async def _relay(self, server: Address, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """One client's connection, until either side or a cut ends it."""
        try:
            if self._refusing:
                return
            from_server, to_server = await asyncio.open_connection(*server)
            try:
                link = _Link(self._wire())
                await _until_one_ends(
                    self._forward(link, client, to_server), self._answer(link, from_server, to_client)
                )
            finally:
                to_server.close()
        except OSError:
            return  # the server is away; to the client it looks the same
        finally:
            to_client.close()

    async def _forward(self, link: "_Link", client: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while True:
            frame = await link.wire.receive(client)
            await self._flowing.wait()
            link.wire.request(frame)
            link.carries = len(frame) >= LARGE
            scissors = self._scissors if link.carries else None
            if scissors and not scissors.answered:
                server.write(frame[: len(frame) // 2])
                await server.drain()
                self._snip(scissors)
                return
            server.write(frame)
            await server.drain()

    async def _answer(self, link: "_Link", server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while True:
            frame = await link.wire.receive(server)
            await self._flowing.wait()
            if link.carries and self._delay:
                await asyncio.sleep(self._delay)
                self.slowed += 1
            if link.carries and self._scissors and self._scissors.answered:
                self._snip(self._scissors)
                return
            client.write(link.wire.answer(frame, self._place))
            await client.drain()

    def _snip(self, scissors: "_Scissors") -> None:
        self._scissors = None
        scissors.done.set()
        self._end_connections()


class _Scissors:
    def __init__(self, *, answered: bool) -> None:
        self.answered = answered
        self.done = Event()


class _Link:
    """A connection's wire, and whether its last request carried messages."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.carries = False


async def _until_one_ends(*ways: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.create_task(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def kafka_proxy(server: Address) -> Proxy:
    return Proxy(server, KafkaWire)


def mongodb_proxy(server: Address) -> Proxy:
    return Proxy(server, MongoWire)
