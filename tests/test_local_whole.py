"""Whole local runs with the real services, the embedded broker and SQLite, and the errors that prevent one."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from local.__main__ import main
from local.broker import EmbeddedBroker
from local.connectivity import kafka_addresses
from local.errors import CannotRun
from local.kafka import RealKafka
from local.offsets import OffsetReader
from local.options import Options
from local.plan import Names
from local.run import run
from local.topics import Topics

LIST_OFFSETS, OFFSET_FETCH = 2, 9  # API keys
SCRIPTS = Path(__file__).parents[1] / "scripts"
NAMES = Names("t", "group", "messages")


class FakeAdmin:
    """The part of AdminClient that creating topics needs, which the embedded broker does not support."""

    def __init__(self, broker: tuple[str, int], *, exists: bool = False, errors: Mapping[str, KafkaError] = {}) -> None:
        self.topics: dict[str, dict[str, str]] = {}
        self._broker = SimpleNamespace(host=broker[0], port=broker[1])
        self._exists = exists
        self._errors = errors

    def list_topics(self, topic: str | None = None, timeout: float = 0) -> Any:
        self._fail("list_topics")
        return SimpleNamespace(
            brokers={1: self._broker}, topics={topic: SimpleNamespace(partitions={0: None, 1: None})}
        )

    def create_topics(self, topics: list[Any], request_timeout: float) -> dict[str, Any]:
        def create() -> None:
            if self._exists:
                raise KafkaException(KafkaError(KafkaError.TOPIC_ALREADY_EXISTS))
            self._fail(f"create {topics[0].topic}")
            self.topics[topics[0].topic] = topics[0].config

        return {topics[0].topic: SimpleNamespace(result=create)}

    def describe_configs(self, resources: list[Any], request_timeout: float) -> dict[Any, Any]:
        def describe() -> dict[str, Any]:
            self._fail("describe_configs")
            return {"max.message.bytes": SimpleNamespace(value="1048588")}

        return {resources[0]: SimpleNamespace(result=describe)}

    def delete_topics(self, topics: list[str], operation_timeout: float) -> dict[str, Any]:
        def error() -> KafkaError | None:
            return self._errors.get("delete_topics")

        if not error():
            self.topics = {topic: config for topic, config in self.topics.items() if topic not in topics}
        return {topic: SimpleNamespace(exception=error) for topic in topics}

    def _fail(self, call: str) -> None:
        if error := self._errors.get(call):
            raise KafkaException(error)


@contextmanager
def kafka_with(**how: Any) -> Iterator[tuple[EmbeddedBroker, FakeAdmin, Topics]]:
    """The embedded broker as a real one, which has the topics as soon as they are created."""
    with EmbeddedBroker({"t": 2, "t.dlq": 1}) as broker:
        admin = FakeAdmin(kafka_addresses(broker.address)[0], **how)
        yield broker, admin, Topics(broker.address, NAMES, admin)


def test_every_message_of_a_run_is_accounted_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = run(Options(messages=300, rate=0, consumers=2, partitions=4), Event(), tmp_path)

    printed = capsys.readouterr()
    assert status == 0, printed
    assert "for evaluation only" in printed.out
    assert "300 settled = 300 stored + 0 dead-lettered" in printed.out
    assert "PASS" in printed.out


def test_a_dead_letter_is_accounted_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stop, pause = Event(), Event()
    with ThreadPoolExecutor() as pool:
        status = pool.submit(run, Options(rate=50, consumers=1, partitions=1), stop, tmp_path)
        while not (tmp_path / "consumer.json").exists() or not (tmp_path / "consumer.json").read_bytes():
            pause.wait(0.05)
        kafka = json.loads((tmp_path / "consumer.json").read_text())["kafka"]
        producer = Producer({"bootstrap.servers": kafka["bootstrap_servers"]})
        producer.produce(kafka["topic"], b"{")
        producer.flush(10)
        dead_letters = OffsetReader(kafka["bootstrap_servers"], kafka["dead_letter_topic"], "test", 1)
        while not sum(dead_letters.read().end.values()):
            pause.wait(0.05)
        stop.set()

        assert status.result() == 0
    printed = capsys.readouterr().out
    assert "stored + 1 dead-lettered." in printed
    assert "partitions 0\n" in printed
    assert "/metrics" in printed


def test_a_consumer_that_cannot_start_ends_the_run_with_its_last_log_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSUMER_BATCH_SIZE", "0")

    status = run(Options(messages=10, rate=0, consumers=1), Event(), tmp_path)

    assert status == 1
    assert "consumer-1 has failed (2)." in capsys.readouterr().out


def test_a_producer_that_cannot_start_ends_the_run_with_its_last_log_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRODUCER_MAX_RETRIES", "-1")

    status = run(Options(messages=10, rate=0, consumers=1), Event(), tmp_path)

    assert status == 1
    assert "producer has failed (2)." in capsys.readouterr().out


def test_a_kept_store_does_not_disturb_the_next_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = Options(messages=20, rate=0, consumers=1, partitions=1, keep=True)
    statuses = [run(options, Event(), tmp_path) for _ in range(2)]

    assert statuses == [0, 0], capsys.readouterr()


def test_a_stopped_run_is_audited_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stop = Event()
    stop.set()

    status = run(Options(consumers=1), stop, tmp_path)

    assert status == 0
    assert "Stopping." in capsys.readouterr().out


def test_an_unreachable_kafka_is_an_error_message_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"

        status = main(["--kafka", address], lambda options, stop: Topics(address, NAMES).create(1))

    assert status == 2
    assert capsys.readouterr().err.startswith(f"local.sh: cannot connect to Kafka at {address} (Connection refused)")


def test_an_unreachable_mongodb_is_an_error_message(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match=r"cannot connect to MongoDB at 127.0.0.1:1 \(Connection refused\)"):
        run(Options(messages=1, mongodb="mongodb://user:secret@127.0.0.1:1/"), Event(), tmp_path)


def test_an_unreachable_advertised_listener_is_named() -> None:
    with EmbeddedBroker({}) as broker, pytest.raises(CannotRun, match=r"advertises nosuchhost\.invalid:9092"):
        Topics(broker.address, NAMES, FakeAdmin(("nosuchhost.invalid", 9092))).create(1)


def test_the_dead_letter_topic_accepts_every_message_of_the_topic() -> None:
    with kafka_with() as (_, admin, topics):
        partitions = topics.create(2)

    assert partitions == 2
    assert list(admin.topics) == ["t", "t.dlq"]
    assert admin.topics["t.dlq"]["max.message.bytes"] == str(1048588 + 65536)


def test_existing_topics_are_left_as_they_are() -> None:
    with kafka_with(exists=True) as (_, _, topics):
        assert topics.create(9) == 2


def test_creating_topics_waits_for_the_leaders_of_all_partitions() -> None:
    with kafka_with() as (broker, _, topics):
        retriable = (
            KafkaError.NOT_LEADER_FOR_PARTITION,
            KafkaError.UNKNOWN_TOPIC_OR_PART,
            KafkaError.UNKNOWN_LEADER_EPOCH,
        )
        broker.fail_next(LIST_OFFSETS, *retriable * 2)

        assert topics.create(2) == 2


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        ("list_topics", KafkaError._TRANSPORT, "does not respond as Kafka"),
        ("create t", KafkaError.TOPIC_AUTHORIZATION_FAILED, "cannot create the topic t"),
        ("create t.dlq", KafkaError.TOPIC_AUTHORIZATION_FAILED, "cannot create the topic t.dlq"),
        ("describe_configs", KafkaError.TOPIC_AUTHORIZATION_FAILED, "cannot read the settings of t"),
    ],
)
def test_topics_that_cannot_be_created_are_an_error_message_and_none_is_left(
    call: str, code: int, message: str
) -> None:
    with kafka_with(errors={call: KafkaError(code)}) as (_, admin, topics):
        with pytest.raises(CannotRun, match=message), topics.deleted_on_failure():
            topics.create(1)

        assert admin.topics == {}


def test_topics_that_cannot_be_deleted_either_are_named() -> None:
    refused = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)

    with (
        kafka_with(errors={"describe_configs": refused, "delete_topics": refused}) as (_, _, topics),
        pytest.raises(CannotRun, match=r"cannot read the settings of t: .*; could not delete t$"),
        topics.deleted_on_failure(),
    ):
        topics.create(1)


def test_topics_of_a_run_that_has_started_are_kept() -> None:
    with kafka_with() as (_, admin, topics):
        topics.create(1)
        topics.keep()
        with pytest.raises(CannotRun), topics.deleted_on_failure():
            raise CannotRun("a later error")

        assert list(admin.topics) == ["t", "t.dlq"]


def test_the_progress_of_a_real_kafka_is_read() -> None:
    with EmbeddedBroker({"t": 1}) as broker:
        producer = Producer({"bootstrap.servers": broker.address})
        kafka = RealKafka(broker.address, OffsetReader(broker.address, "t", "group", 1), Topics(broker.address, NAMES))
        producer.produce("t", b"x")
        producer.flush(10)

        assert kafka.progress().produced == 1


def test_reading_committed_offsets_is_retried_while_the_coordinator_moves() -> None:
    with EmbeddedBroker({"t": 1}) as broker:
        reader = OffsetReader(broker.address, "t", "group", 1)
        broker.fail_next(OFFSET_FETCH, KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)

        assert reader.read().committed == {0: 0}


def test_a_broker_that_became_unreachable_is_an_error_message() -> None:
    with EmbeddedBroker({"t": 1}) as broker:
        reader = OffsetReader(broker.address, "t", "group", 1, timeout=1)
        broker.go_down()

        with pytest.raises(CannotRun, match="cannot read the end offsets of t"):
            reader.read()


def test_the_first_signal_stops_gracefully_and_the_second_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    stopped = []

    def interrupted(_options: Options, stop: Event) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        stopped.append(stop.is_set())
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    status = main([], interrupted)

    assert (stopped, status) == ([True], 130)
    assert signal.getsignal(signal.SIGTERM) is before
    assert "Interrupted" in capsys.readouterr().err


def test_a_closed_terminal_stops_gracefully_though_it_sends_sighup_twice() -> None:
    def hung_up(_options: Options, stop: Event) -> int:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        return 0 if stop.is_set() else 1

    assert main([], hung_up) == 0


PRINTS_AFTER_A_STOP = """
from local.__main__ import main

def run(options, stop):
    print("running", flush=True)
    stop.wait()
    print("stopping", flush=True)
    return 0

raise SystemExit(main([], run))
"""


def test_a_run_whose_terminal_was_closed_stops_gracefully_without_output() -> None:
    master, terminal = os.openpty()
    command = [sys.executable, "-c", PRINTS_AFTER_A_STOP]
    with subprocess.Popen(command, cwd=SCRIPTS, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        started = os.read(master, 100)
        os.close(master)

        process.send_signal(signal.SIGHUP)

        assert process.wait(10) == 0
        assert started.startswith(b"running")


def test_under_nohup_a_run_continues() -> None:
    def hung_up(_options: Options, stop: Event) -> int:
        os.kill(os.getpid(), signal.SIGHUP)
        return 1 if stop.is_set() else 0

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main([], hung_up) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
