"""`--check` tests the settings, Kafka and the store without running the consumer."""

import os
import signal
import socket
import socketserver
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic

import pytest
from confluent_kafka import KafkaError

from local.broker import EmbeddedBroker
from src.check import check
from src.consumer import main
from src.settings import Settings
from src.storage import DataStorage
from src.utils.config import ConfigurationError, parse

SERVICE = Path(__file__).parents[1]
DEADLINE = 30.0  # seconds
LIST_OFFSETS = 2  # Kafka's number of the request


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({"data-topic": 3, "data-topic.dlq": 1}) as broker:
        yield broker


def run_check(tmp_path: Path, capsys: pytest.CaptureFixture[str], **kafka: object) -> tuple[int, str]:
    settings = parse(Settings, {"kafka": kafka, "mongodb": {"uri": f"sqlite:///{tmp_path}/store.db"}})
    return check(settings, Path("config.json"), timeout=1.0), capsys.readouterr().out


@contextmanager
def server_that_closes_every_connection() -> Iterator[str]:
    """What a listener with TLS does to a client without."""
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_complete_system_passes(broker: EmbeddedBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, table = run_check(tmp_path, capsys, bootstrap_servers=broker.address)

    assert "data-topic has 3 partition(s)" in table
    assert "the leaders of all partitions are reachable" in table
    assert (code, "FAIL" in table) == (0, False)


def test_an_unreachable_broker_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, table = run_check(tmp_path, capsys, bootstrap_servers="127.0.0.1:1")

    assert code == 2
    assert "FAIL  broker" in table
    assert "127.0.0.1:1 is unreachable" in table


def test_the_last_error_of_the_client_is_shown(
    broker: EmbeddedBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = {"security.protocol": "ssl"}

    code, table = run_check(tmp_path, capsys, bootstrap_servers=broker.address, client=client)

    assert code == 2
    assert "SSL_HANDSHAKE" in table
    assert "brokers are down" not in table


def test_a_broker_that_closes_the_connection_may_require_tls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with server_that_closes_every_connection() as address:
        code, table = run_check(tmp_path, capsys, bootstrap_servers=address)

    assert code == 2
    assert "if the brokers require TLS or SASL, set KAFKA_SECURITY_PROTOCOL" in table


def test_warnings_fail_no_check(
    broker: EmbeddedBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.address)
    monkeypatch.setenv("MONGODB_URI", f"sqlite:///{tmp_path}/store.db")
    monkeypatch.setenv("KAFKA_SASL_USERNAME", "me")
    monkeypatch.setenv("MONGO_URI", "mongodb://mongodb.example")

    code = main(["--check"])

    table = capsys.readouterr().out
    assert code == 0
    assert "warn  settings                 no effect: sasl.username" in table
    assert "warn  settings                 the variable MONGO_URI is not read; did you mean MONGODB_URI?" in table


def test_a_missing_topic_is_named(broker: EmbeddedBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, table = run_check(tmp_path, capsys, bootstrap_servers=broker.address, topic="no-such-topic")

    assert code == 2
    assert "no-such-topic does not exist" in table


def test_a_missing_permission_is_distinguished_from_a_missing_topic(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with EmbeddedBroker({"data-topic": 1, "data-topic.dlq": 1}) as broker:
        broker.fail_topic("data-topic", KafkaError.TOPIC_AUTHORIZATION_FAILED)

        code, table = run_check(tmp_path, capsys, bootstrap_servers=broker.address)

    assert code == 2
    assert "data-topic: Broker: Topic authorization failed; the user needs an ACL with Read" in table
    assert "does not exist" not in table


def test_a_topic_whose_leaders_are_being_elected_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with EmbeddedBroker({"data-topic": 1, "data-topic.dlq": 1}) as broker:
        broker.fail_next(LIST_OFFSETS, *[KafkaError.NOT_LEADER_FOR_PARTITION] * 3)

        code, table = run_check(tmp_path, capsys, bootstrap_servers=broker.address)

    assert (code, "FAIL" in table) == (0, False)


def test_an_advertised_address_that_is_unreachable_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with EmbeddedBroker({"data-topic": 1, "data-topic.dlq": 1}) as broker:
        servers = broker.address
        broker.advertise(1)
        code, table = run_check(tmp_path, capsys, bootstrap_servers=servers)

    assert code == 2
    assert "FAIL  leaders" in table
    assert ":1, is unreachable from here" in table
    assert "advertised.listeners" in table


def test_an_unknown_librdkafka_key_is_a_wrong_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"no\.such\.key"):
        run_check(tmp_path, capsys, bootstrap_servers="127.0.0.1:1", client={"no.such.key": 1})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_check_immediately(number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environ = {"PATH": os.environ["PATH"], "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{silent.getsockname()[1]}"}
        program = [sys.executable, "-m", "src.consumer", "--check"]
        with subprocess.Popen(program, cwd=SERVICE, env=environ, stderr=subprocess.PIPE, text=True) as process:
            silent.settimeout(DEADLINE)
            silent.accept()[0].close()
            started = monotonic()

            process.send_signal(number)
            _, errors = process.communicate(timeout=DEADLINE)

    assert monotonic() - started < 3
    assert (process.returncode != 0, errors) == (True, "")


def test_every_topic_is_checked_and_the_dead_letter_topic_is_none_of_them(
    broker: EmbeddedBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, table = run_check(tmp_path, capsys, bootstrap_servers=broker.address, topics=["^data-"])

    assert code == 0
    assert table.count("has 3 partition(s)") == 1
    assert "ok    topic " in table

    code, table = run_check(tmp_path, capsys, bootstrap_servers=broker.address, topics=["data-topic", "missing"])
    assert code == 2
    assert "data-topic has 3 partition(s)" in table
    assert "missing does not exist" in table


def test_a_pattern_that_no_topic_matches_is_told(
    broker: EmbeddedBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, table = run_check(tmp_path, capsys, bootstrap_servers=broker.address, topics=["^nothing"])

    assert code == 2
    assert "no topic matches ^nothing" in table


def test_what_differs_between_collections_is_told_of_each(
    broker: EmbeddedBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    DataStorage({"uri": f"sqlite:///{tmp_path}/store.db"}).ping()
    kafka = {"bootstrap_servers": broker.address, "topics": ["data-topic", "missing"]}
    mongodb = {"uri": f"sqlite:///{tmp_path}/store.db", "collection": "{topic}"}

    check(parse(Settings, {"kafka": kafka, "mongodb": mongodb}), Path("config.json"), timeout=1.0)

    table = capsys.readouterr().out
    assert [table.count(text) for text in ("store reachable", "durability", "table data-topic (data-topic)")] == [
        1,
        1,
        1,
    ]
