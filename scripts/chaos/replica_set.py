"""A relay in front of MongoDB that answers as a replica set does in a failover, or as mongos does without a shard.

The server behind it may be a single one: it holds what a majority has.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from threading import Event
from typing import Any, Literal, NamedTuple
from zlib import crc32

import bson

from chaos.proxy import Proxy
from local import mongodb_wire as wire
from local.connectivity import Address, host_port
from local.mongodb_wire import Command
from local.protocols import MongoProtocol
from local.relay import Connection

NAME = "chaos"
DUPLICATE_KEY = 11000

Response = dict[str, Any]
Transform = Callable[[Response], Response]

NOTHING_WRITTEN: Response = {"ok": 1.0, "n": 0, "nModified": 0}


class Failure(NamedTuple):
    """How a write fails: as a command, for some of its documents, or only in its write concern.

    Of a command this share of the documents is written before it fails.
    """

    code: int
    name: str
    part: Literal["command", "documents", "concern"] = "command"
    written: float = 0.0
    labels: tuple[str, ...] = ()

    @property
    def error(self) -> Response:
        return {"code": self.code, "codeName": self.name, "errmsg": f"{self.name}, injected"}

    def applied(self, documents: Sequence[memoryview]) -> list[int]:
        """The indexes of the documents that the server gets; of several shards one is unavailable."""
        if self.part == "documents":
            return [index for index, each in enumerate(documents) if crc32(bson.encode(_id(each))) % 3]
        return list(range(len(documents) if self.part == "concern" else round(self.written * len(documents))))

    def response(self, count: int, applied: Sequence[int], served: Response) -> Response:
        """What the client gets in place of what the server has answered for the documents that are applied."""
        if self.part == "command":
            return {"ok": 0.0, **self.error, "errorLabels": list(self.labels)}
        if self.part == "concern":
            return {**served, "writeConcernError": self.error}
        errors = [{**each, "index": applied[each["index"]]} for each in served.get("writeErrors", ())]
        errors += [{"index": index, **self.error} for index in sorted({*range(count)} - {*applied})]
        upserted = [{**each, "index": applied[each["index"]]} for each in served.get("upserted", ())]
        return {**served, "writeErrors": errors} | ({"upserted": upserted} if upserted else {})


NO_PRIMARY = Failure(10107, "NotWritablePrimary", labels=("RetryableWriteError",))
NO_READS = Failure(13435, "NotPrimaryNoSecondaryOk")
READ_INTERRUPTED = Failure(11602, "InterruptedDueToReplStateChange")
NOT_REPLICATED = Failure(64, "WriteConcernTimeout", "concern")


class ReplicaSet(Proxy):
    """Clients find a set with one member here, which is its primary most of the time."""

    uri_option = ("replicaSet", NAME)

    def __init__(self, server: Address) -> None:
        super().__init__(server, MongoProtocol)
        self.failed_writes = 0
        self._is_primary = True
        self._term = 1
        self._failures: Iterator[Failure] | None = None
        self._step_down: tuple[Failure, Event] | None = None
        self._failing_reads = 0
        self._unreplicated: dict[Any, Response] | None = None
        self._transforms: dict[Connection, Transform] = {}

    # -- faults

    def fail_writes(self, failures: Sequence[Failure]) -> None:
        """Each write fails with the next of these, in turn, until `heal`."""
        self._failures = cycle(failures)

    def step_down(self, failure: Failure) -> Event:
        """At the next write, which fails so; the event is set then. There is no primary until `elect`."""
        self._step_down = failure, Event()
        return self._step_down[1]

    def isolate(self) -> None:
        """The primary is cut off from the majority, and does not notice. `elect` rolls back what it writes."""
        self._unreplicated = {}

    def abdicate(self) -> None:
        self._is_primary = False

    def elect(self, *, failing_reads: int = 0) -> None:
        """A primary that has what a majority has. Its first reads are interrupted."""
        self._unreplicated = None
        self._failing_reads = failing_reads
        self._term += 1
        self._is_primary = True

    def heal(self) -> None:
        self._failures = None
        super().heal()

    # -- in the relay's thread

    async def forward(self, connection: Connection, request: bytes) -> None:
        _, number, _, opcode = wire.HEADER.unpack_from(request)
        content = memoryview(request)[wire.HEADER.size :]
        if opcode != wire.OP_MSG:  # the driver's first hello
            self._transforms[connection] = self._as_member
            await super().forward(connection, request)
            return
        command = wire.parse_message(content)
        if command.name in wire.BATCHES:
            await self._write(connection, number, command)
        elif command.name == "find" and (failure := self._read_failure()):
            await _respond(connection, number, failure.response(0, (), {}))
        else:
            if transform := self._transform(command):
                self._transforms[connection] = transform
            await super().forward(connection, request)

    async def reply(self, connection: Connection, response: bytes) -> None:
        if transform := self._transforms.pop(connection, None):
            request, opcode, document = wire.response_document(response)
            encode = wire.reply if opcode == wire.OP_REPLY else wire.message
            response = encode(request, transform(document))
        await super().reply(connection, response)

    def disconnected(self, connection: Connection) -> None:
        self._transforms.pop(connection, None)
        super().disconnected(connection)

    def _transform(self, command: Command) -> Transform | None:
        if command.name in ("hello", "ismaster", "isMaster"):
            return self._as_member
        if command.name == "find" and self._unreplicated is not None:
            arguments = command.arguments
            if arguments.get("readConcern", {}).get("level") != "majority":
                return lambda response: self._with_unreplicated(arguments["filter"], response)
        return None

    def _as_member(self, hello: Response) -> Response:
        member = host_port(self.address)
        role = {"isWritablePrimary": self._is_primary, "ismaster": self._is_primary, "secondary": not self._is_primary}
        election = {"setVersion": 1, "electionId": bson.ObjectId(f"{self._term:024x}")} if self._is_primary else {}
        hello.pop("topologyVersion", None)  # else the driver waits for changes, where it asks now
        return {**hello, **role, **election, "setName": NAME, "hosts": [member], "me": member}

    def _read_failure(self) -> Failure | None:
        if not self._is_primary:
            return NO_READS
        self._failing_reads -= 1
        return READ_INTERRUPTED if self._failing_reads >= 0 else None

    def _next_failure(self) -> Failure | None:
        if not self._is_primary:
            return NO_PRIMARY
        if self._step_down:
            failure, done = self._step_down
            self._step_down, self._is_primary = None, False
            done.set()
            return failure
        return next(self._failures) if self._failures else None

    async def _write(self, connection: Connection, number: int, command: Command) -> None:
        documents = list(command.documents())
        failure = self._next_failure()
        if failure is None and self._unreplicated is not None:
            await _respond(connection, number, self._write_unreplicated(self._unreplicated, command, documents))
            return
        applied = failure.applied(documents) if failure else range(len(documents))
        if failure:
            self.failed_writes += 1
            if not applied:
                await _respond(connection, number, failure.response(len(documents), (), NOTHING_WRITTEN))
                return
            self._transforms[connection] = lambda served: failure.response(len(documents), applied, served)
        key = wire.BATCHES[command.name]
        body = {name: value for name, value in command.arguments.items() if name != key}
        request = wire.command_message(number, body, [documents[index] for index in applied], key)
        await super().forward(connection, request)

    def _write_unreplicated(
        self, unreplicated: dict[Any, Response], command: Command, documents: Sequence[memoryview]
    ) -> Response:
        """As the server does, a write that fails waits for its write concern too."""
        self.failed_writes += 1
        errors = []
        for index, each in enumerate(documents):
            identity = _id(each)["_id"]
            if identity in unreplicated:
                errors.append({"index": index, "code": DUPLICATE_KEY, "keyPattern": {"_id": 1}, "errmsg": "E11000"})
            else:
                unreplicated[identity] = _stored(bson.decode(each))
        response: Response = {**NOTHING_WRITTEN, "n": len(documents) - len(errors)}
        if errors:
            response["writeErrors"] = errors
        if command.arguments.get("writeConcern", {}).get("w") == "majority":
            response["writeConcernError"] = NOT_REPLICATED.error
        return response

    def _with_unreplicated(self, query: Mapping[str, Any], response: Response) -> Response:
        ids, unreplicated = query.get("_id", {}).get("$in", ()), self._unreplicated or {}
        cursor = response["cursor"]
        batch = cursor["firstBatch"] + [unreplicated[each] for each in ids if each in unreplicated]
        return {**response, "cursor": {**cursor, "firstBatch": batch}}


async def _respond(connection: Connection, request: int, response: Response) -> None:
    await connection.send_to_client(wire.message(request, response))


def _id(document: memoryview) -> Response:
    """Of a document of an insert, or of a statement of an update."""
    decoded = bson.decode(document)
    return {"_id": decoded.get("q", decoded)["_id"]}


def _stored(document: Response) -> Response:
    """What an insert, or a statement of an update, stores."""
    if "q" not in document:
        return document
    update = document["u"]
    return {"_id": document["q"]["_id"], **update["$set"]} if "$set" in update else update
