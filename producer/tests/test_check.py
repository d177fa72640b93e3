"""`--check` reports what is missing, and sends nothing."""

import socket
import socketserver
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation

from local.broker import EmbeddedBroker
from src.check import _advertised_addresses, check
from src.producer import main
from src.settings import Settings
from src.utils.config import parse
from tests.fakes import FakeClock


class UnauthorizedAdmin:
    """Answers every request with an error, or with these authorized operations."""

    def __init__(self, error: int | None, operations: Sequence[AclOperation] = ()) -> None:
        self._error = error
        self._operations = operations

    def describe_topics(self, *_topics: object, **_options: object) -> dict[str, Future[Any]]:
        answer: Future[Any] = Future()
        if self._error is None:
            answer.set_result(SimpleNamespace(authorized_operations=self._operations))
        else:
            answer.set_exception(KafkaException(KafkaError(self._error, "not authorized")))
        return {"data-topic": answer}


def settings(folder: Path, servers: str, topic: str = "data-topic", **client: str) -> Settings:
    kafka = {"bootstrap_servers": servers, "topic": topic, "client": client}
    return parse(Settings, {"kafka": kafka, "producer": {"undelivered_dir": str(folder)}})


@contextmanager
def server_that_closes_every_connection() -> Iterator[str]:
    """What a listener with TLS does to a client without."""
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_all_checks_pass_and_it_exits_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    admin: Any = UnauthorizedAdmin(None, [AclOperation.DESCRIBE, AclOperation.WRITE])
    with EmbeddedBroker({"data-topic": 3}) as broker:
        exit_code = check(settings(tmp_path, broker.address), Path("config.json"), admin=lambda _settings: admin)

    printed = capsys.readouterr().out
    assert exit_code == 0
    assert "FAIL" not in printed
    assert "data-topic has 3 partitions" in printed
    assert f"{tmp_path} is writable" in printed


def test_a_missing_topic_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    admin: Any = UnauthorizedAdmin(KafkaError.UNKNOWN_TOPIC_OR_PART)
    with EmbeddedBroker({"other": 3}) as broker:
        exit_code = check(settings(tmp_path, broker.address), Path("config.json"), admin=lambda _settings: admin)

    assert exit_code == 2
    assert "data-topic does not exist" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("topics", "admin", "text"),
    [
        ({"other": 1}, UnauthorizedAdmin(KafkaError.TOPIC_AUTHORIZATION_FAILED), "data-topic: not authorized"),
        (
            {"data-topic": 1},
            UnauthorizedAdmin(None, [AclOperation.DESCRIBE]),
            "not authorized for Write on topic data-topic",
        ),
    ],
)
def test_a_missing_permission_is_distinguished_from_a_missing_topic(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], topics: dict[str, int], admin: Any, text: str
) -> None:
    with EmbeddedBroker(topics) as broker:
        exit_code = check(settings(tmp_path, broker.address), Path("config.json"), admin=lambda _settings: admin)

    printed = capsys.readouterr().out
    assert exit_code == 2
    assert text in printed
    assert "does not exist" not in printed


def test_an_unreachable_advertised_address_is_named_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with EmbeddedBroker({"data-topic": 3}) as broker, socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
        closed_soon.close()
        broker.advertise(port)
        exit_code = check(settings(tmp_path, broker.address), Path("config.json"))

    printed = capsys.readouterr().out
    assert exit_code == 2
    assert f"the broker advertises 127.0.0.1:{port}" in printed
    assert "advertised.listeners" in printed


def test_addresses_beyond_the_time_limit_are_not_checked() -> None:
    clock = FakeClock()
    results = _advertised_addresses([("127.0.0.1", 1), ("127.0.0.1", 2)], clock)

    next(results)
    clock.advance(60)

    assert "not checked" in next(results).detail


def test_an_unreachable_broker_is_named_and_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRODUCER_UNDELIVERED_DIR", str(tmp_path))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")

    exit_code = main(["--check"])

    printed = capsys.readouterr().out
    assert exit_code == 2
    assert "FAIL  broker" in printed
    assert "127.0.0.1:1" in printed
    assert "refused" in printed


def test_every_failed_check_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    exit_code = check(settings(Path("/dev/null/x"), "127.0.0.1:1", **{"no.such.key": "1"}), Path("config.json"))

    printed = capsys.readouterr().out
    assert exit_code == 2
    assert "no.such.key" in printed
    assert "/dev/null/x" in printed


def test_the_last_error_of_the_client_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with EmbeddedBroker({"data-topic": 1}) as broker:
        client = {"security.protocol": "ssl"}
        exit_code = check(settings(tmp_path, broker.address, **client), Path("config.json"))

    printed = capsys.readouterr().out
    assert exit_code == 2
    assert "SSL_HANDSHAKE" in printed
    assert "brokers are down" not in printed


def test_a_broker_that_closes_the_connection_may_require_tls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with server_that_closes_every_connection() as address:
        exit_code = check(settings(tmp_path, address), Path("config.json"))

    assert exit_code == 2
    assert "if the brokers require TLS or SASL, set KAFKA_SECURITY_PROTOCOL" in capsys.readouterr().out


def test_warnings_fail_no_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRODUCER_UNDELIVERED_DIR", str(tmp_path))
    monkeypatch.setenv("KAFKA_SASL_USERNAME", "me")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVER", "kafka.example:9092")
    with EmbeddedBroker({"data-topic": 1}) as broker:
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.address)
        exit_code = main(["--check"])

    printed = capsys.readouterr().out
    assert exit_code == 0
    assert "warn  settings            no effect: sasl.username" in printed
    assert "warn  settings            the variable KAFKA_BOOTSTRAP_SERVER is not read" in printed
