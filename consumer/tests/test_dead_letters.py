"""The command line, on the embedded broker: what is listed, shown and sent back."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from local.broker import EmbeddedBroker
from src.dead_letters.__main__ import DeadLetterReader, Streams, main, send_back
from src.dead_letters.entries import Place
from src.dead_letters.letter import OFFSET, PARTITION, REPLAYS, TOPIC, own_headers, read_replays
from src.dead_letters.topic import DeadLetterTopic
from src.kafka.topic_reader import TopicReader
from src.model.record import Record, Rejection
from src.settings import KafkaSettings
from src.utils.secret import ClientSettings
from tests.fakes import DEADLINE
from tests.test_dead_letter import AGENTS, rejection

SERVICE = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({"unused": 1}) as broker:
        yield broker


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("librdkafka").setLevel(logging.NOTSET)
    logging.captureWarnings(False)


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def objects(self) -> list[Any]:
        return [json.loads(line) for line in self.lines]


class World:
    """Topics of the test's own, made by whoever writes first, and a settings file that names them."""

    def __init__(self, broker: EmbeddedBroker, folder: Path) -> None:
        self.topic = f"t{uuid4().hex[:8]}"
        self.settings = KafkaSettings(
            bootstrap_servers=broker.address,
            topic=self.topic,
            group_id=f"{self.topic}-group",
            dead_letter_topic=f"{self.topic}.dlq",
            client=ClientSettings({"fetch.wait.max.ms": 20}),
        )
        self.config = folder / "config.json"
        self.configure(client=self.settings.client.reveal())

    def configure(self, **more: Any) -> None:
        names = ("bootstrap_servers", "topic", "group_id", "dead_letter_topic")
        kafka = {name: getattr(self.settings, name) for name in names} | more
        self.config.write_text(json.dumps({"kafka": kafka}))

    def broken(self, offset: int, value: bytes | None = b"{", *, topic: str = "", **fields: Any) -> Rejection:
        headers = fields.pop("headers", AGENTS)
        reason = fields.pop("reason", "not_json")
        parked = rejection(headers, topic=topic or self.topic, partition=0, offset=offset, value=value, **fields)
        return parked._replace(reason=reason)

    def park(self, *rejections: Rejection) -> None:
        DeadLetterTopic(self.settings).send(rejections)

    def put(self, *values: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        """What other programs do to the dead-letter topic."""
        producer = Producer({"bootstrap.servers": self.settings.servers})
        for value in values:
            producer.produce(self.settings.dead_letter_topic, value, headers=list(headers), partition=0)
        assert producer.flush(DEADLINE) == 0

    def run(self, *arguments: str, out: StringIO | None = None) -> Answer:
        streams = Streams(out or StringIO(), StringIO())
        command, *options = arguments
        code = main([command, "--config", str(self.config), *options], streams)
        return Answer(code, streams.out.getvalue(), streams.err.getvalue())  # type: ignore[attr-defined]

    def in_topic(self, topic: str = "") -> list[Record]:
        topic = topic or self.topic
        with TopicReader(self.settings) as snapshot:
            return list(snapshot.read(topic, snapshot.offset_ranges(topic, snapshot.partitions(topic))))

    def process(self, *arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
        command, *more = arguments
        line = [sys.executable, "-m", "src.dead_letters", command, "--config", str(self.config), *more]
        return subprocess.Popen(line, cwd=SERVICE, stderr=subprocess.PIPE, **options)


@pytest.fixture
def world(broker: EmbeddedBroker, tmp_path: Path) -> World:
    return World(broker, tmp_path)


def offsets(answer: Answer) -> list[int | None]:
    return [entry["offset"] for entry in answer.objects]


# -- list


def test_what_is_parked_is_listed_with_its_reason_and_place(world: World) -> None:
    world.park(world.broken(5, key=b"k"), world.broken(6, None, key=b"k", reason="tombstone"))

    answer = world.run("list")

    assert answer.code == 0
    assert [line.split()[1:] for line in answer.lines[1:]] == [
        ["waiting", "not_json", world.topic, "0:5", answer.lines[1].split()[5], "1", "0", '"k"', '"{"'],
        ["waiting", "tombstone", world.topic, "0:6", answer.lines[2].split()[5], "1", "0", '"k"', "null"],
    ]
    assert answer.err == "2 of 2 parked messages (2 waiting, 0 sent back, 0 foreign)\n"


def test_a_message_that_a_crash_parked_twice_is_listed_once(world: World) -> None:
    world.park(world.broken(5), world.broken(5), world.broken(6))

    answer = world.run("list", "--json")

    assert [(entry["offset"], entry["letters"]) for entry in answer.objects] == [(5, 2), (6, 1)]
    assert (
        answer.err == "2 of 2 parked messages (2 waiting, 0 sent back, 0 foreign; 1 letters are repeats of a crash)\n"
    )


def test_filters_choose_and_a_limit_cuts(world: World) -> None:
    world.park(world.broken(1), world.broken(2, reason="tombstone"), world.broken(3, reason="missing_id"))

    assert offsets(world.run("list", "--json", "--reason", "tombstone", "--reason", "missing_id")) == [2, 3]
    assert offsets(world.run("list", "--json", "--partition", "0", "--offset", "3")) == [3]
    assert offsets(world.run("list", "--json", "--partition", "1")) == []
    assert offsets(world.run("list", "--json", "--since", "2020-01-01", "--limit", "1")) == [1]
    assert offsets(world.run("list", "--json", "--since", "2999-01-01T00:00:00+01:00")) == []
    assert offsets(world.run("list", "--json", "--until", "2020-01-01T12:00:00Z")) == []


def test_nothing_parked_is_an_empty_table(world: World, broker: EmbeddedBroker) -> None:
    broker.create_topic(world.settings.dead_letter_topic, 1)

    answer = world.run("list")

    assert (answer.code, len(answer.lines)) == (0, 1)
    assert answer.err == "0 of 0 parked messages (0 waiting, 0 sent back, 0 foreign)\n"


def test_listing_leaves_no_trace_in_the_group(world: World) -> None:
    world.park(world.broken(1))

    world.run("list")

    consumer = Consumer({"bootstrap.servers": world.settings.servers, "group.id": world.settings.group_id})
    (position,) = consumer.committed([TopicPartition(world.settings.dead_letter_topic, 0)], timeout=DEADLINE)
    consumer.close()
    assert position.offset < 0


# -- show


def test_a_message_is_shown_by_its_place_in_its_topic(world: World) -> None:
    world.park(world.broken(41, b"\x1b[31m"), world.broken(42))

    answer = world.run("show", "0:41")

    assert answer.code == 0
    assert f"origin        {world.topic} 0:41" in answer.out
    assert 'value         "\\x1b[31m"' in answer.lines


def test_every_letter_of_a_message_is_shown(world: World) -> None:
    world.park(world.broken(41), world.broken(41))

    assert len(world.run("show", "0:41", "--json").objects) == 2
    assert world.run("show", "0:41").lines.count("") == 1


def test_a_letter_is_shown_by_its_own_place(world: World) -> None:
    world.put(b"not a letter")

    (told,) = world.run("show", "0:0", "--letter", "--json").objects

    assert (told["value"], told["topic"]) == ("not a letter", None)


@pytest.mark.parametrize("arguments", [["0:7"], ["0:7", "--letter"], ["7:0", "--letter"]])
def test_what_is_not_there_can_not_be_shown(world: World, arguments: list[str]) -> None:
    world.park(world.broken(1))

    answer = world.run("show", *arguments)

    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("dead_letters: no letter")


# -- replay


def test_a_replay_sends_the_message_back_as_it_was_and_not_a_second_time(world: World) -> None:
    world.park(world.broken(41, b"\x00\xff", key=None))

    first, second = world.run("replay"), world.run("replay")

    (message,) = world.in_topic()
    assert (message.key, message.value, own_headers(message.headers)) == (None, b"\x00\xff", AGENTS)
    assert [name for name, _ in message.headers[len(AGENTS) :]] == [REPLAYS]
    assert (first.code, first.out) == (0, "1 sent back, each confirmed by Kafka\n")
    assert (second.code, second.out) == (0, "0 sent back, each confirmed by Kafka\n")


def test_filters_of_one_replay_do_not_confuse_the_next(world: World) -> None:
    world.park(world.broken(1), world.broken(2, reason="tombstone"), world.broken(3), world.broken(4))

    world.run("replay", "--reason", "tombstone")
    world.run("replay", "--offset", "4")
    world.run("replay", "--limit", "1")
    answer = world.run("replay")

    assert answer.out.startswith("1 sent back")
    assert len(world.in_topic()) == 4
    assert offsets(world.run("list", "--json")) == []
    assert offsets(world.run("list", "--json", "--all")) == [1, 2, 3, 4]


def test_what_was_sent_back_and_parked_anew_counts_its_replays(world: World) -> None:
    world.park(world.broken(1))
    for round_ in range(1, 4):
        world.run("replay")
        newest = max(world.in_topic(), key=lambda record: read_replays(record.headers).times)
        world.park(world.broken(10 * round_, headers=newest.headers))

    (entry,) = world.run("list", "--json").objects

    assert (entry["offset"], entry["replays"], entry["first_failure"]) == (30, 3, "2023-11-14T22:13:20.250Z")


def test_a_dry_run_lists_and_sends_nothing(world: World) -> None:
    world.park(world.broken(1), world.broken(2))

    answer = world.run("replay", "--dry-run", "--limit", "1", "--json")

    assert offsets(answer) == [1]
    assert answer.err.endswith("; nothing was sent\n")
    assert world.in_topic() == []
    assert len(world.run("replay", "--dry-run").lines) == 3


def test_foreign_records_are_listed_as_such_and_stay(world: World) -> None:
    world.put(b"no headers")
    world.put(b"no number", headers=[(TOPIC, world.topic.encode()), (PARTITION, b"x"), (OFFSET, b"1")])
    world.park(world.broken(1, topic="orders"), world.broken(2))

    listed, sent = world.run("list", "--json"), world.run("replay")

    assert sorted(entry["state"] for entry in listed.objects) == ["foreign", "foreign", "foreign", "waiting"]
    assert sent.out.startswith("1 sent back")
    assert [record.value for record in world.in_topic()] == [b"{"]
    assert len(world.run("list", "--json").objects) == 3


def test_what_came_from_another_topic_goes_to_its_own_when_asked(world: World) -> None:
    other = f"{world.topic}-other"
    world.put(b"no headers")
    world.park(world.broken(1, b"theirs", topic=other))

    answer = world.run("replay", "--any-topic")

    assert answer.out.startswith("1 sent back")
    assert [record.value for record in world.in_topic(other)] == [b"theirs"]
    assert world.in_topic() == []


def test_a_replay_that_did_not_send_all_says_so(world: World) -> None:
    """As when it is asked to stop, or retention takes a letter meanwhile."""
    world.park(world.broken(1))
    streams = Streams(StringIO(), StringIO())
    with TopicReader(world.settings) as snapshot:
        shelf = DeadLetterReader(world.settings, snapshot)
        (entry,) = shelf.entries()

        code = send_back(world.settings, shelf, [entry, replace(entry, place=Place(0, 9))], streams)

    assert code == 1
    assert "after 1 of 2; run it again" in streams.err.getvalue()  # type: ignore[attr-defined]


# -- the edges of the process


def test_whoever_reads_only_the_beginning_leaves_no_traceback(world: World) -> None:
    world.park(world.broken(1))
    unread, written = os.pipe()
    os.close(unread)

    with world.process("list", stdout=written) as process:
        os.close(written)
        _, err = process.communicate(timeout=DEADLINE)

    assert (process.returncode, b"Traceback" in err, b"BrokenPipe" in err) == (0, False, False)


def test_any_locale_and_time_zone_show_the_same(world: World) -> None:
    world.park(world.broken(1, "übel 👾".encode()))
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    abroad = {**os.environ, **locale, "TZ": "Asia/Kathmandu", "LOG_LEVEL": "DEBUG"}

    with world.process("list", "--since", "2020-01-01", stdout=subprocess.PIPE, env=abroad) as process:
        out, err = process.communicate(timeout=DEADLINE)

    here = world.run("list").out
    assert out.decode("ascii") == here.encode("ascii", "backslashreplace").decode()
    assert b"error" not in err.lower()


class Breaking(StringIO):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def write(self, text: str) -> int:
        raise self._error


@pytest.mark.parametrize(
    ("error", "said"),
    [(KeyboardInterrupt(), "interrupted"), (ZeroDivisionError("a fault of ours"), "ZeroDivisionError")],
)
def test_what_ends_the_program_early_is_exit_1(world: World, error: BaseException, said: str) -> None:
    world.park(world.broken(1))

    answer = world.run("list", out=Breaking(error))

    assert answer.code == 1
    assert said in answer.err


def test_a_topic_that_is_not_there_is_one_sentence(world: World) -> None:
    world.configure(dead_letter_topic="never-made")

    answer = world.run("list")

    assert answer.code == 1
    assert answer.err == f"dead_letters: there is no topic never-made at {world.settings.servers}\n"


def test_wrong_configuration_is_one_sentence(world: World) -> None:
    world.configure(group_id=7)

    answer = world.run("list")

    assert answer.code == 2
    assert "kafka.group_id" in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["list", "--since", "yesterday"],
        ["list", "--limit", "0"],
        ["list", "--limit", "some"],
        ["show"],
        ["show", "41"],
        ["show", "0:-1"],
        ["replay", "--offset", "x"],
    ],
)
def test_wrong_arguments_are_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_help_says_what_a_replay_remembers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["replay", "--help"])

    assert ended.value.code == 0
    assert "noted in the dead-letter topic" in capsys.readouterr().out
