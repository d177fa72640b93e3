"""The local run as a user sees it: real services, the embedded broker, SQLite; and what stops it before it starts."""

import json
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from local.__main__ import main
from local.broker import EmbeddedBroker
from local.errors import CannotRun
from local.kafka import RealKafka
from local.options import Options
from local.progress import Meter, make_topics
from local.run import run

OFFSET_FETCH = 9  # Kafka's number for this request


class FakeAdmin:
    """As much of an AdminClient as making topics needs."""

    def __init__(self, broker: tuple[str, int], *, exists: bool = False, refuses: KafkaError | None = None) -> None:
        self.made: dict[str, dict[str, str]] = {}
        self._broker = SimpleNamespace(host=broker[0], port=broker[1])
        self._refusal = KafkaError(KafkaError.TOPIC_ALREADY_EXISTS) if exists else refuses

    def list_topics(self, topic: str | None = None, timeout: float = 0) -> Any:
        topics = {topic: SimpleNamespace(partitions={0: None, 1: None})}
        return SimpleNamespace(brokers={1: self._broker}, topics=topics)

    def create_topics(self, topics: list[Any], request_timeout: float) -> dict[str, Any]:
        def made() -> None:
            if self._refusal:
                raise KafkaException(self._refusal)
            self.made[topics[0].topic] = topics[0].config

        return {topics[0].topic: SimpleNamespace(result=made)}

    def describe_configs(self, resources: list[Any], request_timeout: float) -> dict[Any, Any]:
        settings = {"max.message.bytes": SimpleNamespace(value="1048588")}
        return {resources[0]: SimpleNamespace(result=lambda: settings)}


class DumbAdmin(FakeAdmin):
    """Its Kafka answers nothing."""

    def list_topics(self, topic: str | None = None, timeout: float = 0) -> Any:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))


class SecretiveAdmin(FakeAdmin):
    """Its Kafka tells no settings."""

    def describe_configs(self, resources: list[Any], request_timeout: float) -> dict[Any, Any]:
        def refused() -> None:
            raise KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))

        return {resources[0]: SimpleNamespace(result=refused)}


def test_every_message_of_a_run_is_accounted_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = run(Options(messages=300, rate=0, consumers=2, partitions=4), Event(), tmp_path)

    printed = capsys.readouterr()
    assert status == 0, printed
    assert "for trying out" in printed.out
    assert "300 settled = 300 stored + 0 dead-lettered" in printed.out
    assert "PASS" in printed.out


def test_a_parked_message_is_accounted_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stop, pause = Event(), Event()
    with ThreadPoolExecutor() as pool:
        status = pool.submit(run, Options(rate=50, consumers=1, partitions=1), stop, tmp_path)
        while not (tmp_path / "consumer.json").exists() or not (tmp_path / "consumer.json").read_bytes():
            pause.wait(0.05)
        kafka = json.loads((tmp_path / "consumer.json").read_text())["kafka"]
        producer = Producer({"bootstrap.servers": kafka["bootstrap_servers"]})
        producer.produce(kafka["topic"], b"{")
        producer.flush(10)
        letters = Meter(kafka["bootstrap_servers"], kafka["dead_letter_topic"], "nobody", 1)
        while not sum(letters.read().ends.values()):
            pause.wait(0.05)
        stop.set()

        assert status.result() == 0
    printed = capsys.readouterr().out
    assert "stored + 1 dead-lettered." in printed
    assert "partitions 0\n" in printed
    assert "/metrics" in printed


def test_a_consumer_that_cannot_start_ends_the_run_with_its_last_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSUMER_BATCH_SIZE", "0")

    status = run(Options(messages=10, rate=0, consumers=1), Event(), tmp_path)

    assert status == 1
    assert "consumer-1 has failed (2)." in capsys.readouterr().out


def test_a_producer_that_cannot_start_ends_the_run_with_its_last_words(
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


def test_a_kafka_that_is_not_there_is_one_sentence_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"

        status = main(["--kafka", address], lambda options, stop: make_topics(address, "t", "t.dlq", 1))

    assert status == 2
    assert capsys.readouterr().err.startswith(f"local.sh: cannot reach Kafka at {address} (Connection refused)")


def test_a_mongodb_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match=r"cannot reach MongoDB at 127.0.0.1:1 \(Connection refused\)"):
        run(Options(messages=1, mongodb="mongodb://user:secret@127.0.0.1:1/"), Event(), tmp_path)


def test_an_advertised_address_that_leads_nowhere_is_named() -> None:
    with (
        EmbeddedBroker({}) as broker,
        pytest.raises(CannotRun, match=r"sends its clients on to nosuchhost\.invalid:9092"),
    ):
        make_topics(broker.address, "t", "t.dlq", 1, FakeAdmin(("nosuchhost.invalid", 9092)))


def test_dead_letters_get_a_topic_that_takes_whatever_the_topic_takes() -> None:
    with EmbeddedBroker({}) as broker:
        host, port = broker.address.split(":")
        admin = FakeAdmin((host, int(port)))

        partitions = make_topics(broker.address, "t", "t.dlq", 2, admin)

    assert partitions == 2
    assert list(admin.made) == ["t", "t.dlq"]
    assert admin.made["t.dlq"]["max.message.bytes"] == str(1048588 + 65536)


def test_topics_that_exist_are_taken_as_they_are() -> None:
    with EmbeddedBroker({}) as broker:
        host, port = broker.address.split(":")

        assert make_topics(broker.address, "t", "t.dlq", 9, FakeAdmin((host, int(port)), exists=True)) == 2


@pytest.mark.parametrize(
    ("kind", "refusal", "sentence"),
    [
        (FakeAdmin, KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), "cannot make the topic t"),
        (DumbAdmin, None, "is no Kafka that talks to us"),
        (SecretiveAdmin, None, "does not tell the settings of t"),
    ],
)
def test_a_kafka_that_refuses_is_one_sentence(kind: type[FakeAdmin], refusal: KafkaError, sentence: str) -> None:
    with EmbeddedBroker({}) as broker:
        host, port = broker.address.split(":")
        admin = kind((host, int(port)), refuses=refusal)

        with pytest.raises(CannotRun, match=sentence):
            make_topics(broker.address, "t", "t.dlq", 1, admin)


def test_a_real_kafka_is_asked_how_far_the_messages_have_come() -> None:
    with EmbeddedBroker({"t": 1}) as broker:
        producer = Producer({"bootstrap.servers": broker.address})
        kafka = RealKafka(broker.address, Meter(broker.address, "t", "group", 1))
        producer.produce("t", b"x")
        producer.flush(10)

        assert kafka.progress().delivered == 1


def test_a_group_whose_coordinator_moves_is_asked_again() -> None:
    with EmbeddedBroker({"t": 1}) as broker:
        meter = Meter(broker.address, "t", "group", 1)
        broker.fail_next(OFFSET_FETCH, KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)

        assert meter.read().committed == {0: 0}


def test_a_broker_that_went_away_is_one_sentence() -> None:
    with EmbeddedBroker({"t": 1}) as broker:
        meter = Meter(broker.address, "t", "group", 1, patience=1)
        broker.go_down()

        with pytest.raises(CannotRun, match="Kafka does not say"):
            meter.read()


def test_the_first_signal_asks_and_the_second_one_ends_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    heard = []

    def interrupted(_options: Options, stop: Event) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        heard.append(stop.is_set())
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    status = main([], interrupted)

    assert (heard, status) == ([True], 130)
    assert signal.getsignal(signal.SIGTERM) is before
    assert "Ended at once" in capsys.readouterr().err
