"""What was given up is kept whole, each process in a file of its own."""

import errno
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.kafka.produce_request import Failure, Fault
from src.model.errors import UndeliveredFileError
from src.model.message import Encoded
from src.undelivered.files import is_at, lines_in
from src.undelivered.segments import (
    SEGMENT_BYTES,
    SegmentRewrite,
    Undelivered,
    from_line,
    segments,
    taken,
    to_line,
)
from src.utils.config import ConfigurationError
from tests.fakes import encoded

NOON = 1_689_424_496.789
CONTENT = st.none() | st.binary() | st.text().map(str.encode)


def failure(name: str = "a", reason: str = "no leader") -> Failure:
    return Failure(encoded(name), Fault.WORLD, reason)


class Opening(Protocol):
    def __call__(self, folder: Path, host: str = "h") -> Undelivered: ...


@pytest.fixture
def undelivered() -> Opening:
    """Processes that keep at noon."""

    def open_one(folder: Path, host: str = "h") -> Undelivered:
        return Undelivered(folder, "t", clock=lambda: NOON, host=host)

    return open_one


@contextmanager
def no_file_may_grow_beyond(size: int) -> Iterator[None]:
    """What a full disk looks like, near enough."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@given(CONTENT, CONTENT, st.lists(st.tuples(st.text(), CONTENT)))
def test_a_kept_message_comes_back_byte_for_byte(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    message = Encoded(key, value, headers)

    line = to_line(Failure(message, Fault.WORLD, "why"), "t", "when")
    kept = from_line(line)

    assert kept is not None
    assert kept.message == message
    assert (kept.topic, kept.reason, kept.given_up_at) == ("t", "why", "when")
    assert line.count(b"\n") == 1


def test_a_line_is_readable_and_says_when_and_why(tmp_path: Path, undelivered: Opening) -> None:
    kept = undelivered(tmp_path)

    kept.keep([Failure(Encoded(b"k", b'{"id":"\xe2\x80\xa8"}', [("h", b"\xff")]), Fault.WORLD, "no leader")])

    assert json.loads(segments(tmp_path)[0].read_bytes()) == {
        "given_up_at": "2023-07-15T12:34:56.789Z",
        "reason": "no leader",
        "topic": "t",
        "key": "k",
        "value": '{"id":"\u2028"}',
        "headers": [["h", {"base64": "/w=="}]],
    }


def test_a_segment_is_named_by_host_and_time_and_made_with_the_first_message(
    tmp_path: Path, undelivered: Opening
) -> None:
    kept = undelivered(tmp_path)
    before = segments(tmp_path)

    kept.keep([failure("a")])
    kept.keep([failure("b")])

    assert before == []
    assert [path.name for path in segments(tmp_path)] == [f"h-20230715T123456.789Z-{os.getpid()}-1.jsonl"]
    assert kept.count() == 2


def test_processes_that_share_a_folder_have_a_segment_each(tmp_path: Path, undelivered: Opening) -> None:
    one, two = undelivered(tmp_path, "one"), undelivered(tmp_path, "two")

    one.keep([failure("a")])
    two.keep([failure("b"), failure("c")])

    assert len(segments(tmp_path)) == 2
    assert one.count() == two.count() == 3


def test_a_segment_is_one_s_alone_as_long_as_it_is_taken_and_free_between_two_writes(
    tmp_path: Path, undelivered: Opening
) -> None:
    undelivered(tmp_path).keep([failure()])
    (path,) = segments(tmp_path)

    with taken(path) as first, taken(path) as second:
        assert first is not None

    assert second is None


def test_what_is_kept_while_somebody_sends_the_segment_goes_into_another(tmp_path: Path, undelivered: Opening) -> None:
    kept = undelivered(tmp_path)
    kept.keep([failure("a")])
    with taken(segments(tmp_path)[0]):
        kept.keep([failure("b")])
    kept.keep([failure("c")])

    assert [lines_in(path) for path in segments(tmp_path)] == [1, 2]
    assert len(kept.own) == 2
    assert kept.left() == 3


def test_what_is_kept_after_the_segment_was_sent_goes_into_another(tmp_path: Path, undelivered: Opening) -> None:
    kept = undelivered(tmp_path)
    kept.keep([failure("a")])
    (path,) = segments(tmp_path)
    path.unlink()

    kept.keep([failure("b")])

    assert kept.left() == 1


def test_a_long_segment_is_not_written_on(tmp_path: Path, undelivered: Opening) -> None:
    kept = undelivered(tmp_path)
    kept.keep([Failure(encoded("a", size=SEGMENT_BYTES), Fault.WORLD, "no leader")])

    kept.keep([failure("b")])

    assert len(segments(tmp_path)) == 2


def test_a_message_that_was_refused_is_marked_and_another_is_not(tmp_path: Path, undelivered: Opening) -> None:
    undelivered(tmp_path).keep([Failure(encoded("a"), Fault.MESSAGE, "too large"), failure("b")])

    lines = segments(tmp_path)[0].read_bytes().splitlines(keepends=True)

    assert [kept.refused for line in lines if (kept := from_line(line))] == [True, False]


def test_a_segment_that_is_gone_or_was_replaced_is_not_taken(tmp_path: Path) -> None:
    with taken(tmp_path / "gone.jsonl") as gone:
        pass

    assert gone is None


def test_a_full_disk_is_an_error_and_leaves_no_half_line(tmp_path: Path, undelivered: Opening) -> None:
    kept = undelivered(tmp_path)
    kept.keep([failure("a")])
    (path,) = segments(tmp_path)
    size = path.stat().st_size

    with no_file_may_grow_beyond(size + 20), pytest.raises(UndeliveredFileError, match="File too large"):
        kept.keep([failure("b")])
    after_failure = path.stat().st_size
    kept.keep([failure("c")])

    assert after_failure == size
    lines = path.read_bytes().splitlines(keepends=True)
    assert [found.message.key for line in lines if (found := from_line(line))] == [b"a", b"c"]


def test_what_is_kept_after_half_a_line_goes_into_another_segment(tmp_path: Path, undelivered: Opening) -> None:
    kept = undelivered(tmp_path)
    kept.keep([failure("a")])
    (path,) = segments(tmp_path)
    path.write_bytes(path.read_bytes() + b'{"given_up_at":')  # a write that failed, and could not be undone

    kept.keep([failure("b")])

    lines = [line for path in segments(tmp_path) for line in path.read_bytes().splitlines(keepends=True)]
    assert [found.message.key for line in lines if (found := from_line(line))] == [b"a", b"b"]


def test_where_a_segment_cannot_be_opened_another_is_written(tmp_path: Path, undelivered: Opening) -> None:
    kept = undelivered(tmp_path)
    kept.keep([failure("a")])
    (path,) = segments(tmp_path)
    path.unlink()
    path.symlink_to(path)

    kept.keep([failure("b")])

    assert kept.count() == 2  # that one is still thought to be there


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path, undelivered: Opening) -> None:
    folder = tmp_path / "undelivered"
    kept = undelivered(folder)
    folder.rmdir()

    with pytest.raises(UndeliveredFileError, match="No such file"):
        kept.keep([failure()])


@pytest.mark.parametrize("place", ["a-file/undelivered", "nul\0name"])
def test_a_folder_that_cannot_be_written_is_a_wrong_setting(tmp_path: Path, undelivered: Opening, place: str) -> None:
    (tmp_path / "a-file").touch()

    with pytest.raises(ConfigurationError, match=r"cannot write into .*PRODUCER_UNDELIVERED_DIR"):
        undelivered(tmp_path / place)


def test_a_folder_where_nothing_can_be_locked_is_a_wrong_setting(
    tmp_path: Path, undelivered: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)

    with pytest.raises(ConfigurationError, match="No locks available"):
        undelivered(tmp_path)


def test_a_segment_is_taken_as_nfs_wants_it_open_for_writing(tmp_path: Path, undelivered: Opening) -> None:
    undelivered(tmp_path).keep([failure()])

    with taken(segments(tmp_path)[0]) as segment:
        assert segment is not None
        assert segment.writable()


def test_two_at_the_same_moment_do_not_share_a_segment(tmp_path: Path, undelivered: Opening) -> None:
    one, two = undelivered(tmp_path), undelivered(tmp_path)

    one.keep([failure("a")])
    two.keep([failure("b")])

    assert (one.left(), two.left(), one.count()) == (1, 1, 2)


def test_the_count_goes_on_where_one_segment_cannot_be_read(tmp_path: Path, undelivered: Opening) -> None:
    kept = undelivered(tmp_path)
    kept.keep([failure("a")])
    unreadable = tmp_path / "other.jsonl"
    unreadable.symlink_to(unreadable)

    assert (kept.count(), kept.left()) == (1, 1)


def test_the_count_follows_what_others_do_in_the_folder(tmp_path: Path, undelivered: Opening) -> None:
    kept = undelivered(tmp_path)
    other = tmp_path / "other.jsonl"
    other.write_bytes(b"{}\n{}\n")
    two = kept.count()
    other.write_bytes(b"{}\n")
    one = kept.count()
    other.unlink()

    assert (two, one, kept.count()) == (2, 1, 0)


@pytest.mark.parametrize("line", [b"", b"{}\n", b"\xff\n", b'{"given_up_at":"x\n', b'["a"]\n'])
def test_a_line_that_is_no_whole_message_is_none(line: bytes) -> None:
    assert from_line(line) is None


def test_a_line_cut_anywhere_is_none() -> None:
    line = to_line(failure("ü"), "t", "when")

    assert [from_line(line[:length]) for length in range(len(line))] == [None] * len(line)


def test_what_remains_takes_the_segments_place(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(b"1\n2\n")

    with SegmentRewrite(path) as remainder:
        remainder.add(b"2\n")

    assert path.read_bytes() == b"2\n"
    assert [found.name for found in tmp_path.iterdir()] == ["s.jsonl"]


def test_where_nothing_remains_the_segment_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.touch()

    with SegmentRewrite(path):
        pass

    assert list(tmp_path.iterdir()) == []


def test_after_an_error_the_segment_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(b"1\n2\n")

    with suppress(ZeroDivisionError), SegmentRewrite(path) as remainder:
        remainder.add(b"2\n")
        raise ZeroDivisionError

    assert path.read_bytes() == b"1\n2\n"
    assert [found.name for found in tmp_path.iterdir()] == ["s.jsonl"]


def test_a_file_whose_path_names_another_by_now_is_not_the_segment(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.touch()
    with path.open("rb") as opened:
        ours = is_at(path, opened)
        path.unlink()
        gone = is_at(path, opened)
        path.touch()
        replaced = is_at(path, opened)

    assert (ours, gone, replaced) == (True, False, False)
