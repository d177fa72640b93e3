"""The status program of both services, against a real health server."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from src.utils import status
from src.utils.config import ConfigurationError
from src.utils.health_server import HealthServer
from src.utils.status import Address, Figure, NotReached
from tests.fakes import DEADLINE

SERVICE = Path(__file__).parents[1]
FIGURES = (
    Figure("stored", "messages stored", "messages_total", 'result="stored"'),
    Figure("lag", "messages of lag", "lag"),
    Figure("idle", "never seen", "unknown_total"),
)


def run(address: Address | Callable[[Path], Address], *arguments: str) -> int:
    find = address if callable(address) else lambda _path: address
    return status.main("service", FIGURES, find, Path("config.json"), "1.0.0", arguments)


@contextmanager
def serving(
    *, live: Sequence[str] = (), ready: Sequence[str] = (), metrics: bool = True, host: str = "127.0.0.1"
) -> Iterator[Address]:
    registry = CollectorRegistry()
    messages = Counter("messages", "Messages", ["result"], registry=registry)
    messages.labels("stored").inc(1_234_567)
    messages.labels("failed").inc(5)
    lag = Gauge("lag", "Lag", ["partition"], registry=registry)
    lag.labels("0").set(3)
    lag.labels("1").set(4)
    with HealthServer(
        host,
        0,
        registry=registry if metrics else None,
        liveness_failures=lambda: live,
        readiness_failures=lambda: ready,
    ) as server:
        yield Address(host, server.port)


def test_a_ready_service_exits_with_0_and_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as address:
        code = run(address)

    assert code == 0
    assert capsys.readouterr().out == (
        f"service at 127.0.0.1:{address.port}\n"
        "  live\n"
        "  ready\n"
        "        1,234,567  messages stored\n"
        "                7  messages of lag\n"
    )


def test_a_service_that_is_not_ready_exits_with_1_and_its_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(ready=("broker down", "escape \x1b[2J")) as address:
        code = run(address)

    assert code == 1
    assert "  live\n  not ready\n    broker down\n    escape \\x1b[2J\n" in capsys.readouterr().out


def test_json_has_the_same_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(live=("stalled",), ready=("broker down",)) as address:
        code = run(address, "--json")

    assert code == 1
    assert json.loads(capsys.readouterr().out) == {
        "live": {"ok": False, "reasons": ["stalled"]},
        "ready": {"ok": False, "reasons": ["broker down"]},
        "metrics": {"stored": 1234567, "lag": 7, "idle": None},
    }


def test_without_metrics_the_report_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(metrics=False) as address:
        codes = (run(address), run(address, "--json"))

    text, _, last = capsys.readouterr().out.rstrip("\n").rpartition("\n")
    assert codes == (0, 0)
    assert text.endswith("no metrics: metrics.enabled is false")
    assert json.loads(last)["metrics"] is None


@pytest.mark.parametrize(("reasons", "expected"), [((), 0), (("stalled",), 1)])
def test_with_live_readiness_does_not_matter(
    capsys: pytest.CaptureFixture[str], reasons: Sequence[str], expected: int
) -> None:
    with serving(live=reasons, ready=("broker down",)) as address:
        codes = (run(address, "--live"), run(address, "--live", "--json"))

    assert codes == (expected, expected)
    assert "broker down" not in capsys.readouterr().out


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::", "0.0.0.0", "::1", "localhost"])
def test_a_service_on_all_addresses_or_another_one_is_reached(host: str) -> None:
    with serving(host=host) as address:
        assert run(address) == 0


def test_a_port_without_a_server_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = Address("127.0.0.1", closed.getsockname()[1])

    assert run(address) == 2
    assert capsys.readouterr() == ("", f"status: 127.0.0.1:{address.port} is not reached: Connection refused\n")


def test_port_0_exits_with_2_and_says_what_to_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Address("127.0.0.1", 0)) == 2
    assert "METRICS_PORT" in capsys.readouterr().err


def test_a_configuration_error_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    def address(_path: Path) -> Address:
        raise ConfigurationError("metrics.port: wrong")

    assert run(address) == 2
    assert capsys.readouterr().err == "status: metrics.port: wrong\n"


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n<html>",
        b"HTTP/1.0 200 OK\r\n\r\n[]",
        b"\xff\xfe\r\n\r\n",
    ],
)
def test_another_server_on_the_port_exits_with_2(response: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = Thread(target=answer_once, args=(server, response))
        thread.start()
        code = run(Address("127.0.0.1", server.getsockname()[1]))
        thread.join(DEADLINE)

    assert code == 2
    assert "responds, but not as a health server does" in capsys.readouterr().err


def answer_once(server: socket.socket, response: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(response)


def test_an_unresponsive_server_costs_no_more_than_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = monotonic()

        with pytest.raises(NotReached, match="timed out"):
            status.read_status(Address("127.0.0.1", silent.getsockname()[1]), FIGURES, timeout=0.2)

    assert monotonic() - started < DEADLINE


def test_the_program_imports_little() -> None:
    """A health check starts it every few seconds."""
    command = "import src.status, sys; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", command], cwd=SERVICE, capture_output=True, text=True, check=True)

    heavy = {"confluent_kafka", "pymongo", "prometheus_client", "http.client", "urllib.request", "ssl", "logging"}
    assert heavy & set(done.stdout.split()) == set()
