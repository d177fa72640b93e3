"""`python -m src.undelivered` lists and resends; no message is removed that Kafka has not acknowledged."""

import io
import subprocess
import sys
from itertools import count
from pathlib import Path
from threading import Event

import pytest

from local.broker import EmbeddedBroker
from src.delivery.retry_policy import RetryPolicy
from src.model.delivery_failure import DeliveryFailure, Fault
from src.model.message import ProducerRecord
from src.undelivered.__main__ import ResendSummary, main, resend
from src.undelivered.folder import UndeliveredFolder
from src.undelivered.listing import list_messages
from src.undelivered.record import to_line
from src.undelivered.resender import SegmentResult
from src.undelivered.segments import locked_segment, segment_paths
from src.utils.progress import ProgressLine
from tests.fakes import DEADLINE, FakeClock, FakePublisher, key, keys_in, record, undelivered_keys
from tests.topics import first_records

SPECIAL = '{"id":"a","t":"\u2028\u2029\u0085"}'.encode() + b"\x1c"


def failure(message: ProducerRecord, reason: str = "no leader") -> DeliveryFailure:
    return DeliveryFailure(message, Fault.TRANSIENT, reason)


def leave(folder: Path, *names: str, topic: str = "data-topic", host: str = "dead") -> Path:
    """The segment of a dead process."""
    UndeliveredFolder(folder, topic, host=host).append([failure(record(name)) for name in names])
    return next(path for path in segment_paths(folder) if path.name.startswith(f"{host}-"))


class World:
    """The command with a fake Kafka."""

    def __init__(self, *, batch_size: int = 1000) -> None:
        self.clock = FakeClock()
        self.publisher = FakePublisher(self.clock)
        self.stop = Event()
        self._batch_size = batch_size

    def resend(self, folder: Path, progress: ProgressLine | None = None) -> ResendSummary:
        return resend(
            UndeliveredFolder(folder, "data-topic"),
            self.publisher,
            RetryPolicy(0, 1.0),
            stop=self.stop,
            clock=self.clock,
            batch_size=self._batch_size,
            progress=progress,
        )

    @property
    def sent(self) -> list[str]:
        return list(map(key, self.publisher.delivered))


def test_acknowledged_messages_leave_the_folder(tmp_path: Path) -> None:
    world = World()
    leave(tmp_path, "a", "b")

    summary = world.resend(tmp_path)

    assert world.sent == ["a", "b"]
    assert (summary.sent, summary.left) == (2, 0)
    assert list(tmp_path.iterdir()) == []


def test_the_progress_of_a_resend_is_shown(tmp_path: Path) -> None:
    leave(tmp_path, "a", "b", "c", "d")
    shown = io.StringIO()
    seconds = count(0, 10)

    World(batch_size=2).resend(tmp_path, ProgressLine("undelivered", stream=shown, clock=lambda: next(seconds)))

    assert shown.getvalue().splitlines() == [
        "undelivered: resending: 2 of 4 (50 %), 0/s, 10 s left",
        "undelivered: resending: 4 of 4 (100 %), 0/s, 0 s left",
    ]


def test_unacknowledged_messages_stay_with_the_new_reason(tmp_path: Path) -> None:
    world = World()
    world.publisher.fail("b", "still no leader")
    path = leave(tmp_path, "a", "b", "c")

    summary = world.resend(tmp_path)

    assert (summary.sent, summary.left) == (2, 1)
    assert keys_in(path) == ["b"]
    assert b"still no leader" in path.read_bytes()


def test_a_segment_in_use_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World()
    path = leave(tmp_path, "a")
    with locked_segment(path):
        summary = world.resend(tmp_path)

    assert keys_in(path) == ["a"]
    assert (summary.in_use, world.sent, summary.complete) == (1, [], False)
    assert "in use, skipped" in capsys.readouterr().out


def test_a_segment_that_a_producer_resends_meanwhile_is_not_counted(tmp_path: Path) -> None:
    path = leave(tmp_path, "a")

    class Meanwhile(Event):
        """Called after the segment was found and before it is opened."""

        def is_set(self) -> bool:
            path.unlink(missing_ok=True)
            return False

    world = World()
    world.stop = Meanwhile()

    summary = world.resend(tmp_path)

    assert (summary.in_use, summary.complete, world.sent) == (0, True, [])


def test_a_skipped_segment_that_no_longer_exists_is_not_counted(tmp_path: Path) -> None:
    summary = ResendSummary()

    summary.add(SegmentResult(tmp_path / "gone.jsonl", skipped=True))

    assert summary.complete


def test_an_unreadable_segment_is_reported_and_the_others_are_resent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World()
    leave(tmp_path, "b")
    unreadable = tmp_path / "a.jsonl"
    unreadable.symlink_to(unreadable)

    summary = world.resend(tmp_path)
    summary.add(SegmentResult(unreadable, skipped=True))
    listed = list_messages(tmp_path)

    printed = capsys.readouterr()
    assert (world.sent, summary.errors, summary.complete, listed) == (["b"], 2, False, 0)
    assert unreadable.name in printed.err
    assert "cannot be read" in printed.out


def test_a_truncated_last_line_is_moved_aside_and_the_others_are_resent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World()
    path = leave(tmp_path, "a", "b")
    truncated = to_line(failure(record("ü")), "data-topic", "when")[:-30]
    path.write_bytes(path.read_bytes() + truncated)

    summary = world.resend(tmp_path)

    corrupt = path.with_suffix(".corrupt")
    assert world.sent == ["a", "b"]
    assert (summary.sent, summary.corrupt) == (2, 1)
    assert corrupt.read_bytes() == truncated + b"\n"
    assert corrupt.name in capsys.readouterr().out


def test_rejected_messages_are_resent_too_and_those_of_another_topic_are_not(tmp_path: Path) -> None:
    world = World()
    UndeliveredFolder(tmp_path, "data-topic").append([DeliveryFailure(record("a"), Fault.PERMANENT, "too large")])
    other = leave(tmp_path, "b", topic="other-topic")

    summary = world.resend(tmp_path)

    assert (summary.sent, summary.left, world.sent) == (1, 1, ["a"])
    assert undelivered_keys(tmp_path) == keys_in(other) == ["b"]


def test_a_stop_leaves_the_rest_in_the_folder(tmp_path: Path) -> None:
    world = World(batch_size=2)
    path = leave(tmp_path, "a", "b", "c", "d", "e")
    world.publisher.on_poll = lambda: world.stop.set() if len(world.publisher.delivered) >= 2 else None

    world.resend(tmp_path)

    assert sorted(world.sent + keys_in(path)) == ["a", "b", "c", "d", "e"]
    assert "e" in keys_in(path)


def test_resending_stops_when_the_broker_is_unreachable(tmp_path: Path) -> None:
    world = World(batch_size=2)
    world.publisher.unavailable_reason = "broker down"
    for name in "ab":
        world.publisher.fail(name, "no leader")
    path = leave(tmp_path, *"abcdef")

    world.resend(tmp_path)

    assert keys_in(path) == list("abcdef")
    assert world.publisher.sizes == [2]


def test_special_characters_arrive_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = ProducerRecord(b"\xff", SPECIAL, [("h", None)])
    UndeliveredFolder(tmp_path, "data-topic").append([failure(message)])

    with EmbeddedBroker({"data-topic": 1}) as broker:
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.address)
        exit_code = main(["resend", "--dir", str(tmp_path)])
        arrived = first_records(broker.address, 1)

    assert exit_code == 0
    assert arrived == [message]
    assert list(tmp_path.iterdir()) == []


def test_resend_without_a_broker_exits_1_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("PRODUCER_DELIVERY_TIMEOUT_MS", "1000")
    monkeypatch.setenv("PRODUCER_MAX_RETRIES", "0")
    path = leave(tmp_path, "a")

    exit_code = main(["resend", "--dir", str(tmp_path)])

    assert exit_code == 1
    assert keys_in(path) == ["a"]


def test_list_prints_every_message_without_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = leave(tmp_path, "a")
    hostile = ProducerRecord(b"\x1b[31m", b"\r\n\x1b]0;title\x07" + "\u202e".encode() + b"x" * 500, [])
    path.write_bytes(
        path.read_bytes()
        + to_line(failure(hostile, "why\x1b"), "data-topic", "when")
        + to_line(failure(ProducerRecord(None, b"\xff", [])), "data-topic", "when")
        + b"truncated"
    )

    count = list_messages(tmp_path)

    printed = capsys.readouterr().out
    assert count == 4
    assert "key=a" in printed
    assert f"({len(hostile.value or b'')} bytes)" in printed
    assert "key=null  \\xff" in printed
    assert "line 4 is corrupt" in printed
    assert all(character.isprintable() or character == "\n" for character in printed)


def test_list_counts_corrupt_lines_that_were_moved_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.corrupt").write_bytes(b"{\n{\n")
    (tmp_path / "b.corrupt").symlink_to(tmp_path / "b.corrupt")

    count = list_messages(tmp_path)

    printed = capsys.readouterr().out
    assert count == 0
    assert "a.corrupt  2 corrupt lines, not resent" in printed
    assert "b.corrupt  (cannot be read" in printed


def test_list_marks_segments_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked_segment(leave(tmp_path, "a")):
        exit_code = main(["list", "--dir", str(tmp_path)])

    assert exit_code == 0
    assert "(in use)" in capsys.readouterr().out


def test_list_skips_segments_that_a_producer_resends_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(tmp_path, "a", host="one")
    later = leave(tmp_path, "b", host="two")

    class Printed(io.StringIO):
        def write(self, text: str) -> int:
            later.unlink(missing_ok=True)
            return super().write(text)

    monkeypatch.setattr("sys.stdout", Printed())

    assert list_messages(tmp_path) == 1


@pytest.mark.parametrize("command", ["list", "resend"])
def test_an_empty_folder_is_said_in_words(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = main([command, "--dir", str(tmp_path)])

    assert exit_code == 0
    assert capsys.readouterr() == ("", f"no undelivered messages in {tmp_path}\n")


def test_an_unreadable_segment_prints_one_line_and_exits_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").symlink_to("/proc/self/mem")

    exit_code = main(["list", "--dir", str(tmp_path)])

    assert exit_code == 1
    assert capsys.readouterr().err == "undelivered: [Errno 5] Input/output error\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["list", "--dir", "/no/such/folder"], "/no/such/folder"),
        (["list", "--config", "/no/such/file.json"], "/no/such/file.json"),
        (["resend", "--dir", "/dev/null/folder"], "/dev/null/folder"),
    ],
)
def test_a_wrong_path_prints_one_line_and_exits_2(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exit_code = main(arguments)

    printed = capsys.readouterr().err
    assert exit_code == 2
    assert text in printed
    assert printed.count("\n") == 1


def test_a_segment_that_cannot_be_rewritten_exits_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    path = leave(tmp_path, "a")
    before = path.read_bytes()
    path.with_name(f".{path.name}.new").mkdir()

    exit_code = main(["resend", "--dir", str(tmp_path)])

    assert exit_code == 1
    assert path.read_bytes() == before
    assert path.name in capsys.readouterr().err


def test_a_closed_output_pipe_is_silent(tmp_path: Path) -> None:
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
    assert (program.returncode, errors) == (141, b"")
