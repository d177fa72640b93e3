"""A TCP relay between clients and a server, frame by frame."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from threading import Thread
from typing import Any, Self

from local.connectivity import Address
from local.protocols import WireProtocol


class Connection:
    """A client's connection to the relay, and the relay's own connection to the server."""

    def __init__(
        self, protocol: WireProtocol, to_client: asyncio.StreamWriter, to_server: asyncio.StreamWriter
    ) -> None:
        self.protocol = protocol
        self._to_client = to_client
        self._to_server = to_server

    async def send_to_server(self, data: bytes) -> None:
        self._to_server.write(data)
        await self._to_server.drain()

    async def send_to_client(self, data: bytes) -> None:
        self._to_client.write(data)
        await self._to_client.drain()


class Relay:
    """Relays from a thread of its own while the `with` block runs; clients connect to `address`.

    If the server returns further addresses to its clients, the relay listens for each of them. Subclasses override
    `forward`, `reply` and `disconnected`, which run in the relay's thread. With `read_ahead` it reads from a client
    while `forward` holds a request: when that client disconnects, the held request is dropped. With `tls`, clients
    connect with TLS, and the relay to the server without.
    """

    def __init__(
        self,
        server: Address,
        protocol: Callable[[], WireProtocol],
        *,
        name: str,
        read_ahead: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._server = server
        self._protocol = protocol
        self._read_ahead = read_ahead
        self._tls = tls
        self._accepting = True
        self._addresses: dict[Address, Address] = {}
        self._listeners: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._thread = Thread(target=self._loop.run_until_complete, args=(self._serve(),), name=name, daemon=True)

    @property
    def address(self) -> Address:
        return self._addresses[self._server]

    def __enter__(self) -> Self:
        self._address_for(self._server)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._closing.set)
        self._thread.join()
        self._loop.close()

    async def forward(self, connection: Connection, request: bytes) -> None:
        """Send a client's request to the server."""
        connection.protocol.on_request(request)
        await connection.send_to_server(request)

    async def reply(self, connection: Connection, response: bytes) -> None:
        """Send the server's response to the client."""
        await connection.send_to_client(connection.protocol.rewrite_response(response, self._address_for))

    def disconnected(self, connection: Connection) -> None:
        """Called when a connection has ended."""

    def _call(self, function: Callable[[], object]) -> None:
        """Run a function in the relay's thread."""
        self._loop.call_soon_threadsafe(function)

    def _close_connections(self) -> None:
        for task in self._connections:
            task.cancel()

    async def _serve(self) -> None:
        await self._closing.wait()
        for listener in self._listeners:
            listener.close()
        connections = list(self._connections)
        self._close_connections()
        await asyncio.gather(*connections, return_exceptions=True)

    def _address_for(self, server: Address) -> Address:
        """The relay's address for one of the server's."""
        if server not in self._addresses:
            listening = socket.create_server(("127.0.0.1", 0))
            self._addresses[server] = ("127.0.0.1", listening.getsockname()[1])
            self._loop.create_task(self._listen(listening, server))
        return self._addresses[server]

    async def _listen(self, listening: socket.socket, server: Address) -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._relay(server, reader, writer))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

        self._listeners.append(await asyncio.start_server(accept, sock=listening, ssl=self._tls))

    async def _relay(self, server: Address, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """One connection, until either side closes it."""
        try:
            if not self._accepting:
                return
            from_server, to_server = await asyncio.open_connection(*server)
            connection = Connection(self._protocol(), to_client, to_server)
            try:
                await _until_one_ends(
                    *self._requests(connection, from_client), self._responses(connection, from_server)
                )
            finally:
                self.disconnected(connection)
                to_server.close()
        except OSError:
            return  # the server is unreachable: the client sees its connection closed
        finally:
            to_client.close()

    def _requests(self, connection: Connection, client: asyncio.StreamReader) -> tuple[Coroutine[Any, Any, None], ...]:
        if not self._read_ahead:
            return (self._forward_all(connection, lambda: connection.protocol.read_frame(client)),)
        waiting: asyncio.Queue[bytes] = asyncio.Queue()
        return _read_all(connection.protocol, client, waiting), self._forward_all(connection, waiting.get)

    async def _forward_all(
        self, connection: Connection, next_request: Callable[[], Coroutine[Any, Any, bytes]]
    ) -> None:
        while True:
            await self.forward(connection, await next_request())

    async def _responses(self, connection: Connection, server: asyncio.StreamReader) -> None:
        while True:
            await self.reply(connection, await connection.protocol.read_frame(server))


async def _read_all(protocol: WireProtocol, client: asyncio.StreamReader, waiting: asyncio.Queue[bytes]) -> None:
    while True:
        waiting.put_nowait(await protocol.read_frame(client))


async def _until_one_ends(*coroutines: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
