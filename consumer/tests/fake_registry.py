"""A schema registry with the few requests that the consumer sends, which responds as a test decides."""

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from threading import Event, Thread
from typing import Any

import fastavro

Schema = Mapping[str, Any]
NOT_FOUND = 404, json.dumps({"error_code": 40403, "message": "Schema not found"}).encode()


class FakeRegistry:
    """`schemas` and `serialized` have what is returned for an id in two forms, `versions` for a subject and version.

    With a `response`, that is returned instead, and with a `gate` nothing before it is set.
    """

    def __init__(self) -> None:
        self.schemas: dict[int, Schema] = {}
        self.versions: dict[str, Schema] = {}
        self.serialized: dict[int, Schema] = {}
        self.response: tuple[int, bytes] | None = None
        self.gate: Event | None = None
        self.login: str | None = None
        self.requests: list[str] = []
        self.url = ""

    def add_avro(self, schema: Any, *references: Schema) -> int:
        return self.add(json.dumps(schema), references=list(references))

    def add(self, schema: str, **fields: Any) -> int:
        self.schemas[len(self.schemas) + 1] = {"schema": schema, **fields}
        return len(self.schemas)

    def respond(self, path: str, authorization: str | None) -> tuple[int, bytes]:
        self.requests.append(path)
        if self.gate is not None:
            self.gate.wait(10)
        if self.login and authorization != f"Basic {base64.b64encode(self.login.encode()).decode()}":
            return 401, b'{"error_code": 40101, "message": "Unauthorized"}'
        if self.response:
            return self.response
        found = self._find(path)
        return NOT_FOUND if found is None else (200, json.dumps(found).encode())

    def _find(self, path: str) -> object:
        path, _, query = path.partition("?")
        _, first, *rest = path.split("/")
        if (first, rest) == ("schemas", ["types"]):
            return ["AVRO", "JSON", "PROTOBUF"]
        if first == "subjects":
            return self.versions.get(f"{rest[0]}/{rest[2]}")
        return (self.serialized if "format=serialized" in query else self.schemas).get(int(rest[1]))


@contextmanager
def running(registry: FakeRegistry) -> Iterator[FakeRegistry]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = registry.respond(self.path, self.headers["Authorization"])
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Location", "http://127.0.0.1:9/")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        registry.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield registry
        finally:
            server.shutdown()
            thread.join()


def framed(number: int, payload: bytes) -> bytes:
    return b"\0" + number.to_bytes(4, "big") + payload


def avro(schema: Any, value: object) -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return out.getvalue()
