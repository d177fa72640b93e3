"""The course of a local run, with small processes in place of the services."""

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Self

import pytest

from local.children import Child
from local.errors import CannotRun
from local.kafka import Kafka
from local.offsets import Progress
from local.run import Monitor, describe_end
from local.table import Snapshot

SERVES = """
import http.server, json
class Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'consumer_messages_total{result="stored"} 5\\n')
        self.wfile.write(b'consumer_messages_total{result="dead_lettered"} 2\\n')
server = http.server.HTTPServer(("127.0.0.1", 0), Metrics)
print("starting")
print(json.dumps({"message": "serving metrics and health", "port": server.server_address[1]}), flush=True)
print(json.dumps({"message": "partitions assigned", "partitions": ["t[2]"], "assigned": ["t[0]", "t[2]"]}), flush=True)
server.serve_forever()
"""
FAILS = "import sys; sys.exit('the setting is wrong')"
ENDS = ""
UNSTOPPABLE = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"


class ScriptedKafka:
    """Returns one progress after the other, and the last one again and again."""

    address = "nowhere:1"

    def __init__(self, *settled: tuple[int, int], then: Callable[[], object] = lambda: None) -> None:
        self._progresses = [Progress({0: 0}, {0: end}, {0: committed}) for end, committed in settled]
        self._then = then

    def progress(self) -> Progress:
        if len(self._progresses) == 1:
            self._then()
            return self._progresses[0]
        return self._progresses.pop(0)

    def keep_topics(self) -> None:
        """Nothing to keep."""


class UnavailableAt:
    """Kafka, which is unavailable at the calls with these numbers."""

    address = ""

    def __init__(self, calls: Collection[int], kafka: ScriptedKafka) -> None:
        self._unavailable = calls
        self._kafka = kafka
        self._calls = 0

    def progress(self) -> Progress:
        self._calls += 1
        if self._calls in self._unavailable:
            raise CannotRun("a broker is dead")
        return self._kafka.progress()

    def keep_topics(self) -> None:
        """Nothing to keep."""


class Recorder:
    """Records what is shown."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self.printed: list[str] = []

    def show(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)

    def print(self, line: str) -> None:
        self.printed.append(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""


class FastClock:
    """Ten seconds pass with every reading."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        self._now += 10
        return self._now


class World:
    def __init__(self, folder: Path, processes: ExitStack) -> None:
        self.view = Recorder()
        self._folder = folder
        self._processes = processes

    def child(self, name: str, program: str) -> Child:
        child = Child(name, [sys.executable, "-c", program], self._folder, self._folder / f"{name}.log", environment={})
        return self._processes.enter_context(child)

    def ended(self, name: str, program: str) -> Child:
        child = self.child(name, program)
        assert child.wait()
        return child

    def serving(self, name: str) -> Child:
        child = self.child(name, SERVES)
        pause = Event()
        while child.port is None:
            pause.wait(0.01)
        return child

    def monitor(
        self,
        kafka: Kafka,
        producer: Child,
        consumers: Sequence[Child],
        clock: Callable[[], float] | None = None,
    ) -> Monitor:
        settings = self._folder / "consumer.json"
        return Monitor(kafka, producer, consumers, view=self.view, settings=settings, clock=clock or FastClock())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as processes:
        yield World(tmp_path, processes)


def test_a_run_ends_when_the_producer_has_ended_and_everything_is_settled(world: World) -> None:
    consumer = world.serving("consumer-1")
    monitor = world.monitor(ScriptedKafka((5, 0), (7, 3), (7, 7)), world.ended("producer", ENDS), [consumer])

    settled = monitor.run(Event())

    assert settled
    last = world.view.snapshots[-1]
    assert last.last
    assert [row.partitions for row in last.consumers] == [(0, 2)]
    assert (last.produced, last.stored, last.dead_lettered) == (7, 5, 2)
    assert [metrics.stored for metrics in monitor.metrics] == [5]
    assert any(text.startswith("First messages stored") for text in world.view.printed)


def test_the_run_continues_when_kafka_is_unavailable_for_a_while(world: World) -> None:
    kafka = UnavailableAt({2, 4}, ScriptedKafka((5, 0), (7, 3), (7, 7)))
    monitor = world.monitor(kafka, world.ended("producer", ENDS), [world.serving("consumer-1")])

    assert monitor.run(Event())

    assert world.view.snapshots[-1].produced == 7
    assert world.view.printed.count("Waiting for Kafka: a broker is dead") == 2


def test_a_stop_stops_the_producer_and_waits_for_the_consumers(world: World) -> None:
    producer = world.serving("producer")
    stop = Event()
    stop.set()

    settled = world.monitor(ScriptedKafka((9, 0), (9, 9)), producer, [world.serving("consumer-1")]).run(stop)

    assert settled
    assert producer.exit_code is not None
    assert "Stopping." in world.view.printed


def test_when_all_processes_serve_their_addresses_and_the_consumer_command_are_printed_once(world: World) -> None:
    producer, consumer = world.serving("producer"), world.serving("consumer-1")
    stop = Event()

    world.monitor(ScriptedKafka((0, 0), (0, 0), (0, 0), then=stop.set), producer, [consumer]).run(stop)

    addresses = [text for text in world.view.printed if "/metrics" in text]
    assert addresses == [
        f"  producer: pid {producer.pid}, http://127.0.0.1:{producer.port}/metrics",
        f"  consumer-1: pid {consumer.pid}, http://127.0.0.1:{consumer.port}/metrics",
    ]
    assert sum("-m src.consumer --config" in text for text in world.view.printed) == 1


def test_a_killed_consumer_is_reported_and_the_others_continue(world: World) -> None:
    killed = world.child("consumer-1", SERVES)
    killed.terminate()  # before it handles the signal
    killed.wait()
    kafka = ScriptedKafka((4, 0), (4, 2), (4, 4))

    settled = world.monitor(kafka, world.ended("producer", ENDS), [killed, world.serving("consumer-2")]).run(Event())

    assert settled
    assert [row.state for row in world.view.snapshots[-1].consumers] == ["killed", "running"]
    assert sum("consumer-1 is killed;" in text for text in world.view.printed) == 1


def test_a_failed_consumer_ends_the_run_with_its_last_log_lines(world: World) -> None:
    producer = world.serving("producer")

    settled = world.monitor(ScriptedKafka((4, 0)), producer, [world.ended("consumer-1", FAILS)]).run(Event())

    assert not settled
    assert producer.exit_code is not None
    assert any("consumer-1" in text and "the setting is wrong" in text for text in world.view.printed)


def test_waiting_without_progress_times_out(world: World) -> None:
    monitor = world.monitor(ScriptedKafka((4, 1)), world.ended("producer", ENDS), [world.serving("consumer-1")])

    settled = monitor.run(Event())

    assert not settled
    assert "Timed out: 3 messages are not settled." in world.view.printed


def test_after_a_stop_messages_may_stay_unsettled(world: World) -> None:
    stop = Event()
    stop.set()
    steps = [(1000, committed) for committed in range(500)]

    settled = world.monitor(ScriptedKafka(*steps), world.serving("producer"), [world.serving("consumer-1")]).run(stop)

    assert settled
    assert any(text.startswith("Timed out") for text in world.view.printed)


def test_the_end_of_a_consumer_is_described(world: World) -> None:
    assert describe_end(world.ended("consumer-1", ENDS)).startswith("consumer-1 is finished;")
    assert describe_end(world.ended("consumer-2", FAILS)).startswith("consumer-2 has failed (1).")
    assert describe_end(world.ended("consumer-2", FAILS)).endswith("\n  the setting is wrong")


def test_a_process_that_ignores_sigterm_is_late(world: World) -> None:
    child = world.child("consumer-1", UNSTOPPABLE)
    pause = Event()
    while "ready" not in child.last_lines():
        pause.wait(0.01)

    child.terminate()

    assert not child.wait(timeout=0.1)
    assert (child.state, child.port, child.partitions) == ("starting", None, ())


def test_a_process_ends_with_its_block(tmp_path: Path) -> None:
    with World(tmp_path, ExitStack()).child("consumer-1", SERVES) as child:
        assert child.exit_code is None

    assert child.state == "killed"
