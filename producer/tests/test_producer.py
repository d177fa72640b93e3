"""The producer as a whole: the spec's methods, the loop, the program."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import IO, Any, Self

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from msgspec import convert
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from local.broker import EmbeddedBroker
from src.data_generator import DataGenerator
from src.delivery import MAX_MESSAGES, TURN
from src.kafka.produce_request import Failure, Fault
from src.model.errors import UndeliveredFileError
from src.model.message import Encoded
from src.producer import LIVENESS_TIMEOUT, DataProducer, Generated, main
from src.settings import MetricsSettings, Settings
from src.undelivered.resender import AT_ONCE
from src.undelivered.segments import Undelivered, from_line, segments
from src.utils.health_server import CannotServe
from tests.fakes import DEADLINE, FakeClock, FakePublisher, encoded
from tests.test_publisher import stored

SERVICE = Path(__file__).resolve().parent.parent


def settings(folder: Path, on_outage: str = "spool", **kafka: Any) -> Settings:
    return convert(
        {
            "kafka": kafka,
            "producer": {
                "on_outage": on_outage,
                "undelivered_dir": str(folder / "undelivered"),
                "max_retries": 1,
                "initial_retry_delay_ms": 100,
                "delivery_timeout_ms": 1000,
            },
            "metrics": {"port": 0},
        },
        Settings,
    )


def kept_keys(folder: Path) -> list[str]:
    lines = [line for path in segments(folder / "undelivered") for line in path.read_bytes().splitlines(keepends=True)]
    return [(kept.message.key or b"").decode() for line in lines if (kept := from_line(line))]


class World:
    """A producer among fakes; the clock goes on when the loop waits."""

    def __init__(self, folder: Path, on_outage: str = "spool") -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.publisher = FakePublisher(self.clock)
        self.registry = CollectorRegistry()
        self.stop = Event()
        self.settings = settings(folder, on_outage)
        self.producer = DataProducer(
            settings=self.settings,
            publisher=self.publisher,
            registry=self.registry,
            clock=self.clock,
            stop=self.stop,
        )

    def stop_at(self, seconds: float) -> None:
        end = self.clock.now + seconds
        self.publisher.on_wait = lambda: self.stop.set() if self.clock.now >= end else None

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    with world.producer:
        yield world


# -- the spec's methods


def test_data_are_the_specs_triples(world: World) -> None:
    messages = world.producer.generate_data(3)

    assert [key for key, _, _ in messages] == [value["id"] for _, value, _ in messages]
    assert len(messages) == 3


def test_a_message_is_sent(world: World) -> None:
    sent = world.producer.send_message("k", {"id": "k"}, {"h": "v"})

    assert sent is True
    assert world.publisher.delivered == [Encoded(b"k", b'{"id":"k"}', [("h", b"v")])]


def test_a_message_that_was_not_delivered_is_false_and_kept(world: World) -> None:
    world.publisher.refuse("k", "no", "no")

    sent = world.producer.send_message("k", {"id": "k"}, None)

    assert sent is False
    assert kept_keys(world.folder) == ["k"]


def test_a_batch_is_answered_with_the_number_delivered(world: World) -> None:
    world.publisher.refuse("1", "no", "no")

    count = world.producer.send_batch([(str(number), {"id": str(number)}, None) for number in range(3)])

    assert count == 2


def test_what_is_no_json_is_not_sent_and_its_neighbours_are(world: World, caplog: pytest.LogCaptureFixture) -> None:
    count = world.producer.send_batch([("a", {}, None), ("b", {"x": object()}, None), ("c", {}, None)])

    assert count == 2
    assert "not a message, not sent" in caplog.messages


def test_a_header_that_cannot_be_sent_costs_its_own_message_alone(tmp_path: Path, broker: EmbeddedBroker) -> None:
    with DataProducer(settings=settings(tmp_path, bootstrap_servers=broker.address)) as producer:
        headers: Any = {"n": 5}

        count = producer.send_batch([("a", {}, None), ("b", {}, headers), ("c", {}, None)])

        assert count == 2
        assert producer._delivery.outstanding == 0
    assert [message.key for message in stored(broker, 2)] == [b"a", b"c"]


def test_an_empty_batch_is_nothing(world: World) -> None:
    assert world.producer.send_batch([]) == 0
    assert world.publisher.sizes == []


# -- the loop


def test_a_hundred_thousand_an_hour_over_ten_minutes(world: World) -> None:
    world.stop_at(600)

    world.producer.run(interval=3.6, batch_size=100)

    assert len(world.publisher.delivered) == pytest.approx(100_000 / 6, rel=0.005)


def test_a_retry_does_not_hold_up_the_pace(world: World) -> None:
    world.publisher.silent = True
    world.stop_at(20)

    world.producer.run(interval=1.0, batch_size=1)

    assert len(world.publisher.sizes) == pytest.approx(20, abs=1)


def test_the_first_line_says_the_pace(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.stop_at(1)

    with caplog.at_level("INFO"):
        world.producer.run(interval=3.6, batch_size=100)

    first = caplog.records[0]
    assert first.getMessage() == "producing"
    assert first.__dict__["pace"] == "100 messages every 3.6 s, 27.8 a second, 100,000 an hour"


def test_a_run_closes_what_it_used(world: World) -> None:
    world.stop.set()

    world.producer.run()

    assert world.publisher.closed


def test_all_is_in_its_place_before_a_run_lets_go_of_kafka_which_may_take_long(world: World) -> None:
    others = Undelivered(world.folder / "undelivered", "data-topic", host="dead")
    others.keep([Failure(encoded(str(number)), Fault.WORLD, "away") for number in range(5 * AT_ONCE)])
    at_the_close: list[int] = []
    world.publisher.on_close = lambda: at_the_close.append(len(kept_keys(world.folder)))
    world.stop_at(1)

    world.producer.run(interval=1.0, batch_size=1)

    assert at_the_close == [len(kept_keys(world.folder))]
    assert 0 < at_the_close[0] < 5 * AT_ONCE


def test_a_run_that_cannot_keep_its_messages_lets_go_of_kafka_all_the_same(world: World) -> None:
    world.publisher.silent = True
    world.publisher.trouble = "broker down"
    world.stop_at(1)
    (world.folder / "undelivered").rmdir()

    with pytest.raises(UndeliveredFileError):
        world.producer.run(interval=1.0, batch_size=1)
    (world.folder / "undelivered").mkdir()

    assert world.publisher.closed


def test_a_run_that_could_not_deliver_keeps_everything_it_made(world: World) -> None:
    world.publisher.silent = True
    world.publisher.trouble = "broker down"
    world.stop_at(5)

    world.producer.run(interval=1.0, batch_size=10)

    made = sum(world.publisher.sizes)
    assert made > 0
    assert len(kept_keys(world.folder)) == made
    assert world.value("producer_messages_total", result="failed") == made
    assert world.value("producer_undelivered_messages") == made


def test_an_exact_number_is_sent_and_all_of_it(world: World) -> None:
    complete = world.producer.send_all(Generated(DataGenerator(), 250), interval=1.0, batch_size=100)

    assert complete
    assert world.publisher.sizes == [100, 100, 50]


def test_what_is_on_its_way_is_bounded_while_the_broker_is_silent(world: World) -> None:
    world.publisher.silent = True
    world.stop_at(30)

    world.producer.run(interval=0, batch_size=30_000)

    assert sum(world.publisher.sizes) == 60_000  # the batch that fills it, and no more


def outage(world: World, seconds: float) -> None:
    """No delivery for so long, each message after a timeout of 1 s; then all is well."""
    end = world.clock.now + seconds

    def away() -> None:
        if world.clock.now >= end:
            world.publisher.failing, world.publisher.trouble = None, None

    world.publisher.failing = "not confirmed within 1 s"
    world.publisher.on_wait = away


def test_who_spools_keeps_the_pace_in_an_outage_and_sends_it_all_afterwards(world: World) -> None:
    outage(world, 30)

    complete = world.producer.send_all(Generated(DataGenerator(), 500), interval=1.0, batch_size=10)

    assert complete
    assert len({message.key for message in world.publisher.delivered}) == 500
    assert (world.producer.delivered, world.producer.undelivered) == (500, 0)
    assert world.value("producer_messages_total", result="failed") != 0
    assert world.value("producer_undelivered_messages") == 0
    assert list((world.folder / "undelivered").iterdir()) == []


def test_a_run_with_an_end_sends_what_it_has_kept_itself_before_it_ends(world: World) -> None:
    outage(world, 8)

    complete = world.producer.send_all(Generated(DataGenerator(), 100), interval=1.0, batch_size=10)

    assert complete
    assert len({message.key for message in world.publisher.delivered}) == 100


def test_who_waits_gives_nothing_up_and_sends_it_all_afterwards(tmp_path: Path) -> None:
    world = World(tmp_path, on_outage="wait")
    outage(world, 600)

    complete = world.producer.send_all(Generated(DataGenerator(), 500), interval=1.0, batch_size=10)

    assert complete
    assert len({message.key for message in world.publisher.delivered}) == 500
    assert world.value("producer_messages_total", result="failed") == 0


def test_who_waits_takes_no_more_when_there_is_no_room_and_says_so(tmp_path: Path) -> None:
    world = World(tmp_path, on_outage="wait")
    world.publisher.silent = True
    world.publisher.trouble = "broker down"
    said: list[float | None] = []
    end = world.clock.now + 60

    def look() -> None:
        if world.clock.now >= end:
            said.append(world.value("producer_healthy"))
            world.stop.set()

    world.publisher.on_wait = look

    world.producer.run(interval=0, batch_size=10_000)

    assert sum(world.publisher.sizes) == MAX_MESSAGES
    assert said[0] == 0
    assert len(kept_keys(tmp_path)) == MAX_MESSAGES


def test_a_run_with_an_end_does_not_wait_for_a_kafka_that_is_away(world: World) -> None:
    world.publisher.failing = "not confirmed within 1 s"

    complete = world.producer.send_all(Generated(DataGenerator(), 20), interval=1.0, batch_size=10)

    assert not complete
    assert (world.producer.delivered, world.producer.undelivered) == (0, 20)
    assert len(kept_keys(world.folder)) == 20


def test_a_run_with_an_end_does_not_wait_for_what_others_have_left(tmp_path: Path) -> None:
    world = World(tmp_path, on_outage="wait")
    others = Undelivered(world.folder / "undelivered", "data-topic", host="dead")
    others.keep([Failure(encoded(str(number)), Fault.WORLD, "away") for number in range(3000)])
    for number in range(3000):
        world.publisher.refuse(str(number), *["away"] * 1000)
    started = world.clock.now

    complete = world.producer.send_all(Generated(DataGenerator(), 20), interval=1.0, batch_size=10)

    assert complete
    assert world.clock.now - started < 5
    assert (len(world.publisher.delivered), len(kept_keys(world.folder))) == (20, 3000)


def test_a_run_with_an_end_sends_its_own_before_the_rest_of_what_others_have_left(world: World) -> None:
    for _ in range(30):
        others = Undelivered(world.folder / "undelivered", "data-topic", host="a-dead")
        others.keep([Failure(encoded("theirs"), Fault.WORLD, "away")] * AT_ONCE)
    outage(world, 8)
    started = world.clock.now

    complete = world.producer.send_all(Generated(DataGenerator(), 100), interval=1.0, batch_size=10)

    assert complete
    assert world.clock.now - started < 8 + 20
    assert "theirs" in kept_keys(world.folder)


def test_a_run_with_an_end_is_not_complete_where_a_message_was_refused(world: World) -> None:
    generated = Generated(DataGenerator(), 20)
    world.publisher.refuse_next = "too large"

    complete = world.producer.send_all(generated, interval=1.0, batch_size=10)

    assert not complete
    assert (world.producer.delivered, world.producer.undelivered) == (19, 1)


def test_not_ready_says_how_many_messages_are_in_the_folder(world: World) -> None:
    world.publisher.failing = "away"
    world.producer.send_batch([("a", {}, None)])

    assert world.producer._readiness_failures() == ["away", "1 messages are in the undelivered folder"]


def test_a_taken_port_is_a_sentence(tmp_path: Path, world: World) -> None:
    with EmbeddedBroker({}) as somebody:
        port = int(somebody.address.rsplit(":", 1)[1])
        taken = replace(world.settings, metrics=MetricsSettings(port=port))
        producer = DataProducer(settings=taken, publisher=world.publisher)

        with pytest.raises(CannotServe, match=f"port {port}"):
            producer.run()


# -- health


def test_health_is_served_and_tells_the_reasons(world: World, caplog: pytest.LogCaptureFixture) -> None:
    answers: dict[str, tuple[int, str]] = {}

    def ask() -> None:
        port = next(r.__dict__["port"] for r in caplog.records if r.getMessage() == "serving metrics and health")
        world.publisher.trouble = "broker down"
        world.clock.advance(LIVENESS_TIMEOUT + 1)
        for path in ("live", "ready", "metrics"):
            answers[path] = _get(f"http://127.0.0.1:{port}/{path}")
        world.publisher.trouble = None
        world.stop.set()

    world.publisher.on_wait = ask
    with caplog.at_level("INFO"):
        world.producer.run(interval=0, batch_size=1)

    assert answers["live"][0] == 503
    assert "the main loop has stalled for" in answers["live"][1]
    assert (answers["ready"][0], "broker down" in answers["ready"][1]) == (503, True)
    assert answers["metrics"][0] == 200
    assert "producer_healthy 0.0" in answers["metrics"][1]


def test_every_metric_is_there_from_the_start(world: World) -> None:
    assert world.value("producer_messages_total", result="delivered") == 0
    assert world.value("producer_messages_total", result="failed") == 0
    assert world.value("producer_retries_total") == 0
    assert world.value("producer_batch_size_messages_count") == 0
    assert world.value("producer_send_latency_seconds_count") == 0
    assert world.value("producer_queue_messages") == 0
    assert world.value("producer_undelivered_messages") == 0
    assert world.value("producer_healthy") == 1


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


# -- the program


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
        """Exit code, the event "stopped", what was said on standard error."""
        output, errors = self.process.communicate(timeout=timeout)
        events = [json.loads(line) for line in output.splitlines()]
        stopped: dict[str, Any] = next((event for event in events if event["message"] == "stopped"), {})
        return self.process.returncode, stopped, errors


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts the program; it does not outlive the test."""
    with ExitStack() as started:

        def start_one(*arguments: str, **options: Any) -> Program:
            return started.enter_context(Program(tmp_path, *arguments, **options))

        yield start_one


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({"data-topic": 3}) as broker:
        yield broker


def test_it_runs_until_it_is_told_to_stop_and_delivers_what_it_made(
    tmp_path: Path, start: Callable[..., Program], broker: EmbeddedBroker
) -> None:
    program = start(KAFKA_BOOTSTRAP_SERVERS=broker.address)
    program.wait_for("serving metrics and health")
    first = stored(broker, 10)

    program.process.send_signal(signal.SIGTERM)
    exit_code, stopped, errors = program.end()

    assert (exit_code, errors) == (0, "")
    assert len(first) == 10
    assert stopped["delivered"] >= 10
    assert stopped["undelivered"] == len(kept_keys(tmp_path)) == 0


@pytest.mark.parametrize("signals", [1, 2], ids=["once", "twice"])
def test_a_broker_that_is_not_there_delays_no_stop_and_nothing_is_lost(
    tmp_path: Path, start: Callable[..., Program], signals: int
) -> None:
    program = start(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    program.wait_for("broker unreachable")

    for _ in range(signals):
        program.process.send_signal(signal.SIGTERM)
    exit_code, stopped, errors = program.end()

    assert (exit_code, errors, stopped["delivered"]) == (0, "", 0)
    assert stopped["undelivered"] == len(kept_keys(tmp_path)) > 0


def test_a_broker_that_goes_away_in_the_middle_costs_no_message(
    tmp_path: Path, start: Callable[..., Program], broker: EmbeddedBroker
) -> None:
    program = start(KAFKA_BOOTSTRAP_SERVERS=broker.address)
    port = program.wait_for("serving metrics and health")["port"]
    stored(broker, 10)

    broker.go_down()
    program.wait_for("broker unreachable")
    assert comes_true(
        lambda: "producer_queue_messages 0.0" not in _get(f"http://127.0.0.1:{port}/metrics")[1], within=5
    )
    program.process.send_signal(signal.SIGTERM)
    exit_code, stopped, _ = program.end()
    broker.come_up()

    delivered = {(message.key or b"").decode() for message in stored(broker, stopped["delivered"])}
    kept = kept_keys(tmp_path)
    assert exit_code == 0
    assert len(delivered) == stopped["delivered"]
    assert len(kept) == stopped["undelivered"] > 0


def keys_in_topic(broker: EmbeddedBroker, partitions: int) -> set[bytes | None]:
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "test", "enable.partition.eof": True})
    consumer.assign([TopicPartition("data-topic", number, OFFSET_BEGINNING) for number in range(partitions)])
    found: set[bytes | None] = set()
    ends = 0
    while ends < partitions:
        message = consumer.poll(DEADLINE)
        assert message is not None, "the topic can't be read"
        if message.error():
            ends += 1
        else:
            found.add(message.key())
    consumer.close()
    return found


def comes_true(condition: Callable[[], bool], *, within: float) -> bool:
    deadline = time.monotonic() + within
    waiting = Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        waiting.wait(TURN)
    return True


@pytest.mark.parametrize("on_outage", ["spool", "wait"])
def test_an_outage_longer_than_all_retries_costs_no_message_and_the_folder_empties_by_itself(
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
    stored(broker, 10)

    broker.go_down()
    kept = comes_true(lambda: bool(kept_keys(tmp_path)), within=4.0)
    broker.come_up()
    emptied = comes_true(lambda: len(keys_in_topic(broker, 3)) == 2000, within=4 * DEADLINE)
    exit_code, stopped, _ = program.end()

    assert (kept, emptied) == (on_outage == "spool", True)
    assert (exit_code, stopped["delivered"], stopped["undelivered"]) == (0, 2000, 0)
    assert list((tmp_path / "undelivered").iterdir()) == []


def test_a_client_that_breaks_down_is_exit_1_and_no_message_is_lost(
    tmp_path: Path, start: Callable[..., Program], broker: EmbeddedBroker
) -> None:
    program = start(KAFKA_BOOTSTRAP_SERVERS=broker.address)
    program.wait_for("serving metrics and health")
    stored(broker, 10)

    broker.fail_next(0, *[45] * 3)  # out of order sequence number
    exit_code, _, errors = program.end()

    assert (exit_code, errors) == (1, "")
    assert len(kept_keys(tmp_path)) > 0


def test_a_number_of_messages_is_sent_and_that_is_all(
    tmp_path: Path, start: Callable[..., Program], broker: EmbeddedBroker
) -> None:
    exit_code, stopped, _ = start("--count", "25", KAFKA_BOOTSTRAP_SERVERS=broker.address).end()

    assert (exit_code, stopped["delivered"]) == (0, 25)
    assert len(stored(broker, 25)) == 25


def test_a_pipe_that_says_nothing_does_not_keep_it_from_stopping(
    tmp_path: Path, start: Callable[..., Program], broker: EmbeddedBroker
) -> None:
    program = start("--input", "-", stdin=subprocess.PIPE, KAFKA_BOOTSTRAP_SERVERS=broker.address, LC_ALL="C")
    program.wait_for("serving metrics and health")
    assert program.process.stdin is not None
    program.process.stdin.write('{"id":"a"}\n')
    program.process.stdin.flush()
    arrived = stored(broker, 1)

    program.process.send_signal(signal.SIGTERM)
    program.process.wait(DEADLINE)
    exit_code, _, errors = program.end()

    assert [message.key for message in arrived] == [b"a"]
    assert (exit_code, errors) == (1, "")


def test_a_pipe_that_blocks_nobody_is_read_to_its_end(start: Callable[..., Program], broker: EmbeddedBroker) -> None:
    receiving, sending = os.pipe()
    os.set_blocking(receiving, False)
    with open(receiving, "rb") as stdin, open(sending, "wb", buffering=0) as pipe:
        program = start("--input", "-", stdin=stdin, KAFKA_BOOTSTRAP_SERVERS=broker.address)
        program.wait_for("serving metrics and health")
        for name in "ab":
            pipe.write(b'{"id":"%s"}\n' % name.encode())
            stored(broker, 1)
    exit_code, stopped, _ = program.end()

    assert (exit_code, stopped["delivered"]) == (0, 2)


def reading_a_pipe(pipe: Path, start: Callable[..., Program], broker: EmbeddedBroker) -> Program:
    os.mkfifo(pipe)
    program = start("--input", str(pipe), KAFKA_BOOTSTRAP_SERVERS=broker.address)
    program.wait_for("serving metrics and health")
    return program


def test_a_named_pipe_is_read_once_somebody_writes_into_it(
    tmp_path: Path, start: Callable[..., Program], broker: EmbeddedBroker
) -> None:
    program = reading_a_pipe(tmp_path / "pipe", start, broker)

    (tmp_path / "pipe").write_bytes(b'{"id":"a"}\n')
    exit_code, stopped, _ = program.end()

    assert (exit_code, stopped["delivered"]) == (0, 1)


def test_a_named_pipe_that_nobody_writes_into_does_not_keep_it_from_stopping(
    tmp_path: Path, start: Callable[..., Program], broker: EmbeddedBroker
) -> None:
    program = reading_a_pipe(tmp_path / "pipe", start, broker)

    program.process.send_signal(signal.SIGTERM)
    exit_code, stopped, errors = program.end()

    assert (exit_code, stopped["delivered"], errors) == (1, 0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_check_ends_as_soon_as_it_is_told_to(start: Callable[..., Program], number: signal.Signals) -> None:
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
    """The program in this process, so that its lines are counted as run."""

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

    def test_input_is_sent_and_accounted_for(
        self,
        tmp_path: Path,
        broker: EmbeddedBroker,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.address)
        file = tmp_path / "mine.jsonl"
        file.write_bytes(b'{"id":"a","x":1}\nbroken\n{"id":"b"}\n')

        exit_code = main(["--input", str(file)])

        summary = next(event for event in _events(capsys) if event["message"].startswith("input"))
        assert exit_code == 1
        assert {name: summary[name] for name in ("read", "delivered", "undelivered", "broken")} == {
            "read": 3,
            "delivered": 2,
            "undelivered": 0,
            "broken": 1,
        }
        assert [message.value for message in stored(broker, 2)] == [b'{"id":"a","x":1}', b'{"id":"b"}']

    def test_input_that_is_all_delivered_is_exit_0(
        self, tmp_path: Path, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.address)
        file = tmp_path / "mine.jsonl"
        file.write_bytes(b'{"a":1}\n')

        assert main(["--input", str(file)]) == 0

    def test_input_that_could_not_be_delivered_is_exit_1_and_kept(self, tmp_path: Path) -> None:
        file = tmp_path / "mine.jsonl"
        file.write_bytes(b'{"id":"a"}\n{"id":"b"}')

        assert main(["--input", str(file)]) == 1
        assert sorted(kept_keys(tmp_path)) == ["a", "b"]

    def test_a_count_that_could_not_be_delivered_is_exit_1(self, tmp_path: Path) -> None:
        assert main(["--count", "3"]) == 1
        assert len(kept_keys(tmp_path)) == 3

    @pytest.mark.parametrize(
        ("arguments", "environ", "named_in_the_text"),
        [
            (["--input", "/no/such/file"], {}, "--input /no/such/file: No such file"),
            (["--input", ""], {}, "--input : No such file"),
            (["--input", "/tmp"], {}, "--input /tmp: Is a directory"),
            (["--config", "/no/such/file.json"], {}, "/no/such/file.json"),
            ([], {"METRICS_PORT": "tcp://10.0.0.1:8000"}, "METRICS_PORT"),
            ([], {"PRODUCER_UNDELIVERED_DIR": "/dev/null/x"}, "/dev/null/x"),
        ],
    )
    def test_a_wrong_setting_is_one_sentence_and_exit_2(
        self,
        arguments: list[str],
        environ: dict[str, str],
        named_in_the_text: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        for name, text in environ.items():
            monkeypatch.setenv(name, text)

        exit_code = main(arguments)

        printed = capsys.readouterr().err
        assert exit_code == 2
        assert named_in_the_text in printed
        assert printed.count("\n") == 1

    def test_an_unknown_client_key_is_named_and_exit_2(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "config.json"
        file.write_text('{"kafka": {"client": {"no.such.key": 1}}}')

        assert main(["--config", str(file)]) == 2
        assert "no.such.key" in capsys.readouterr().err

    def test_a_taken_port_is_exit_1(
        self, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("METRICS_PORT", broker.address.rsplit(":", 1)[1])

        exit_code = main([])

        (event,) = [event for event in _events(capsys) if event["level"] == "ERROR"]
        assert exit_code == 1
        assert "METRICS_PORT" in event["reason"]

    def test_what_nobody_foresaw_is_logged_whole_and_exit_1(
        self,
        tmp_path: Path,
        broker: EmbeddedBroker,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.address)
        monkeypatch.setenv("PRODUCER_BATCH_SIZE", "1")
        monkeypatch.setenv("PRODUCER_INTERVAL_MS", "36")

        exit_code = main(["--input", "/proc/self/mem"])

        (event,) = [event for event in _events(capsys) if event["level"] == "ERROR"]
        assert exit_code == 1
        assert event["message"] == "stopped by an error"
        assert "OSError" in event["exc_info"]

    @pytest.mark.parametrize("arguments", [["--count", "0"], ["--count", "x"], ["--check", "--count", "1"]])
    def test_a_wrong_option_is_exit_2(self, arguments: list[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(arguments)

        assert caught.value.code == 2

    def test_without_arguments_the_constructor_reads_file_and_environment(
        self, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.address)
        monkeypatch.setenv("PRODUCER_DELIVERY_TIMEOUT_MS", "10000")

        with DataProducer() as producer:
            sent = producer.send_message("k", {"id": "k"}, {})

        assert sent is True
        assert [message.key for message in stored(broker, 1)] == [b"k"]


def _events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_segment_of_an_earlier_process_is_counted(tmp_path: Path) -> None:
    (tmp_path / "undelivered").mkdir()
    (tmp_path / "undelivered" / "dead.jsonl").write_bytes(b"{}\n")

    assert Undelivered(tmp_path / "undelivered", "t").count() == 1


@pytest.mark.parametrize("text", ["x", "0", "-1", "1.5"])
def test_a_count_that_is_none_is_a_wrong_argument(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([f"--count={text}"])

    assert f"{text!r} is no whole number above 0" in capsys.readouterr().err
