"""Segments: the files of the undelivered folder, each locked by the process that writes or resends it.

Replicas may therefore share a folder, and the segments of a dead process are recognized by their free lock. Windows has
no `flock`, so nothing is locked there: resend only while no producer runs.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self

from src.undelivered.files import is_at, open_for_locking, sync, sync_folder
from src.utils.locking import lock

SUFFIX = ".jsonl"
CORRUPT_SUFFIX = ".corrupt"  # beside a segment: its corrupt lines, unchanged
CORRUPT_SUFFIXES = frozenset({CORRUPT_SUFFIX, ".broken"})  # the second one is that of version 1.0.0


def segment_paths(folder: Path) -> list[Path]:
    """The segments in the folder, by host and time; none where the folder does not exist. Raises OSError."""
    return _paths(folder, {SUFFIX})


def corrupt_lines_paths(folder: Path) -> list[Path]:
    """The files of corrupt lines in the folder. Raises OSError."""
    return _paths(folder, CORRUPT_SUFFIXES)


def _paths(folder: Path, suffixes: Collection[str]) -> list[Path]:
    with suppress(FileNotFoundError):
        return sorted(path for path in folder.iterdir() if path.suffix in suffixes and not path.name.startswith("."))
    return []


@contextmanager
def locked_segment(path: Path) -> Iterator[BinaryIO | None]:
    """The segment, locked while the block runs; None where another process has it, or it no longer exists."""
    try:
        segment = open_for_locking(path)
    except FileNotFoundError:
        yield None
        return
    with segment:
        yield segment if lock(segment) and is_at(path, segment) else None


def corrupt_lines_path(segment: Path) -> Path:
    return segment.with_suffix(CORRUPT_SUFFIX)


class SegmentRewrite:
    """Replaces a locked segment by the lines that remain, atomically, when the block ends without an error."""

    def __init__(self, path: Path) -> None:
        self.lines = 0
        self.corrupt = 0
        self._path = path
        self._new = path.with_name(f".{path.name}.new")

    def __enter__(self) -> Self:
        self._file = self._new.open("wb")
        lock(self._file)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._replace()
        finally:
            self._new.unlink(missing_ok=True)
            self._file.close()

    def _replace(self) -> None:
        if self.lines:
            sync(self._file)
            self._new.replace(self._path)
        else:
            self._path.unlink()
        sync_folder(self._path.parent)

    def add(self, line: bytes) -> None:
        self._file.write(line)
        self.lines += 1

    def add_corrupt(self, line: bytes) -> None:
        """Move a corrupt line into a file of its own, at once."""
        with corrupt_lines_path(self._path).open("ab") as file:
            file.write(line if line.endswith(b"\n") else line + b"\n")
            sync(file)
        self.corrupt += 1
