"""The flow of a local run, with small real processes in the services' places."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Self

import pytest

from local.children import Child
from local.progress import Progress
from local.run import Flow, ending
from local.table import Picture

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
print(json.dumps({"message": "partitions assigned", "partitions": [2], "owned": [0, 2]}), flush=True)
server.serve_forever()
"""
FAILS = "import sys; sys.exit('the setting is wrong')"
ENDS = ""
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"


class ScriptedKafka:
    """Answers one progress after the other, and the last one for ever."""

    address = "nowhere:1"

    def __init__(self, *settled: tuple[int, int], then: Callable[[], object] = lambda: None) -> None:
        self._progresses = [Progress({0: 0}, {0: end}, {0: committed}) for end, committed in settled]
        self._then = then

    def progress(self) -> Progress:
        if len(self._progresses) == 1:
            self._then()
            return self._progresses[0]
        return self._progresses.pop(0)


class Recorder:
    """Keeps what was shown."""

    def __init__(self) -> None:
        self.pictures: list[Picture] = []
        self.said: list[str] = []

    def show(self, picture: Picture) -> None:
        self.pictures.append(picture)

    def say(self, line: str) -> None:
        self.said.append(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""


class Hasty:
    """A clock on which every look takes ten seconds."""

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

    def flow(
        self,
        kafka: ScriptedKafka,
        producer: Child,
        consumers: Sequence[Child],
        clock: Callable[[], float] | None = None,
    ) -> Flow:
        settings = self._folder / "consumer.json"
        return Flow(kafka, producer, consumers, view=self.view, settings=settings, clock=clock or Hasty())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as processes:
        yield World(tmp_path, processes)


def test_a_run_ends_when_the_producer_has_ended_and_all_is_settled(world: World) -> None:
    consumer = world.serving("consumer-1")
    flow = world.flow(ScriptedKafka((5, 0), (7, 3), (7, 7)), world.ended("producer", ENDS), [consumer])

    settled = flow.run(Event())

    assert settled
    last = world.view.pictures[-1]
    assert last.last
    assert [row.partitions for row in last.consumers] == [(0, 2)]
    assert (last.produced, last.stored, last.dead_lettered) == (7, 5, 2)
    assert [sample.stored for sample in flow.samples] == [5]
    assert any(text.startswith("The first messages are stored") for text in world.view.said)


def test_a_stop_ends_the_producer_and_drains(world: World) -> None:
    producer = world.serving("producer")
    stop = Event()
    stop.set()

    settled = world.flow(ScriptedKafka((9, 0), (9, 9)), producer, [world.serving("consumer-1")]).run(stop)

    assert settled
    assert producer.exit_code is not None
    assert "Stopping." in world.view.said


def test_when_all_serve_their_addresses_and_one_more_consumer_are_told_once(world: World) -> None:
    producer, consumer = world.serving("producer"), world.serving("consumer-1")
    stop = Event()

    world.flow(ScriptedKafka((0, 0), (0, 0), (0, 0), then=stop.set), producer, [consumer]).run(stop)

    addresses = [text for text in world.view.said if "/metrics" in text]
    assert addresses == [
        f"  producer: process {producer.pid}, http://127.0.0.1:{producer.port}/metrics",
        f"  consumer-1: process {consumer.pid}, http://127.0.0.1:{consumer.port}/metrics",
    ]
    assert sum("-m src.consumer --config" in text for text in world.view.said) == 1


def test_a_killed_consumer_is_named_and_the_others_go_on(world: World) -> None:
    killed = world.child("consumer-1", SERVES)
    killed.ask_to_stop()  # before it can listen to anything: it dies by the signal
    killed.wait()
    kafka = ScriptedKafka((4, 0), (4, 2), (4, 4))

    settled = world.flow(kafka, world.ended("producer", ENDS), [killed, world.serving("consumer-2")]).run(Event())

    assert settled
    assert [row.state for row in world.view.pictures[-1].consumers] == ["killed", "running"]
    assert sum("consumer-1 is killed;" in text for text in world.view.said) == 1


def test_a_consumer_in_trouble_ends_the_run_with_its_last_words(world: World) -> None:
    producer = world.serving("producer")

    settled = world.flow(ScriptedKafka((4, 0)), producer, [world.ended("consumer-1", FAILS)]).run(Event())

    assert not settled
    assert producer.exit_code is not None
    assert any("consumer-1" in text and "the setting is wrong" in text for text in world.view.said)


def test_waiting_without_any_progress_has_an_end(world: World) -> None:
    flow = world.flow(ScriptedKafka((4, 1)), world.ended("producer", ENDS), [world.serving("consumer-1")])

    settled = flow.run(Event())

    assert not settled
    assert "Given up waiting: 3 messages are not settled." in world.view.said


def test_after_a_stop_what_is_not_settled_in_time_is_left_pending(world: World) -> None:
    stop = Event()
    stop.set()
    steps = [(1000, committed) for committed in range(500)]

    fine = world.flow(ScriptedKafka(*steps), world.serving("producer"), [world.serving("consumer-1")]).run(stop)

    assert fine
    assert any(text.startswith("Given up waiting") for text in world.view.said)


def test_a_process_tells_how_it_ended(world: World) -> None:
    assert ending(world.ended("consumer-1", ENDS)).startswith("consumer-1 is finished;")
    assert ending(world.ended("consumer-2", FAILS)).startswith("consumer-2 has failed (1).")
    assert ending(world.ended("consumer-2", FAILS)).endswith("\n  the setting is wrong")


def test_a_process_that_does_not_hear_is_late(world: World) -> None:
    deaf = world.child("consumer-1", DEAF)
    pause = Event()
    while "deaf" not in deaf.last_lines():
        pause.wait(0.01)

    deaf.ask_to_stop()

    assert not deaf.wait(timeout=0.1)
    assert (deaf.state, deaf.port, deaf.partitions) == ("starting", None, ())


def test_a_process_ends_with_the_block_that_started_it(tmp_path: Path) -> None:
    with World(tmp_path, ExitStack()).child("consumer-1", SERVES) as child:
        assert child.exit_code is None

    assert child.state == "killed"
