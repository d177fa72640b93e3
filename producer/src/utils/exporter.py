"""The HTTP side of a service: /metrics for Prometheus, /live and /ready for whoever looks after the process."""

import json
import socket
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

Reasons = Callable[[], Sequence[str]]
Answer = tuple[HTTPStatus, str, bytes]
Answers = Mapping[str, Callable[[str], Answer]]


class CannotServe(Exception):
    """The HTTP port can't be had. The text names the address and the mend."""


class Exporter:
    """Serves from a thread of its own while the `with` block runs.

    `stuck` and `hindrances` return why the service is not alive, or not ready; empty means that it is. Without a
    registry there is no /metrics. Port 0 takes a free one; `port` tells which.
    """

    def __init__(
        self, host: str, port: int, *, registry: CollectorRegistry | None, stuck: Reasons, hindrances: Reasons
    ) -> None:
        answers: dict[str, Callable[[str], Answer]] = {
            "/live": lambda _accept: _verdict(stuck()),
            "/ready": lambda _accept: _verdict(hindrances()),
        }
        if registry is not None:
            answers["/metrics"] = lambda accept: _exposition(registry, accept)
        self._server = _listen(host, port, answers)
        self._thread = Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="exporter", daemon=True
        )

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _verdict(reasons: Sequence[str]) -> Answer:
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    return status, "application/json", json.dumps({"ok": not reasons, "reasons": list(reasons)}).encode()


def _exposition(registry: CollectorRegistry, accept: str) -> Answer:
    encode, content_type = choose_encoder(accept)
    return HTTPStatus.OK, content_type, encode(registry)


class _Handler(BaseHTTPRequestHandler):
    timeout = 10  # seconds a client may take to say what it wants
    server: "_Server"

    def do_GET(self) -> None:
        answers = self.server.answers
        answer = answers.get(self.path.partition("?")[0])
        if answer is None:
            self._reply(HTTPStatus.NOT_FOUND, "text/plain", f"try {', '.join(sorted(answers))}\n".encode())
        else:
            self._reply(*answer(self.headers.get("Accept", "")))

    def _reply(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """A scrape is no event."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, answers: Answers) -> None:
        self.answers = answers
        self.address_family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0][0]
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Listen on IPv4 too where the address is IPv6's "any"; look no name up."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no event either."""


def _listen(host: str, port: int, answers: Answers) -> _Server:
    reachable = "" if host == "::" and not socket.has_dualstack_ipv6() else host
    try:
        return _Server(reachable, port, answers)
    except OSError as error:
        raise CannotServe(
            f"cannot serve metrics and health on {host} port {port}: {error.strerror or error};"
            " free the port, or set METRICS_PORT (0 takes any free one) or METRICS_HOST"
        ) from error
