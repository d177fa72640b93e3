"""The command line, on the embedded broker."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from local.broker import EmbeddedBroker
from src.dead_letters.__main__ import main
from src.dead_letters.commands import Commands, Streams
from src.dead_letters.dead_letter import (
    OFFSET,
    PARTITION,
    REPLAYS,
    TOPIC,
    original_headers,
    read_replays,
)
from src.dead_letters.reader import DeadLetterReader
from src.dead_letters.topic import DeadLetterTopic
from src.kafka.topic_reader import TopicReader
from src.model.position import MessagePosition
from src.model.record import ORIGINAL_POSITION, Record, Rejection
from src.settings import KafkaSettings
from src.utils.progress import ProgressLine
from src.utils.secret import ClientSettings
from tests.fakes import DEADLINE
from tests.test_dead_letter import HEADERS, rejection

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


class Result(NamedTuple):
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
    """Topics of this test only, which the first message creates, and a settings file that names them."""

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

    def rejection(self, offset: int, value: bytes | None = b"{", *, topic: str = "", **fields: Any) -> Rejection:
        headers = fields.pop("headers", HEADERS)
        reason = fields.pop("reason", "not_json")
        rejected = rejection(headers, topic=topic or self.topic, partition=0, offset=offset, value=value, **fields)
        return rejected._replace(reason=reason)

    def dead_letter(self, *rejections: Rejection) -> None:
        DeadLetterTopic(self.settings).send(rejections)

    def put(self, *values: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        """Write to the dead-letter topic as another program."""
        producer = Producer({"bootstrap.servers": self.settings.servers})
        for value in values:
            producer.produce(self.settings.dead_letter_topic, value, headers=list(headers), partition=0)
        assert producer.flush(DEADLINE) == 0

    def run(self, *arguments: str, out: StringIO | None = None) -> Result:
        out, err = out or StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(["--config", str(self.config), *arguments])
        return Result(code, out.getvalue(), err.getvalue())

    def records(self, topic: str = "") -> list[Record]:
        topic = topic or self.topic
        with TopicReader(self.settings) as reader:
            return list(reader.read(topic, reader.offset_ranges(topic, reader.partitions(topic))))

    def process(self, *arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
        command, *more = arguments
        line = [sys.executable, "-m", "src.dead_letters", command, "--config", str(self.config), *more]
        return subprocess.Popen(line, cwd=SERVICE, stderr=subprocess.PIPE, **options)


@pytest.fixture
def world(broker: EmbeddedBroker, tmp_path: Path) -> World:
    return World(broker, tmp_path)


def offsets(result: Result) -> list[int | None]:
    return [entry["offset"] for entry in result.objects]


# -- list


def test_dead_lettered_messages_are_listed_with_reason_and_position(world: World) -> None:
    world.dead_letter(world.rejection(5, key=b"k"), world.rejection(6, None, key=b"k", reason="tombstone"))

    result = world.run("list")

    assert result.code == 0
    assert [line.split()[1:] for line in result.lines[1:]] == [
        ["waiting", "not_json", world.topic, "0:5", result.lines[1].split()[5], "1", "0", '"k"', '"{"'],
        ["waiting", "tombstone", world.topic, "0:6", result.lines[2].split()[5], "1", "0", '"k"', "null"],
    ]
    assert result.err == "2 of 2 dead-lettered messages (2 waiting, 0 replayed, 0 discarded, 0 foreign)\n"


def test_a_message_dead_lettered_twice_by_a_crash_is_listed_once(world: World) -> None:
    world.dead_letter(world.rejection(5), world.rejection(5), world.rejection(6))

    result = world.run("list", "--json")

    assert [(entry["offset"], entry["copies"]) for entry in result.objects] == [(5, 2), (6, 1)]
    assert "; 1 dead letters repeated after a crash)" in result.err


def test_filters_and_a_limit_select_messages(world: World) -> None:
    world.dead_letter(
        world.rejection(1), world.rejection(2, reason="tombstone"), world.rejection(3, reason="missing_id")
    )

    assert offsets(world.run("list", "--json", "--reason", "tombstone", "--reason", "missing_id")) == [2, 3]
    assert offsets(world.run("list", "--json", "--partition", "0", "--offset", "3")) == [3]
    assert offsets(world.run("list", "--json", "--partition", "1")) == []
    assert offsets(world.run("list", "--json", "--since", "2020-01-01", "--limit", "1")) == [1]
    assert offsets(world.run("list", "--json", "--since", "2999-01-01T00:00:00+01:00")) == []
    assert offsets(world.run("list", "--json", "--until", "2020-01-01T12:00:00Z")) == []


def test_no_dead_letters_and_no_matches_are_said_in_words(world: World) -> None:
    world.dead_letter(world.rejection(1))

    for command in ("list", "summary", "show", "replay", "discard"):
        result = world.run(command, "--reason", "other")

        assert (result.code, result.out) == (0, "")
        assert result.err.startswith("no messages match, out of 1 dead-lettered messages (1 waiting,")


def test_an_empty_topic_has_no_dead_letters(world: World, broker: EmbeddedBroker) -> None:
    broker.create_topic(world.settings.dead_letter_topic, 1)

    result = world.run("list")

    assert result == (0, "", "no dead letters\n")


@pytest.mark.parametrize("command", ["list", "summary", "show", "replay", "discard"])
def test_the_filters_are_the_same_for_every_command(world: World, command: str) -> None:
    world.dead_letter(*map(world.rejection, (1, 2, 3)), world.rejection(4, reason="tombstone"))
    own_position = "{partition}:{offset}".format(**world.run("list", "--json").objects[0]["dead_letter"])
    dry_run = ["--dry-run"] if command in ("replay", "discard") else []

    def selected(*filters: str) -> int:
        result = world.run(command, *filters, "--json", *dry_run)
        assert result.code == 0
        return sum(line.get("messages", 1) for line in result.objects if line.get("by", "reason") == "reason")

    assert selected("0:2") == 1
    assert selected(own_position, "--dead-letter") == 1
    assert selected("--offset", "3", "--partition", "0") == 1
    assert selected("--reason", "not_json") == 3
    assert selected("--since", "2020-01-01", "--until", "2999-01-01", "--limit", "2") == 2


def test_the_settings_file_is_named_before_or_after_the_command(world: World) -> None:
    world.dead_letter(world.rejection(1))
    missing = str(world.config.with_name("missing.json"))

    assert world.run("list", "--config", str(world.config)).code == 0
    assert world.run("--config", missing, "list", "--config", str(world.config)).code == 0
    assert world.run("list", "--config", missing).code == 2


def test_the_progress_of_reading_replaying_and_discarding_is_shown(world: World) -> None:
    world.dead_letter(world.rejection(1), world.rejection(2))
    shown, seconds = StringIO(), count(0, 10)
    progress = ProgressLine("dead_letters", stream=shown, clock=lambda: next(seconds))

    with TopicReader(world.settings) as reader:
        dead_letters = DeadLetterReader(world.settings, reader, progress=progress)
        entries = dead_letters.entries()
        commands = Commands(world.settings, dead_letters, Streams(StringIO(), StringIO()))
        commands.replay_entries(entries)
        commands.discard_entries(entries)

    assert [line.partition(",")[0] for line in shown.getvalue().splitlines()] == [
        "dead_letters: reading: 1 of 2 (50 %)",
        "dead_letters: reading: 2 of 2 (100 %)",
        "dead_letters: replaying: 1 of 2 (50 %)",
        "dead_letters: replaying: 2 of 2 (100 %)",
        "dead_letters: discarding: 1 of 2 (50 %)",
        "dead_letters: discarding: 2 of 2 (100 %)",
    ]


def test_listing_commits_nothing(world: World) -> None:
    world.dead_letter(world.rejection(1))

    world.run("list")

    consumer = Consumer({"bootstrap.servers": world.settings.servers, "group.id": world.settings.group_id})
    (position,) = consumer.committed([TopicPartition(world.settings.dead_letter_topic, 0)], timeout=DEADLINE)
    consumer.close()
    assert position.offset < 0


# -- summary


def test_a_summary_counts_messages_by_reason_partition_and_hour(world: World) -> None:
    world.dead_letter(world.rejection(1), world.rejection(2), world.rejection(3, reason="tombstone"))

    result = world.run("summary")

    assert [line.split()[:-2] for line in result.lines if "DEAD-LETTERED" not in line] == [
        ["not_json", "2"],
        ["tombstone", "1"],
        [],
        [world.topic, "0", "3"],
        [],
        [result.lines[-1].split()[0], "3"],
    ]
    assert [line.split()[0] for line in result.lines if "DEAD-LETTERED" in line] == ["REASON", "PARTITION", "HOUR"]
    assert result.err.startswith("3 of 3 dead-lettered messages (3 waiting,")


def test_a_summary_leaves_out_what_no_longer_waits(world: World) -> None:
    world.dead_letter(world.rejection(1), world.rejection(2), world.rejection(3))
    world.run("replay", "--offset", "1")
    world.run("discard", "--offset", "2")

    def messages(*options: str) -> list[int]:
        return [group["messages"] for group in world.run("summary", "--json", *options).objects]

    assert (messages(), messages("--all")) == ([1, 1, 1], [3, 3, 3])


# -- show


def test_a_message_is_shown_by_its_original_position(world: World) -> None:
    world.dead_letter(world.rejection(41, b"\x1b[31m"), world.rejection(42))

    result = world.run("show", "0:41")

    assert result.code == 0
    assert f"message       {world.topic} 0:41" in result.out
    assert 'value         "\\x1b[31m"' in result.lines


def test_every_dead_letter_of_a_message_is_shown(world: World) -> None:
    world.dead_letter(world.rejection(41), world.rejection(41))

    assert len(world.run("show", "0:41", "--json").objects) == 2
    assert world.run("show", "0:41").lines.count("") == 1


def test_a_dead_letter_is_shown_by_its_own_position(world: World) -> None:
    world.put(b"not a dead letter")

    (shown,) = world.run("show", "0:0", "--dead-letter", "--json").objects

    assert (shown["value"], shown["topic"], shown["state"]) == ("not a dead letter", None, "foreign")


def test_messages_that_match_are_shown_with_their_state(world: World) -> None:
    world.dead_letter(world.rejection(1), world.rejection(2, reason="tombstone"), world.rejection(3))
    world.run("discard", "0:1")

    def shown(*options: str) -> list[tuple[int, str]]:
        return [(each["offset"], each["state"]) for each in world.run("show", "--json", *options).objects]

    assert shown("--reason", "not_json") == [(3, "waiting")]
    assert shown("--reason", "not_json", "--all") == [(1, "discarded"), (3, "waiting")]
    assert shown("0:1") == [(1, "discarded")]


def test_the_value_of_a_message_is_printed_byte_for_byte(world: World) -> None:
    world.dead_letter(
        world.rejection(41, b"\x00\xff\r\n"), world.rejection(41, b"\x00\xff\r\n"), world.rejection(42, None)
    )

    with world.process("show", "0:41", "--value", stdout=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=DEADLINE)
    with world.process("show", "0:42", "--value", stdout=subprocess.PIPE) as process:
        no_value, _ = process.communicate(timeout=DEADLINE)

    assert (out, err, no_value) == (b"\x00\xff\r\n", b"", b"")


def test_the_value_of_several_messages_is_an_error(world: World) -> None:
    world.dead_letter(world.rejection(1), world.rejection(2))

    result = world.run("show", "--value")

    assert result == (
        1,
        "",
        "dead_letters: --value is for one message, but 2 match; give PARTITION:OFFSET, and --topic if several do\n",
    )


@pytest.mark.parametrize("arguments", [["0:7"], ["0:7", "--dead-letter"], ["7:0", "--dead-letter"]])
def test_a_position_without_a_dead_letter_is_an_error(world: World, arguments: list[str]) -> None:
    world.dead_letter(world.rejection(1))

    result = world.run("show", *arguments)

    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("dead_letters: there is no dead letter")


# -- replay


def test_a_message_is_replayed_unchanged_and_only_once(world: World) -> None:
    world.dead_letter(world.rejection(41, b"\x00\xff", key=None))

    first, second = world.run("replay"), world.run("replay")

    (message,) = world.records()
    assert (message.key, message.value, original_headers(message.headers)) == (None, b"\x00\xff", HEADERS)
    assert [name for name, _ in message.headers[len(HEADERS) :]] == [REPLAYS, ORIGINAL_POSITION]
    assert (first.code, first.out) == (0, "1 replayed, each confirmed by Kafka\n")
    assert (second.code, second.out) == (0, "")


def test_replays_with_different_filters_are_independent(world: World) -> None:
    world.dead_letter(
        world.rejection(1), world.rejection(2, reason="tombstone"), world.rejection(3), world.rejection(4)
    )

    world.run("replay", "--reason", "tombstone")
    world.run("replay", "--offset", "4")
    world.run("replay", "--limit", "1")
    result = world.run("replay")

    assert result.out.startswith("1 replayed")
    assert len(world.records()) == 4
    assert offsets(world.run("list", "--json")) == []
    assert offsets(world.run("list", "--json", "--all")) == [1, 2, 3, 4]


def test_a_message_dead_lettered_again_after_a_replay_counts_its_replays(world: World) -> None:
    world.dead_letter(world.rejection(1))
    for replay in range(1, 4):
        world.run("replay")
        newest = max(world.records(), key=lambda record: read_replays(record.headers).times)
        world.dead_letter(world.rejection(10 * replay, headers=newest.headers))

    (entry,) = world.run("list", "--json").objects

    assert (entry["offset"], entry["replays"], entry["first_failure"]) == (30, 3, "2023-11-14T22:13:20.250Z")


def test_a_dry_run_lists_and_produces_nothing(world: World) -> None:
    world.dead_letter(world.rejection(1), world.rejection(2))

    result = world.run("replay", "--dry-run", "--limit", "1", "--json")

    assert offsets(result) == [1]
    assert result.err.endswith("; nothing was produced\n")
    assert world.records() == []
    assert len(world.run("replay", "--dry-run").lines) == 3


def test_foreign_records_are_listed_and_not_replayed(world: World) -> None:
    world.put(b"no headers")
    world.put(b"not a number", headers=[(TOPIC, world.topic.encode()), (PARTITION, b"x"), (OFFSET, b"1")])
    world.dead_letter(world.rejection(1, topic="orders"), world.rejection(2))

    listed, replayed = world.run("list", "--json"), world.run("replay")

    assert sorted(entry["state"] for entry in listed.objects) == ["foreign", "foreign", "foreign", "waiting"]
    assert replayed.out.startswith("1 replayed")
    assert [record.value for record in world.records()] == [b"{"]
    assert len(world.run("list", "--json").objects) == 3


def test_messages_from_another_topic_are_replayed_to_it_with_any_topic(world: World) -> None:
    other = f"{world.topic}-other"
    world.put(b"no headers")
    world.dead_letter(world.rejection(1, b"theirs", topic=other))

    result = world.run("replay", "--any-topic")

    assert result.out.startswith("1 replayed")
    assert [record.value for record in world.records(other)] == [b"theirs"]
    assert world.records() == []


def test_the_number_of_replayed_messages_can_be_json(world: World) -> None:
    world.dead_letter(world.rejection(1))

    assert world.run("replay", "--json").objects == [{"replayed": 1}]


def test_a_message_is_replayed_with_a_corrected_value(world: World, tmp_path: Path) -> None:
    world.dead_letter(world.rejection(41, b"{", key=b"k"), world.rejection(42, b"[", key=b"l"))
    (tmp_path / "value.json").write_bytes(b'{"id": "k"}\n')

    first = world.run("replay", "0:41", "--value-file", str(tmp_path / "value.json"))
    second = world.run("replay", "0:41", "--value-file", str(tmp_path / "value.json"))

    (message,) = world.records()
    assert (message.key, message.value, original_headers(message.headers)) == (b"k", b'{"id": "k"}\n', HEADERS)
    assert read_replays(message.headers).times == 1
    assert (first.code, first.out) == (0, "1 replayed, each confirmed by Kafka\n")
    assert (second.code, second.out) == (1, "")
    assert second.err.startswith(
        "dead_letters: no messages match, out of 2 dead-lettered messages (1 waiting, 1 replayed,"
    )
    assert offsets(world.run("list", "--json")) == [42]


def test_a_corrected_value_is_read_from_standard_input(world: World) -> None:
    world.dead_letter(world.rejection(41))
    arguments = ("replay", "0:41", "--value-file", "-")

    with world.process(*arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.communicate(b'{"id": "k"}', timeout=DEADLINE)

    assert [message.value for message in world.records()] == [b'{"id": "k"}']


def test_a_corrected_value_for_several_messages_is_an_error_and_nothing_is_produced(
    world: World, tmp_path: Path
) -> None:
    world.dead_letter(world.rejection(1), world.rejection(2))
    (tmp_path / "value.json").write_bytes(b"{}")

    result = world.run("replay", "--value-file", str(tmp_path / "value.json"))

    assert (result.code, result.out) == (1, "")
    assert "--value-file is for one message, but 2 match" in result.err
    assert world.records() == []


@pytest.mark.parametrize(("content", "said"), [(b"", "value.json is empty"), (None, "cannot read")])
def test_a_corrected_value_that_is_missing_or_empty_is_exit_code_2(
    content: bytes | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "value.json").write_bytes(content)

    with pytest.raises(SystemExit, match="2"):
        main(["replay", "0:1", "--value-file", str(tmp_path / "value.json")])

    assert said in capsys.readouterr().err


def test_an_incomplete_replay_is_an_error(world: World) -> None:
    """As after a stop, or if retention deletes a dead letter meanwhile."""
    world.dead_letter(world.rejection(1))
    streams = Streams(StringIO(), StringIO())
    with TopicReader(world.settings) as reader:
        dead_letters = DeadLetterReader(world.settings, reader)
        (entry,) = dead_letters.entries()
        deleted = replace(entry, dead_letter=MessagePosition(entry.dead_letter.topic, 0, 9))

        code = Commands(world.settings, dead_letters, streams).replay_entries([entry, deleted])

    assert code == 1
    assert "after 1 of 2; run it again" in streams.err.getvalue()  # type: ignore[attr-defined]


# -- discard


def test_a_discarded_message_is_neither_listed_nor_replayed(world: World) -> None:
    world.dead_letter(world.rejection(1), world.rejection(2), world.rejection(2))

    first, second = world.run("discard", "0:2"), world.run("discard", "0:2")

    assert (first.code, first.out) == (0, "1 discarded, each confirmed by Kafka\n")
    assert (second.code, second.out) == (0, "")
    assert "(1 waiting, 0 replayed, 1 discarded, 0 foreign;" in second.err
    assert offsets(world.run("list", "--json")) == [1]
    assert [entry["state"] for entry in world.run("list", "--json", "--all").objects] == ["waiting", "discarded"]
    assert world.run("replay").out.startswith("1 replayed")
    assert world.run("replay", "0:2", "--any-topic").out == ""


def test_a_dry_run_of_discard_lists_and_marks_nothing(world: World) -> None:
    world.dead_letter(world.rejection(1), world.rejection(2))

    result = world.run("discard", "--since", "2020-01-01", "--limit", "1", "--dry-run", "--json")

    assert offsets(result) == [1]
    assert result.err.endswith("; nothing was discarded\n")
    assert offsets(world.run("list", "--json")) == [1, 2]


def test_records_of_other_programs_are_discarded_only_with_any_topic(world: World) -> None:
    world.put(b"no headers")
    world.dead_letter(world.rejection(1, topic="orders"))
    here = ["--until", "2999-01-01"]

    without = world.run("discard", *here)
    result = world.run("discard", *here, "--any-topic", "--json")

    assert (without.code, without.out) == (0, "")
    assert result.objects == [{"discarded": 2}]
    assert world.run("list").err.startswith(
        "no messages match, out of 2 dead-lettered messages (0 waiting, 0 replayed, 2"
    )


def test_one_record_of_another_program_is_discarded_by_its_own_position(world: World) -> None:
    world.put(b"first", b"second")

    world.run("discard", "0:1", "--dead-letter", "--any-topic")

    assert [entry["value_prefix"] for entry in world.run("list", "--json").objects] == ["first"]


# -- the process


def test_a_closed_pipe_causes_no_traceback(world: World) -> None:
    world.dead_letter(world.rejection(1))
    read_end, write_end = os.pipe()
    os.close(read_end)

    with world.process("list", stdout=write_end) as process:
        os.close(write_end)
        _, err = process.communicate(timeout=DEADLINE)

    assert (process.returncode, b"Traceback" in err, b"BrokenPipe" in err) == (141, False, False)


def test_the_output_does_not_depend_on_locale_and_time_zone(world: World) -> None:
    world.dead_letter(world.rejection(1, "übel 👾".encode()))
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    environ = {**os.environ, **locale, "TZ": "Asia/Kathmandu", "LOG_LEVEL": "DEBUG"}

    with world.process("list", "--since", "2020-01-01", stdout=subprocess.PIPE, env=environ) as process:
        out, err = process.communicate(timeout=DEADLINE)

    expected = world.run("list").out
    assert out.decode("ascii") == expected.encode("ascii", "backslashreplace").decode()
    assert b"error" not in err.lower()


class FailingStream(StringIO):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def write(self, text: str) -> int:
        raise self._error


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [(KeyboardInterrupt(), 130, ""), (ZeroDivisionError("a bug"), 1, "ZeroDivisionError")],
)
def test_an_interruption_or_a_bug_has_an_exit_code(world: World, error: BaseException, code: int, text: str) -> None:
    world.dead_letter(world.rejection(1))

    result = world.run("list", out=FailingStream(error))

    assert result.code == code
    assert text in result.err


def test_a_missing_topic_is_one_line(world: World) -> None:
    world.configure(dead_letter_topic="no-such-topic")

    result = world.run("list")

    assert result.code == 1
    assert result.err == f"dead_letters: there is no topic no-such-topic at {world.settings.servers}\n"


def test_wrong_configuration_is_one_line_and_exit_code_2(world: World) -> None:
    world.configure(group_id=7)

    result = world.run("list")

    assert result.code == 2
    assert "kafka.group_id" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["list", "--since", "yesterday"],
        ["list", "--limit", "0"],
        ["list", "--limit", "some"],
        ["show", "--dead-letter"],
        ["show", "41"],
        ["show", "0:-1"],
        ["replay", "--offset", "x"],
        ["discard"],
        ["discard", "--limit", "1"],
    ],
)
def test_wrong_arguments_are_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "marker"), [("replay", "a replay marker is written"), ("discard", "marker is written")]
)
def test_the_help_explains_markers(command: str, marker: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])

    assert ended.value.code == 0
    assert marker in capsys.readouterr().out


# -- several topics


def test_dead_letters_of_each_topic_wait_and_are_chosen_by_topic(world: World) -> None:
    other = f"{world.topic}-2"
    world.configure(topics=[world.topic, other])
    world.dead_letter(world.rejection(5), world.rejection(5, topic=other), world.rejection(5, topic="no-such-topic"))

    assert [entry["state"] for entry in world.run("list", "--json").objects] == ["waiting", "waiting", "foreign"]
    assert [entry["topic"] for entry in world.run("show", "0:5", "--json").objects] == [world.topic, other]
    assert [entry["topic"] for entry in world.run("list", "--topic", other, "--json").objects] == [other]
    assert "2 match; give PARTITION:OFFSET" in world.run("show", "0:5", "--value").err
    assert len(world.run("show", "0:5", "--topic", other, "--json").objects) == 1

    assert world.run("replay", "--topic", other).code == 0
    assert [len(world.records(topic)) for topic in (world.topic, other)] == [0, 1]
