"""Files that several processes may share: locked, written whole and synced, or left as they were."""

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from src.utils.locking import lock

WRITTEN_AT_ONCE = 1000  # lines

Version = tuple[int, int]


def created(path: Path) -> BinaryIO | None:
    """A new file, locked; None where there is one of that name, or somebody took it before we had the lock."""
    try:
        file = path.open("xb", buffering=0)
    except FileExistsError:
        return None
    if not (lock(file) and is_at(path, file)):
        file.close()
        return None
    sync_folder(path.parent)
    return file


def opened(path: Path) -> BinaryIO:
    """For writing too, for NFS locks nothing else; where that is not allowed, a local disk locks what is read."""
    try:
        return path.open("r+b")
    except OSError:
        return path.open("rb")


def is_at(path: Path, file: BinaryIO) -> bool:
    """Whether the path still names this file, and not the one that took its place before we had the lock."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def is_gone(path: Path) -> bool:
    """Whether there is no such file for certain; what a disk or a right keeps from us is still there."""
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False


def version_of(path: Path) -> Version:
    """Another whenever something was written. Raises OSError."""
    return version(path.stat())


def version(state: os.stat_result) -> Version:
    return (state.st_size, state.st_mtime_ns)


def append(file: BinaryIO, lines: Iterator[bytes]) -> None:
    """Write and sync; after a failure it is undone."""
    good = file.tell()
    try:
        for block in iter(lambda: b"".join(itertools.islice(lines, WRITTEN_AT_ONCE)), b""):
            _write_all(file, block)
        sync(file)
    except OSError:
        file.truncate(good)
        file.seek(good)
        raise


def is_whole(file: BinaryIO) -> bool:
    """Whether it does not end in half a line, which a failed write leaves where it can't be undone. It is at its end
    afterwards.
    """
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _write_all(file: BinaryIO, lines: bytes) -> None:
    rest = memoryview(lines)
    while rest:
        rest = rest[file.write(rest) :]


def sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """So that a file's name is on the disk as well."""
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def lines_in(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
