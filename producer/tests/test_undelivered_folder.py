"""The undelivered folder: segments per process, the format of a line, and atomic rewrites."""

import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.model.delivery_failure import DeliveryFailure, Fault
from src.model.errors import UndeliveredStoreError
from src.model.message import ProducerRecord
from src.undelivered.files import count_lines, is_at
from src.undelivered.folder import MAX_SEGMENT_BYTES, UndeliveredFolder
from src.undelivered.record import from_line, to_line
from src.undelivered.segments import SegmentRewrite, locked_segment, segment_paths
from src.utils.config import ConfigurationError
from tests.fakes import record

NOON = 1_689_424_496.789
CONTENT = st.none() | st.binary() | st.text().map(str.encode)


def failure(name: str = "a", reason: str = "no leader") -> DeliveryFailure:
    return DeliveryFailure(record(name), Fault.TRANSIENT, reason)


class OpenFolder(Protocol):
    def __call__(self, folder: Path, host: str = "h") -> UndeliveredFolder: ...


@pytest.fixture
def open_folder() -> OpenFolder:
    """Folders as different processes see them."""

    def open_one(folder: Path, host: str = "h") -> UndeliveredFolder:
        return UndeliveredFolder(folder, "t", clock=lambda: NOON, host=host)

    return open_one


@given(CONTENT, CONTENT, st.lists(st.tuples(st.text(), CONTENT)))
def test_a_record_survives_serialization_byte_for_byte(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    original = ProducerRecord(key, value, headers)

    line = to_line(DeliveryFailure(original, Fault.TRANSIENT, "why"), "t", "when")
    undelivered = from_line(line)

    assert undelivered is not None
    assert undelivered.producer_record == original
    assert (undelivered.topic, undelivered.reason, undelivered.failed_at) == ("t", "why", "when")
    assert line.count(b"\n") == 1


def test_a_line_is_readable_json_with_time_and_reason(tmp_path: Path, open_folder: OpenFolder) -> None:
    folder = open_folder(tmp_path)

    folder.append(
        [
            DeliveryFailure(
                ProducerRecord(b"k", b'{"id":"\xe2\x80\xa8"}', [("h", b"\xff")]), Fault.TRANSIENT, "no leader"
            )
        ]
    )

    assert json.loads(segment_paths(tmp_path)[0].read_bytes()) == {
        "given_up_at": "2023-07-15T12:34:56.789Z",
        "reason": "no leader",
        "topic": "t",
        "key": "k",
        "value": '{"id":"\u2028"}',
        "headers": [["h", {"base64": "/w=="}]],
    }


def test_a_segment_is_named_by_host_and_time_and_created_with_the_first_message(
    tmp_path: Path, open_folder: OpenFolder
) -> None:
    folder = open_folder(tmp_path)
    before = segment_paths(tmp_path)

    folder.append([failure("a")])
    folder.append([failure("b")])

    assert before == []
    assert [path.name for path in segment_paths(tmp_path)] == [f"h-20230715T123456.789Z-{os.getpid()}-1.jsonl"]
    assert folder.count() == 2


def test_processes_that_share_a_folder_have_separate_segments(tmp_path: Path, open_folder: OpenFolder) -> None:
    one, two = open_folder(tmp_path, "one"), open_folder(tmp_path, "two")

    one.append([failure("a")])
    two.append([failure("b"), failure("c")])

    assert len(segment_paths(tmp_path)) == 2
    assert one.count() == two.count() == 3


def test_a_segment_is_locked_by_one_process_and_free_between_two_writes(
    tmp_path: Path, open_folder: OpenFolder
) -> None:
    open_folder(tmp_path).append([failure()])
    (path,) = segment_paths(tmp_path)

    with locked_segment(path) as first, locked_segment(path) as second:
        assert first is not None

    assert second is None


def test_a_locked_segment_is_not_appended_to(tmp_path: Path, open_folder: OpenFolder) -> None:
    folder = open_folder(tmp_path)
    folder.append([failure("a")])
    with locked_segment(segment_paths(tmp_path)[0]):
        folder.append([failure("b")])
    folder.append([failure("c")])

    assert [count_lines(path) for path in segment_paths(tmp_path)] == [1, 2]
    assert len(folder.own) == 2
    assert folder.count_own() == 3


def test_after_a_segment_was_deleted_another_is_created(tmp_path: Path, open_folder: OpenFolder) -> None:
    folder = open_folder(tmp_path)
    folder.append([failure("a")])
    (path,) = segment_paths(tmp_path)
    path.unlink()

    folder.append([failure("b")])

    assert folder.count_own() == 1


def test_a_full_segment_is_not_appended_to(tmp_path: Path, open_folder: OpenFolder) -> None:
    folder = open_folder(tmp_path)
    folder.append([DeliveryFailure(record("a", size=MAX_SEGMENT_BYTES), Fault.TRANSIENT, "no leader")])

    folder.append([failure("b")])

    assert len(segment_paths(tmp_path)) == 2


def test_only_a_permanent_failure_is_marked_as_rejected(tmp_path: Path, open_folder: OpenFolder) -> None:
    open_folder(tmp_path).append([DeliveryFailure(record("a"), Fault.PERMANENT, "too large"), failure("b")])

    lines = segment_paths(tmp_path)[0].read_bytes().splitlines(keepends=True)

    assert [stored.rejected for line in lines if (stored := from_line(line))] == [True, False]


def test_a_segment_that_does_not_exist_is_not_locked(tmp_path: Path) -> None:
    with locked_segment(tmp_path / "gone.jsonl") as gone:
        pass

    assert gone is None


def test_a_segment_with_a_partial_line_is_not_appended_to(tmp_path: Path, open_folder: OpenFolder) -> None:
    folder = open_folder(tmp_path)
    folder.append([failure("a")])
    (path,) = segment_paths(tmp_path)
    path.write_bytes(path.read_bytes() + b'{"given_up_at":')  # a failed write that could not be undone

    folder.append([failure("b")])

    lines = [line for path in segment_paths(tmp_path) for line in path.read_bytes().splitlines(keepends=True)]
    assert [stored.producer_record.key for line in lines if (stored := from_line(line))] == [b"a", b"b"]


def test_a_segment_that_cannot_be_opened_is_replaced_by_another(tmp_path: Path, open_folder: OpenFolder) -> None:
    folder = open_folder(tmp_path)
    folder.append([failure("a")])
    (path,) = segment_paths(tmp_path)
    path.unlink()
    path.symlink_to(path)

    folder.append([failure("b")])

    assert folder.count() == 2  # the last known number of the unreadable one


def test_a_deleted_folder_raises_an_error(tmp_path: Path, open_folder: OpenFolder) -> None:
    folder = open_folder(tmp_path / "undelivered")
    folder.path.rmdir()

    with pytest.raises(UndeliveredStoreError, match="No such file"):
        folder.append([failure()])


@pytest.mark.parametrize("place", ["a-file/undelivered", "nul\0name"])
def test_a_folder_that_cannot_be_written_is_a_configuration_error(
    tmp_path: Path, open_folder: OpenFolder, place: str
) -> None:
    (tmp_path / "a-file").touch()

    with pytest.raises(ConfigurationError, match=r"cannot write into .*PRODUCER_UNDELIVERED_DIR"):
        open_folder(tmp_path / place)


def test_a_folder_without_file_locks_is_a_configuration_error(
    tmp_path: Path, open_folder: OpenFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)

    with pytest.raises(ConfigurationError, match="No locks available"):
        open_folder(tmp_path)


def test_a_locked_segment_is_open_for_writing_as_nfs_requires(tmp_path: Path, open_folder: OpenFolder) -> None:
    open_folder(tmp_path).append([failure()])

    with locked_segment(segment_paths(tmp_path)[0]) as segment:
        assert segment is not None
        assert segment.writable()


def test_two_processes_never_create_the_same_segment(tmp_path: Path, open_folder: OpenFolder) -> None:
    one, two = open_folder(tmp_path), open_folder(tmp_path)

    one.append([failure("a")])
    two.append([failure("b")])

    assert (one.count_own(), two.count_own(), one.count()) == (1, 1, 2)


def test_an_unreadable_segment_does_not_prevent_counting_the_others(tmp_path: Path, open_folder: OpenFolder) -> None:
    folder = open_folder(tmp_path)
    folder.append([failure("a")])
    unreadable = tmp_path / "other.jsonl"
    unreadable.symlink_to(unreadable)

    assert (folder.count(), folder.count_own()) == (1, 1)


def test_the_count_follows_changes_by_other_processes(tmp_path: Path, open_folder: OpenFolder) -> None:
    folder = open_folder(tmp_path)
    other = tmp_path / "other.jsonl"
    other.write_bytes(b"{}\n{}\n")
    two = folder.count()
    other.write_bytes(b"{}\n")
    one = folder.count()
    other.unlink()

    assert (two, one, folder.count()) == (2, 1, 0)


def test_a_segment_of_an_earlier_process_is_counted(tmp_path: Path) -> None:
    (tmp_path / "undelivered").mkdir()
    (tmp_path / "undelivered" / "dead.jsonl").write_bytes(b"{}\n")

    assert UndeliveredFolder(tmp_path / "undelivered", "t").count() == 1


@pytest.mark.parametrize("line", [b"", b"{}\n", b"\xff\n", b'{"given_up_at":"x\n', b'["a"]\n'])
def test_a_corrupt_line_is_none(line: bytes) -> None:
    assert from_line(line) is None


def test_a_truncated_line_is_none() -> None:
    line = to_line(failure("ü"), "t", "when")

    assert [from_line(line[:length]) for length in range(len(line))] == [None] * len(line)


def test_the_rewrite_replaces_the_segment(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(b"1\n2\n")

    with SegmentRewrite(path) as remainder:
        remainder.add(b"2\n")

    assert path.read_bytes() == b"2\n"
    assert [found.name for found in tmp_path.iterdir()] == ["s.jsonl"]


def test_an_empty_rewrite_deletes_the_segment(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.touch()

    with SegmentRewrite(path):
        pass

    assert list(tmp_path.iterdir()) == []


def test_after_an_error_the_segment_is_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(b"1\n2\n")

    with suppress(ZeroDivisionError), SegmentRewrite(path) as remainder:
        remainder.add(b"2\n")
        raise ZeroDivisionError

    assert path.read_bytes() == b"1\n2\n"
    assert [found.name for found in tmp_path.iterdir()] == ["s.jsonl"]


def test_a_replaced_file_is_no_longer_at_its_path(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.touch()
    with path.open("rb") as opened:
        own = is_at(path, opened)
        path.unlink()
        gone = is_at(path, opened)
        path.touch()
        replaced = is_at(path, opened)

    assert (own, gone, replaced) == (True, False, False)
