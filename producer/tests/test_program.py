"""The program `python -m src.producer`: in a process of its own, and `main` in this one."""

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import IO, Any, Self

import pytest

from local.broker import EmbeddedBroker
from src.delivery.delivery import POLL_TIMEOUT
from src.producer import DataProducer, main
from tests.fakes import DEADLINE, key, undelivered_keys
from tests.health import get
from tests.topics import all_records, first_records

SERVICE = Path(__file__).resolve().parent.parent


class Program:
    """`python -m src.producer` in a process of its own."""

    def __init__(
        self, folder: Path, *arguments: str, stdin: int | IO[bytes] = subprocess.DEVNULL, **environ: str
    ) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "src.producer", *arguments],
            cwd=SERVICE,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                "PATH": os.environ["PATH"],
                "PRODUCER_UNDELIVERED_DIR": str(folder / "undelivered"),
                "METRICS_PORT": "0",
                "PRODUCER_INTERVAL_MS": "1",
                "PRODUCER_BATCH_SIZE": "10",
                **environ,
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        with self.process:
            pass

    def wait_for(self, event: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            fields: dict[str, Any] = json.loads(line)
            if fields["message"] == event:
                return fields
        raise AssertionError(f"{event!r} was not logged")

    def end(self, timeout: float = DEADLINE) -> tuple[int, dict[str, Any], str]:
        """Exit code, the log line "producer stopped", and standard error."""
        output, errors = self.process.communicate(timeout=timeout)
        events = [json.loads(line) for line in output.splitlines()]
        stopped: dict[str, Any] = next((event for event in events if event["message"] == "producer stopped"), {})
        return self.process.returncode, stopped, errors


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts the program; it is killed at the end of the test."""
    with ExitStack() as started:

        def start_one(*arguments: str, **options: Any) -> Program:
            return started.enter_context(Program(tmp_path, *arguments, **options))

        yield start_one


def test_sigterm_stops_the_program_after_delivering_everything(
    tmp_path: Path, start: Callable[..., Program], broker: EmbeddedBroker
) -> None:
    program = start(KAFKA_BOOTSTRAP_SERVERS=broker.address)
    program.wait_for("serving metrics and health")
    first = first_records(broker.address, 10)

    program.process.send_signal(signal.SIGTERM)
    exit_code, stopped, errors = program.end()

    assert (exit_code, errors) == (0, "")
    assert len(first) == 10
    assert stopped["delivered"] >= 10
    assert stopped["undelivered"] == len(undelivered_keys(tmp_path / "undelivered")) == 0


@pytest.mark.parametrize(
    "signals",
    [(signal.SIGTERM,), (signal.SIGTERM, signal.SIGTERM), (signal.SIGHUP,), (signal.SIGHUP, signal.SIGTERM)],
    ids=["SIGTERM", "SIGTERM twice", "SIGHUP", "SIGHUP and SIGTERM"],
)
def test_an_unreachable_broker_does_not_delay_a_stop_and_no_message_is_lost(
    tmp_path: Path, start: Callable[..., Program], signals: Sequence[signal.Signals]
) -> None:
    program = start(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    program.wait_for("broker unreachable")

    for number in signals:
        program.process.send_signal(number)
    exit_code, stopped, errors = program.end()

    assert (exit_code, errors, stopped["delivered"]) == (0, "", 0)
    assert stopped["undelivered"] == len(undelivered_keys(tmp_path / "undelivered")) > 0


def test_a_broker_that_goes_down_during_a_run_loses_no_message(
    tmp_path: Path, start: Callable[..., Program], broker: EmbeddedBroker
) -> None:
    program = start(KAFKA_BOOTSTRAP_SERVERS=broker.address)
    port = program.wait_for("serving metrics and health")["port"]
    first_records(broker.address, 10)

    broker.go_down()
    program.wait_for("broker unreachable")
    assert becomes_true(
        lambda: "producer_queue_messages 0.0" not in get(f"http://127.0.0.1:{port}/metrics")[1], within=DEADLINE
    )
    program.process.send_signal(signal.SIGTERM)
    exit_code, stopped, _ = program.end()
    broker.come_up()

    delivered = {key(record) for record in first_records(broker.address, stopped["delivered"])}
    undelivered = undelivered_keys(tmp_path / "undelivered")
    assert exit_code == 0
    assert len(delivered) == stopped["delivered"]
    assert len(undelivered) == stopped["undelivered"] > 0


def becomes_true(condition: Callable[[], bool], *, within: float) -> bool:
    deadline = time.monotonic() + within
    waiting = Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        waiting.wait(POLL_TIMEOUT)
    return True


@pytest.mark.parametrize("on_outage", ["spool", "wait"])
def test_after_an_outage_longer_than_all_retries_all_messages_are_delivered_and_the_folder_is_empty(
    tmp_path: Path, start: Callable[..., Program], broker: EmbeddedBroker, on_outage: str
) -> None:
    program = start(
        "--input",
        "-",
        stdin=subprocess.PIPE,
        KAFKA_BOOTSTRAP_SERVERS=broker.address,
        PRODUCER_ON_OUTAGE=on_outage,
        PRODUCER_DELIVERY_TIMEOUT_MS="1000",
        PRODUCER_MAX_RETRIES="1",
        PRODUCER_INITIAL_RETRY_DELAY_MS="100",
    )
    assert program.process.stdin is not None
    program.process.stdin.write("".join(f'{{"id":"{number:05}"}}\n' for number in range(2000)))
    program.process.stdin.flush()
    first_records(broker.address, 10)

    broker.go_down()
    spooled = becomes_true(lambda: bool(undelivered_keys(tmp_path / "undelivered")), within=4.0)
    broker.come_up()
    complete = becomes_true(lambda: len(set(map(key, all_records(broker.address)))) == 2000, within=4 * DEADLINE)
    exit_code, stopped, _ = program.end()

    assert (spooled, complete) == (on_outage == "spool", True)
    assert (exit_code, stopped["delivered"], stopped["undelivered"]) == (0, 2000, 0)
    assert list((tmp_path / "undelivered").iterdir()) == []


def test_a_fatal_client_error_exits_1_and_loses_no_message(
    tmp_path: Path, start: Callable[..., Program], broker: EmbeddedBroker
) -> None:
    program = start(KAFKA_BOOTSTRAP_SERVERS=broker.address)
    program.wait_for("serving metrics and health")
    first_records(broker.address, 10)

    broker.fail_next(0, *[45] * 3)  # out of order sequence number
    exit_code, _, errors = program.end()

    assert (exit_code, errors) == (1, "")
    assert len(undelivered_keys(tmp_path / "undelivered")) > 0


def test_count_sends_that_many_messages_and_exits(
    tmp_path: Path, start: Callable[..., Program], broker: EmbeddedBroker
) -> None:
    exit_code, stopped, _ = start("--count", "25", KAFKA_BOOTSTRAP_SERVERS=broker.address).end()

    assert (exit_code, stopped["delivered"]) == (0, 25)
    assert len(first_records(broker.address, 25)) == 25


def test_an_idle_pipe_does_not_prevent_a_stop(
    tmp_path: Path, start: Callable[..., Program], broker: EmbeddedBroker
) -> None:
    program = start("--input", "-", stdin=subprocess.PIPE, KAFKA_BOOTSTRAP_SERVERS=broker.address, LC_ALL="C")
    program.wait_for("serving metrics and health")
    assert program.process.stdin is not None
    program.process.stdin.write('{"id":"a"}\n')
    program.process.stdin.flush()
    arrived = first_records(broker.address, 1)

    program.process.send_signal(signal.SIGTERM)
    program.process.wait(DEADLINE)
    exit_code, _, errors = program.end()

    assert [message.key for message in arrived] == [b"a"]
    assert (exit_code, errors) == (1, "")


def test_a_non_blocking_pipe_is_read_to_its_end(start: Callable[..., Program], broker: EmbeddedBroker) -> None:
    receiving, sending = os.pipe()
    os.set_blocking(receiving, False)
    with open(receiving, "rb") as stdin, open(sending, "wb", buffering=0) as pipe:
        program = start("--input", "-", stdin=stdin, KAFKA_BOOTSTRAP_SERVERS=broker.address)
        program.wait_for("serving metrics and health")
        for name in "ab":
            pipe.write(b'{"id":"%s"}\n' % name.encode())
            first_records(broker.address, 1)
    exit_code, stopped, _ = program.end()

    assert (exit_code, stopped["delivered"]) == (0, 2)


def reading_a_pipe(pipe: Path, start: Callable[..., Program], broker: EmbeddedBroker) -> Program:
    os.mkfifo(pipe)
    program = start("--input", str(pipe), KAFKA_BOOTSTRAP_SERVERS=broker.address)
    program.wait_for("serving metrics and health")
    return program


def test_a_named_pipe_is_read_once_a_writer_opens_it(
    tmp_path: Path, start: Callable[..., Program], broker: EmbeddedBroker
) -> None:
    program = reading_a_pipe(tmp_path / "pipe", start, broker)

    (tmp_path / "pipe").write_bytes(b'{"id":"a"}\n')
    exit_code, stopped, _ = program.end()

    assert (exit_code, stopped["delivered"]) == (0, 1)


def test_a_named_pipe_without_a_writer_does_not_prevent_a_stop(
    tmp_path: Path, start: Callable[..., Program], broker: EmbeddedBroker
) -> None:
    program = reading_a_pipe(tmp_path / "pipe", start, broker)

    program.process.send_signal(signal.SIGTERM)
    exit_code, stopped, errors = program.end()

    assert (exit_code, stopped["delivered"], errors) == (1, 0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_check_at_once(start: Callable[..., Program], number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        program = start("--check", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{silent.getsockname()[1]}")
        silent.settimeout(DEADLINE)
        silent.accept()[0].close()
        started = time.monotonic()

        program.process.send_signal(number)
        _, errors = program.process.communicate(timeout=DEADLINE)

    assert time.monotonic() - started < 3
    assert (program.process.returncode != 0, errors) == (True, "")


class TestMain:
    """The program in this process, so that its coverage is measured."""

    @pytest.fixture(autouse=True)
    def _environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, text in {
            "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
            "PRODUCER_UNDELIVERED_DIR": str(tmp_path / "undelivered"),
            "PRODUCER_INTERVAL_MS": "0",
            "PRODUCER_DELIVERY_TIMEOUT_MS": "1000",
            "PRODUCER_MAX_RETRIES": "0",
            "METRICS_PORT": "0",
        }.items():
            monkeypatch.setenv(name, text)

    def test_input_is_delivered_and_counted(
        self,
        tmp_path: Path,
        broker: EmbeddedBroker,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        _use(broker, monkeypatch)
        file = tmp_path / "mine.jsonl"
        file.write_bytes(b'{"id":"a","x":1}\nbroken\n{"id":"b"}\n')

        exit_code = main(["--input", str(file)])

        summary = next(event for event in _events(capsys) if event["message"].startswith("input"))
        assert exit_code == 1
        assert {name: summary[name] for name in ("read", "delivered", "undelivered", "invalid")} == {
            "read": 3,
            "delivered": 2,
            "undelivered": 0,
            "invalid": 1,
        }
        assert [message.value for message in first_records(broker.address, 2)] == [b'{"id":"a","x":1}', b'{"id":"b"}']

    def test_compressed_input_exits_2_with_one_sentence(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "mine.jsonl.gz"
        file.write_bytes(gzip.compress(b'{"id":"a"}\n' * 1000))

        exit_code = main(["--input", str(file)])

        output = capsys.readouterr()
        assert exit_code == 2
        assert output.err.startswith("producer: the input is compressed with gzip; ")
        assert output.err.count("\n") == 1
        assert "invalid input line" not in output.out

    def test_fully_delivered_input_exits_0(
        self, tmp_path: Path, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _use(broker, monkeypatch)
        file = tmp_path / "mine.jsonl"
        file.write_bytes(b'{"a":1}\n')

        assert main(["--input", str(file)]) == 0

    def test_undelivered_input_exits_1_and_is_stored(self, tmp_path: Path) -> None:
        file = tmp_path / "mine.jsonl"
        file.write_bytes(b'{"id":"a"}\n{"id":"b"}')

        assert main(["--input", str(file)]) == 1
        assert sorted(undelivered_keys(tmp_path / "undelivered")) == ["a", "b"]

    def test_an_undelivered_count_exits_1(self, tmp_path: Path) -> None:
        assert main(["--count", "3"]) == 1
        assert len(undelivered_keys(tmp_path / "undelivered")) == 3

    @pytest.mark.parametrize(
        ("arguments", "environ", "text"),
        [
            (["--input", "/no/such/file"], {}, "--input /no/such/file: No such file"),
            (["--input", ""], {}, "--input : No such file"),
            (["--input", "/tmp"], {}, "--input /tmp: Is a directory"),
            (["--config", "/no/such/file.json"], {}, "/no/such/file.json"),
            ([], {"METRICS_PORT": "tcp://10.0.0.1:8000"}, "METRICS_PORT"),
            ([], {"PRODUCER_UNDELIVERED_DIR": "/dev/null/x"}, "/dev/null/x"),
        ],
    )
    def test_an_invalid_setting_prints_one_line_and_exits_2(
        self,
        arguments: list[str],
        environ: dict[str, str],
        text: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        for name, text in environ.items():
            monkeypatch.setenv(name, text)

        exit_code = main(arguments)

        printed = capsys.readouterr().err
        assert exit_code == 2
        assert text in printed
        assert printed.count("\n") == 1

    def test_an_unknown_client_key_is_named_and_exits_2(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "config.json"
        file.write_text('{"kafka": {"client": {"no.such.key": 1}}}')

        assert main(["--config", str(file)]) == 2
        assert "no.such.key" in capsys.readouterr().err

    def test_a_metrics_port_in_use_exits_1(
        self, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("METRICS_PORT", broker.address.rsplit(":", 1)[1])

        exit_code = main([])

        (event,) = [event for event in _events(capsys) if event["level"] == "ERROR"]
        assert exit_code == 1
        assert "METRICS_PORT" in event["reason"]

    def test_an_unexpected_error_is_logged_with_its_traceback_and_exits_1(
        self,
        tmp_path: Path,
        broker: EmbeddedBroker,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        _use(broker, monkeypatch)
        monkeypatch.setenv("PRODUCER_BATCH_SIZE", "1")
        monkeypatch.setenv("PRODUCER_INTERVAL_MS", "36")

        exit_code = main(["--input", "/proc/self/mem"])

        (event,) = [event for event in _events(capsys) if event["level"] == "ERROR"]
        assert exit_code == 1
        assert event["message"] == "stopped by an error"
        assert "OSError" in event["exc_info"]

    @pytest.mark.parametrize("arguments", [["--count", "0"], ["--count", "x"], ["--check", "--count", "1"]])
    def test_an_invalid_option_exits_2(self, arguments: list[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(arguments)

        assert caught.value.code == 2

    def test_without_arguments_the_constructor_reads_file_and_environment(
        self, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _use(broker, monkeypatch)

        with DataProducer() as producer:
            sent = producer.send_message("k", {"id": "k"}, {})

        assert sent is True
        assert [message.key for message in first_records(broker.address, 1)] == [b"k"]


def _use(broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.address)
    monkeypatch.setenv("PRODUCER_DELIVERY_TIMEOUT_MS", "10000")


def _events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("text", ["x", "0", "-1", "1.5"])
def test_a_count_that_is_not_a_positive_integer_is_an_invalid_argument(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([f"--count={text}"])

    assert f"{text!r} is not a positive integer" in capsys.readouterr().err
