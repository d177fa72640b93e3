"""Metrics and health over HTTP."""

import http.client
import json
import socket

import pytest
from prometheus_client import CollectorRegistry, Counter

from src.utils.health_server import CannotServe, HealthServer

DEADLINE = 10.0  # seconds


def health_server(
    *, host: str = "127.0.0.1", port: int = 0, registry: CollectorRegistry | None = None, reasons: tuple[str, ...] = ()
) -> HealthServer:
    return HealthServer(host, port, registry=registry, liveness_failures=lambda: (), readiness_failures=lambda: reasons)


def get(port: int, path: str, host: str = "127.0.0.1", accept: str = "") -> tuple[int, str, str]:
    connection = http.client.HTTPConnection(host, port, timeout=DEADLINE)
    try:
        connection.request("GET", path, headers={"Accept": accept} if accept else {})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type") or "", answer.read().decode()
    finally:
        connection.close()


def test_ready_returns_503_with_the_reasons() -> None:
    with health_server(reasons=("broker down", "paused")) as serving:
        status, kind, body = get(serving.port, "/ready")

    assert (status, kind) == (503, "application/json")
    assert json.loads(body) == {"ok": False, "reasons": ["broker down", "paused"]}


def test_without_reasons_live_and_ready_return_200_with_any_query() -> None:
    with health_server() as serving:
        answers = [get(serving.port, path) for path in ("/live", "/ready", "/live?verbose=1")]

    assert [(status, json.loads(body)["ok"]) for status, _, body in answers] == [(200, True)] * 3


def test_metrics_are_served_in_the_requested_format() -> None:
    registry = CollectorRegistry()
    Counter("events", "Events", registry=registry).inc(3)

    with health_server(registry=registry) as serving:
        _, _, plain = get(serving.port, "/metrics")
        _, kind, _ = get(serving.port, "/metrics", accept="application/openmetrics-text")

    assert "events_total 3.0" in plain
    assert kind.startswith("application/openmetrics-text")


def test_without_a_registry_only_health_is_served() -> None:
    with health_server() as serving:
        metrics, _, hint = get(serving.port, "/metrics")
        live, _, _ = get(serving.port, "/live")

    assert (metrics, hint) == (404, "try /live, /ready\n")
    assert live == 200


@pytest.mark.parametrize("path", ["/live", "/ready", "/metrics", "/unknown"])
def test_head_returns_the_status_and_the_headers_of_get_without_the_body(path: str) -> None:
    with health_server(registry=CollectorRegistry(), reasons=("broker down",)) as serving:
        got, headers = exchange(serving.port, "GET", path)
        head, head_headers = exchange(serving.port, "HEAD", path)

    assert head.startswith(got.partition("\r\n")[0])
    assert head_headers == headers
    assert head.endswith("\r\n\r\n")
    assert not got.endswith("\r\n\r\n") or headers["Content-Length"] == "0"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
def test_other_methods_are_not_allowed(method: str) -> None:
    with health_server() as serving:
        answer, headers = exchange(serving.port, method, "/ready")

    assert answer.startswith("HTTP/1.0 405 Method Not Allowed")
    assert headers["Allow"] == "GET, HEAD"


def exchange(port: int, method: str, path: str) -> tuple[str, dict[str, str]]:
    """The whole response as it was sent, and its headers without the date."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as client:
        client.sendall(f"{method} {path} HTTP/1.0\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(65536), b"")).decode()
    lines = answer.partition("\r\n\r\n")[0].splitlines()[1:]
    return answer, {name: text for name, _, text in (line.partition(": ") for line in lines) if name != "Date"}


def test_a_port_in_use_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(CannotServe, match=rf"port {port}: .*METRICS_PORT"):
            health_server(port=port)


def test_an_address_that_is_not_local_is_reported() -> None:
    with pytest.raises(CannotServe, match=r"203\.0\.113\.1"):
        health_server(host="203.0.113.1")  # a documentation address: no machine has it


def test_a_client_that_disconnects_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    with health_server() as serving:
        with socket.create_connection(("127.0.0.1", serving.port)) as client:
            client.sendall(b"GET /live")
        status, _, _ = get(serving.port, "/live")

    assert status == 200
    assert capsys.readouterr().err == ""


def test_the_port_is_released_on_exit() -> None:
    with health_server() as first:
        port = first.port

    with health_server(port=port) as second:
        status, _, _ = get(second.port, "/live")

    assert status == 200


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_ipv6_wildcard_address_accepts_both_protocols(host: str) -> None:
    with health_server(host="::") as serving:
        status, _, _ = get(serving.port, "/live", host)

    assert status == 200
