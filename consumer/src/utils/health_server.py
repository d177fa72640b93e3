"""The HTTP server of a service: /metrics for Prometheus, /live and /ready for health checks."""

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
Response = tuple[HTTPStatus, str, bytes]
Endpoints = Mapping[str, Callable[[str], Response]]


class CannotServe(Exception):
    """The address cannot be bound. The text names it, and what to change."""


class HealthServer:
    """Serves requests in a background thread while the `with` block runs.

    `liveness_failures` and `readiness_failures` return the reasons why the service is not live, or not ready; empty
    means that it is. Without a registry there is no /metrics. Port 0 binds a free port; `port` returns it.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        registry: CollectorRegistry | None,
        liveness_failures: Reasons,
        readiness_failures: Reasons,
    ) -> None:
        endpoints: dict[str, Callable[[str], Response]] = {
            "/live": lambda _accept: _health_response(liveness_failures()),
            "/ready": lambda _accept: _health_response(readiness_failures()),
        }
        if registry is not None:
            endpoints["/metrics"] = lambda accept: _metrics_response(registry, accept)
        self._server = _listen(host, port, endpoints)
        self._thread = Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="health-server", daemon=True
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


def _health_response(reasons: Sequence[str]) -> Response:
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    return status, "application/json", json.dumps({"ok": not reasons, "reasons": list(reasons)}).encode()


def _metrics_response(registry: CollectorRegistry, accept: str) -> Response:
    encode, content_type = choose_encoder(accept)
    return HTTPStatus.OK, content_type, encode(registry)


class _Handler(BaseHTTPRequestHandler):
    timeout = 10  # seconds to wait for the request of a client
    server: "_Server"

    def do_GET(self) -> None:
        endpoints = self.server.endpoints
        endpoint = endpoints.get(self.path.partition("?")[0])
        if endpoint is None:
            self._respond(HTTPStatus.NOT_FOUND, "text/plain", f"try {', '.join(sorted(endpoints))}\n".encode())
        else:
            self._respond(*endpoint(self.headers.get("Accept", "")))

    do_HEAD = do_GET  # noqa: N815 - http.server's own names

    def do_POST(self) -> None:
        self._respond(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"use GET or HEAD\n", Allow="GET, HEAD")

    do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = do_POST  # noqa: N815

    def _respond(self, status: HTTPStatus, content_type: str, body: bytes, **headers: str) -> None:
        """A HEAD request gets the same without the body."""
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Requests are not logged."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, endpoints: Endpoints) -> None:
        self.endpoints = endpoints
        self.address_family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0][0]
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Accept IPv4 too on the IPv6 wildcard address; do not look up the host name."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that disconnected is not logged."""


def _listen(host: str, port: int, endpoints: Endpoints) -> _Server:
    bind_address = "" if host == "::" and not socket.has_dualstack_ipv6() else host
    try:
        return _Server(bind_address, port, endpoints)
    except OSError as error:
        raise CannotServe(
            f"cannot serve metrics and health on {host} port {port}: {error.strerror or error};"
            " free the port, or set METRICS_PORT (0 takes any free one) or METRICS_HOST"
        ) from error
