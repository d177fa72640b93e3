"""What was given up is listed and sent again; nothing is taken out that Kafka has not confirmed."""

import io
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest

from local.broker import EmbeddedBroker
from src.delivery import RetryPolicy
from src.kafka.produce_request import Failure, Fault
from src.model.message import Encoded
from src.undelivered.__main__ import Tally, list_messages, main, resend
from src.undelivered.resender import Outcome
from src.undelivered.segments import Undelivered, from_line, segments, taken, to_line
from tests.fakes import DEADLINE, FakeClock, FakePublisher, encoded
from tests.test_publisher import stored

SPECIAL = '{"id":"a","t":"\u2028\u2029\u0085"}'.encode() + b"\x1c"


def failure(message: Encoded, reason: str = "no leader") -> Failure:
    return Failure(message, Fault.WORLD, reason)


def leave(folder: Path, *names: str, topic: str = "data-topic", host: str = "dead") -> Path:
    """The segment of a process that is gone."""
    Undelivered(folder, topic, host=host).keep([failure(encoded(name)) for name in names])
    return next(path for path in segments(folder) if path.name.startswith(f"{host}-"))


class World:
    """The command among fakes."""

    def __init__(self, *, at_once: int = 1000) -> None:
        self.clock = FakeClock()
        self.publisher = FakePublisher(self.clock)
        self.stop = Event()
        self._at_once = at_once

    def resend(self, folder: Path) -> Tally:
        return resend(
            Undelivered(folder, "data-topic"),
            self.publisher,
            RetryPolicy(0, 1.0),
            stop=self.stop,
            clock=self.clock,
            at_once=self._at_once,
        )

    @property
    def sent(self) -> list[str]:
        return [(message.key or b"").decode() for message in self.publisher.delivered]


def keys_in(path: Path) -> list[str]:
    with path.open("rb") as lines:
        return [(kept.message.key or b"").decode() for line in lines if (kept := from_line(line))]


def test_what_is_confirmed_leaves_the_folder(tmp_path: Path) -> None:
    world = World()
    leave(tmp_path, "a", "b")

    tally = world.resend(tmp_path)

    assert world.sent == ["a", "b"]
    assert (tally.sent, tally.left) == (2, 0)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_confirmed_stays_with_the_new_reason(tmp_path: Path) -> None:
    world = World()
    world.publisher.refuse("b", "still no leader")
    path = leave(tmp_path, "a", "b", "c")

    tally = world.resend(tmp_path)

    assert (tally.sent, tally.left) == (2, 1)
    assert keys_in(path) == ["b"]
    assert b"still no leader" in path.read_bytes()


def test_a_segment_that_somebody_writes_or_sends_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World()
    path = leave(tmp_path, "a")
    with taken(path):
        tally = world.resend(tmp_path)

    assert keys_in(path) == ["a"]
    assert (tally.in_use, world.sent, tally.all_gone) == (1, [], False)
    assert "in use, left alone" in capsys.readouterr().out


def test_a_segment_that_a_producer_has_sent_meanwhile_leaves_nothing(tmp_path: Path) -> None:
    path = leave(tmp_path, "a")

    class Meanwhile(Event):
        """Asked between a look at the segment and its opening."""

        def is_set(self) -> bool:
            path.unlink(missing_ok=True)
            return False

    world = World()
    world.stop = Meanwhile()

    tally = world.resend(tmp_path)

    assert (tally.in_use, tally.all_gone, world.sent) == (0, True, [])


def test_what_was_passed_over_and_is_gone_by_then_is_not_left(tmp_path: Path) -> None:
    tally = Tally()

    tally.take_note(Outcome(tmp_path / "gone.jsonl", passed_over=True))

    assert tally.all_gone


def test_a_segment_that_cannot_be_read_is_said_and_the_others_are_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World()
    leave(tmp_path, "b")
    unreadable = tmp_path / "a.jsonl"
    unreadable.symlink_to(unreadable)

    tally = world.resend(tmp_path)
    tally.take_note(Outcome(unreadable, passed_over=True))
    listed = list_messages(tmp_path)

    printed = capsys.readouterr()
    assert (world.sent, tally.troubles, tally.all_gone, listed) == (["b"], 2, False, 0)
    assert unreadable.name in printed.err
    assert "can't be read" in printed.out


def test_a_torn_last_line_is_put_aside_and_named_and_the_others_are_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World()
    path = leave(tmp_path, "a", "b")
    torn = to_line(failure(encoded("ü")), "data-topic", "when")[:-30]
    path.write_bytes(path.read_bytes() + torn)

    tally = world.resend(tmp_path)

    aside = path.with_suffix(".broken")
    assert world.sent == ["a", "b"]
    assert (tally.sent, tally.broken) == (2, 1)
    assert aside.read_bytes() == torn + b"\n"
    assert aside.name in capsys.readouterr().out


def test_a_broken_line_in_the_middle_is_put_aside_as_it_is(tmp_path: Path) -> None:
    world = World()
    path = leave(tmp_path, "a", "b")
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b"\xff{\n" + second)

    world.resend(tmp_path)

    assert world.sent == ["a", "b"]
    assert path.with_suffix(".broken").read_bytes() == b"\xff{\n"


def test_a_message_of_another_topic_stays(tmp_path: Path) -> None:
    world = World()
    path = leave(tmp_path, "a", topic="other-topic")

    tally = world.resend(tmp_path)

    assert (tally.left, world.sent, keys_in(path)) == (1, [], ["a"])


def test_a_stop_leaves_the_rest_where_it_is(tmp_path: Path) -> None:
    world = World(at_once=2)
    path = leave(tmp_path, "a", "b", "c", "d", "e")
    world.publisher.on_wait = lambda: world.stop.set() if len(world.publisher.delivered) >= 2 else None

    world.resend(tmp_path)

    assert sorted(world.sent + keys_in(path)) == ["a", "b", "c", "d", "e"]
    assert "e" in keys_in(path)


def test_where_the_broker_is_away_not_every_message_waits_for_it(tmp_path: Path) -> None:
    world = World(at_once=2)
    world.publisher.trouble = "broker down"
    for name in "ab":
        world.publisher.refuse(name, "not confirmed")
    path = leave(tmp_path, *"abcdef")

    world.resend(tmp_path)

    assert keys_in(path) == list("abcdef")
    assert world.publisher.sizes == [2]


def test_what_cannot_be_written_back_leaves_the_segment_as_it_was(tmp_path: Path) -> None:
    world = World()
    path = leave(tmp_path, "a")
    before = path.read_bytes()
    path.with_name(f".{path.name}.new").mkdir()

    tally = world.resend(tmp_path)

    assert path.read_bytes() == before
    assert not tally.all_gone


def test_special_characters_arrive_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = Encoded(b"\xff", SPECIAL, [("h", None)])
    Undelivered(tmp_path, "data-topic").keep([failure(message)])

    with EmbeddedBroker({"data-topic": 1}) as broker:
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.address)
        exit_code = main(["resend", "--dir", str(tmp_path)])
        arrived = stored(broker, 1)

    assert exit_code == 0
    assert arrived == [message]
    assert list(tmp_path.iterdir()) == []


def test_resend_without_a_broker_exits_1_and_keeps_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("PRODUCER_DELIVERY_TIMEOUT_MS", "1000")
    monkeypatch.setenv("PRODUCER_MAX_RETRIES", "0")
    path = leave(tmp_path, "a")

    exit_code = main(["resend", "--dir", str(tmp_path)])

    assert exit_code == 1
    assert keys_in(path) == ["a"]


def test_list_shows_each_message_and_sends_nothing_to_the_terminal_that_steers_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = leave(tmp_path, "a")
    steering = Encoded(b"\x1b[31m", b"\r\n\x1b]0;title\x07" + "\u202e".encode() + b"x" * 500, [])
    path.write_bytes(
        path.read_bytes()
        + to_line(failure(steering, "why\x1b"), "data-topic", "when")
        + to_line(failure(Encoded(None, b"\xff", [])), "data-topic", "when")
        + b"torn"
    )

    count = list_messages(tmp_path)

    printed = capsys.readouterr().out
    assert count == 4
    assert "key=a" in printed
    assert f"({len(steering.value or b'')} bytes)" in printed
    assert "key=none  \\xff" in printed
    assert "line 4 is broken" in printed
    assert all(character.isprintable() or character == "\n" for character in printed)


def test_list_says_what_is_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with taken(leave(tmp_path, "a")):
        exit_code = main(["list", "--dir", str(tmp_path)])

    assert exit_code == 0
    assert "(in use)" in capsys.readouterr().out


def test_list_passes_over_what_a_producer_has_sent_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(tmp_path, "a", host="one")
    later = leave(tmp_path, "b", host="two")

    class Printed(io.StringIO):
        def write(self, text: str) -> int:
            later.unlink(missing_ok=True)
            return super().write(text)

    monkeypatch.setattr("sys.stdout", Printed())

    assert list_messages(tmp_path) == 1


def test_a_segment_that_breaks_off_is_a_sentence_and_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").symlink_to("/proc/self/mem")

    exit_code = main(["list", "--dir", str(tmp_path)])

    assert exit_code == 1
    assert capsys.readouterr().err == "undelivered: [Errno 5] Input/output error\n"


@pytest.mark.parametrize(
    ("arguments", "named_in_the_text"),
    [
        (["list", "--dir", "/no/such/folder"], "/no/such/folder"),
        (["list", "--config", "/no/such/file.json"], "/no/such/file.json"),
        (["resend", "--dir", "/dev/null/folder"], "/dev/null/folder"),
    ],
)
def test_a_wrong_place_is_one_sentence_and_exit_2(
    arguments: list[str], named_in_the_text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exit_code = main(arguments)

    printed = capsys.readouterr().err
    assert exit_code == 2
    assert named_in_the_text in printed
    assert printed.count("\n") == 1


def test_a_folder_that_cannot_be_rewritten_is_exit_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    path = leave(tmp_path, "a")
    path.with_name(f".{path.name}.new").mkdir()

    exit_code = main(["resend", "--dir", str(tmp_path)])

    assert exit_code == 1
    assert path.name in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    leave(tmp_path, *map(str, range(2000)))

    with subprocess.Popen(
        [sys.executable, "-m", "src.undelivered", "list", "--dir", str(tmp_path)],
        cwd=Path(__file__).resolve().parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as program:
        assert program.stdout is not None
        first = program.stdout.readline()
        program.stdout.close()
        _, errors = program.communicate(timeout=DEADLINE)

    assert first.startswith(b"dead-")
    assert (program.returncode, errors) == (0, b"")
