"""The gate before the embedded broker: it holds messages back before the broker would forget some in silence.

The broker keeps 5 MiB a partition and drops what is older, read or not. So every connection runs through here, and a
request that appends to the topic passes only while the bytes that nobody has settled stay within a window smaller
than that. Whoever sends too fast waits, as on a slow network; nothing is refused, and no speed gets past it.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine, Mapping
from threading import Event, Thread
from typing import Any, NamedTuple, Self

Offsets = Mapping[int, int]  # partition to offset

_PRODUCE = b"\x00\x00"  # the api key a request begins with
_LENGTH_BYTES = 4
_WHERE_THE_TOPIC_STANDS = 1024  # bytes; the client's id, which comes first, is short


class Window:
    """How many bytes may pass in all, so that the unsettled ones stay within `size`. Decides; touches nothing."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._settled = 0
        self._marks: deque[_Mark] = deque()

    @property
    def allowed(self) -> int:
        return self._settled + self._size

    def mark(self, passed: int, ends: Offsets) -> None:
        """The messages in the first `passed` bytes all lie below the offsets `ends`."""
        if passed > (self._marks[-1].passed if self._marks else self._settled):
            self._marks.append(_Mark(passed, ends))

    def settle(self, committed: Offsets) -> None:
        """What lies below these offsets is stored or dead-lettered."""
        while self._marks and _reached(committed, self._marks[0].ends):
            self._settled = self._marks.popleft().passed


class _Mark(NamedTuple):
    passed: int
    ends: Offsets


def _reached(committed: Offsets, ends: Offsets) -> bool:
    return all(committed.get(partition, 0) >= end for partition, end in ends.items())


class Gate:
    """Relays TCP between clients and the broker from a thread of its own, while the `with` block runs.

    Requests that append to `topic` pass until `allowed` bytes of them have; `answered` says how many bytes of them
    the broker has confirmed.
    """

    def __init__(self, broker: str, topic: str, allowed: int) -> None:
        self.answered = 0
        self._broker = broker.rsplit(":", 1)
        self._topic = topic.encode()
        self._allowed = allowed
        self._passed = 0
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._room = asyncio.Condition()
        self._over = asyncio.Event()
        self._open = Event()
        self._thread = Thread(target=self._loop.run_until_complete, args=(self._serve(),), name="gate", daemon=True)

    @property
    def port(self) -> int:
        return self._port

    def allow(self, allowed: int) -> None:
        """Let requests pass until so many bytes of them have in all."""
        asyncio.run_coroutine_threadsafe(self._widen(allowed), self._loop)

    def __enter__(self) -> Self:
        self._thread.start()
        self._open.wait()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        connections: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._relay(reader, writer))
            connections.add(task)
            task.add_done_callback(connections.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        self._open.set()
        await self._over.wait()
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _relay(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """One client's connection, until either side ends it. A request still held then is dropped."""
        unanswered: dict[bytes, int] = {}
        waiting: asyncio.Queue[bytes] = asyncio.Queue()
        try:
            from_broker, to_broker = await asyncio.open_connection(*self._broker)
        except OSError:
            to_client.close()
            return
        try:
            await _until_one_ends(
                _take(from_client, waiting),
                self._forward(waiting, to_broker, unanswered),
                self._answer(from_broker, to_client, unanswered),
            )
        finally:
            self.answered += sum(unanswered.values())
            to_broker.close()
            to_client.close()

    async def _forward(
        self, waiting: asyncio.Queue[bytes], broker: asyncio.StreamWriter, unanswered: dict[bytes, int]
    ) -> None:
        while True:
            request = await waiting.get()
            if appends_to(self._topic, request):
                await self._pass(len(request))
                unanswered[request[4:8]] = len(request)  # by its correlation id
            await _send(request, broker)

    async def _answer(
        self, broker: asyncio.StreamReader, client: asyncio.StreamWriter, unanswered: dict[bytes, int]
    ) -> None:
        while True:
            response = await _receive(broker)
            self.answered += unanswered.pop(response[:4], 0)
            await _send(response, client)

    async def _pass(self, size: int) -> None:
        async with self._room:
            await self._room.wait_for(lambda: self._passed + size <= self._allowed)
            self._passed += size

    async def _widen(self, allowed: int) -> None:
        async with self._room:
            self._allowed = allowed
            self._room.notify_all()


def appends_to(topic: bytes, request: bytes) -> bool:
    """Whether a Kafka request is a produce request to this topic, in the old or the compact encoding."""
    if not request.startswith(_PRODUCE):
        return False
    beginning = request[:_WHERE_THE_TOPIC_STANDS]
    return len(topic).to_bytes(2) + topic in beginning or _varint(len(topic) + 1) + topic in beginning


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + _varint(number >> 7)


async def _take(client: asyncio.StreamReader, waiting: asyncio.Queue[bytes]) -> None:
    """Read ahead, as far as the client sends without an answer, so that its hanging up is noticed while one is held."""
    while True:
        waiting.put_nowait(await _receive(client))


async def _receive(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(_LENGTH_BYTES)))


async def _send(frame: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(len(frame).to_bytes(_LENGTH_BYTES) + frame)
    await writer.drain()


async def _until_one_ends(*ways: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.create_task(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
