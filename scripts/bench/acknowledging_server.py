"""`python -m bench.acknowledging_server`: speaks MongoDB's protocol, acknowledges inserts and stores nothing.

It is the fastest store there can be, so that a bench measures the program that writes to it. It prints its port, and
ends when its standard input does.
"""

import os
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock, Thread
from typing import Any

import bson

from local import mongodb_wire as wire
from local.mongodb_wire import Command

PROGRESS, LATENCIES = "benchProgress", "benchLatencies"  # commands of its own

_LIMITS = {"maxBsonObjectSize": 16 * 1024 * 1024, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000}
_VERSIONS = {"minWireVersion": 0, "maxWireVersion": 21}


@dataclass
class Collection:
    """What was written to a collection. `latencies` is filled from the first request for it on, in seconds."""

    documents: int = 0
    commands: int = 0
    sent_bytes: int = 0
    last_write: float = 0.0
    """By the machine's monotonic clock."""
    latencies: list[float] | None = None
    lock: Lock = field(default_factory=Lock)

    def write(self, command: Command, size: int) -> int:
        """The number of documents in the command, whose message has this size."""
        count, now = command.count(), time.time()
        with self.lock:
            self.documents += count
            self.commands += 1
            self.sent_bytes += size
            self.last_write = time.monotonic()
            if self.latencies is not None:
                self.latencies += [now - _created_at(document) for document in command.documents()]
        return count


class Responses:
    """The response to each command."""

    def __init__(self) -> None:
        self._collections: dict[str, Collection] = defaultdict(Collection)
        self._commands: Mapping[str, Callable[[Command], Mapping[str, Any]]] = {
            **dict.fromkeys(("hello", "ismaster", "isMaster"), lambda _: _hello()),
            **dict.fromkeys(("find", "aggregate", "listIndexes", "listCollections"), _empty_cursor),
            "buildInfo": lambda _: {"version": "8.0.0", "versionArray": [8, 0, 0, 0]},
            "buildinfo": lambda _: {"version": "8.0.0", "versionArray": [8, 0, 0, 0]},
            "count": lambda command: {"n": self._collections[command.target].documents},
            PROGRESS: self._progress,
            LATENCIES: self._latencies,
        }

    def to(self, command: Command, size: int) -> dict[str, Any]:
        """Every unknown command succeeds, such as createIndexes."""
        if command.batch is not None:
            count = self._collections[command.target].write(command, size)
            return {"n": count, "nModified": count, "ok": 1.0} if command.name == "update" else {"n": count, "ok": 1.0}
        respond = self._commands.get(command.name)
        return {**(respond(command) if respond else {}), "ok": 1.0}

    def _progress(self, command: Command) -> dict[str, Any]:
        found = self._collections[command.target]
        with found.lock:
            return {
                "documents": found.documents,
                "commands": found.commands,
                "sent_bytes": found.sent_bytes,
                "last_write": found.last_write,
                "cpu_seconds": time.process_time(),
            }

    def _latencies(self, command: Command) -> dict[str, Any]:
        """Those since the last request."""
        found = self._collections[command.target]
        with found.lock:
            latencies, found.latencies = found.latencies, []
        return {"seconds": latencies or []}


def _hello() -> dict[str, Any]:
    now = datetime.now(UTC)
    return {"ismaster": True, "isWritablePrimary": True, "helloOk": True, "localTime": now, "readOnly": False} | {
        **_LIMITS,
        **_VERSIONS,
        "logicalSessionTimeoutMinutes": 30,
    }


def _empty_cursor(command: Command) -> dict[str, Any]:
    database = command.arguments.get("$db", "")
    return {"cursor": {"id": bson.Int64(0), "ns": f"{database}.{command.target}", "firstBatch": []}}


def _created_at(document: memoryview) -> float:
    """Seconds since 1970 of the message's creation."""
    return float(bson.decode(document)["created_at"].replace(tzinfo=UTC).timestamp())


def serve(connection: socket.socket, responses: Responses) -> None:
    """One client, until it disconnects."""
    with connection, suppress(ConnectionError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while header := _receive(connection, wire.HEADER.size):
            length, request, _, opcode = wire.HEADER.unpack(header)
            content = _receive(connection, length - wire.HEADER.size)
            if response := _response(opcode, request, content, length, responses):
                connection.sendall(response)


def _response(opcode: int, request: int, content: memoryview, size: int, responses: Responses) -> bytes | None:
    if opcode == wire.OP_QUERY:
        return wire.reply(request, {**_hello(), "ok": 1.0})
    if opcode != wire.OP_MSG:
        raise ConnectionError(f"opcode {opcode} is not supported")
    command = wire.parse_message(content)
    document = responses.to(command, size)
    return wire.message(request, document) if command.wants_reply else None


def _receive(connection: socket.socket, size: int) -> memoryview:
    """Exactly this many bytes; none if the client has disconnected."""
    content = memoryview(bytearray(size))
    received = 0
    while received < size:
        count = connection.recv_into(content[received:], 0, socket.MSG_WAITALL)
        if not count:
            return content[:0]
        received += count
    return content


def accept(listener: socket.socket, responses: Responses) -> None:
    while True:
        connection, _ = listener.accept()
        Thread(target=serve, args=(connection, responses), daemon=True).start()


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    Thread(target=accept, args=(listener, Responses()), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    sys.stdin.read()
    os._exit(0)  # threads still wait for their clients


if __name__ == "__main__":
    main()
