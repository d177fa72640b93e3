"""Files that several processes may share: locked, and written completely and synced, or left unchanged."""

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from src.utils.locking import lock

LINES_PER_WRITE = 1000

Version = tuple[int, int]


def create_locked(path: Path) -> BinaryIO | None:
    """A new file, locked; None where the file exists, or another process took it before it was locked."""
    try:
        file = path.open("xb", buffering=0)
    except FileExistsError:
        return None
    if not (lock(file) and is_at(path, file)):
        file.close()
        return None
    sync_folder(path.parent)
    return file


def open_for_locking(path: Path) -> BinaryIO:
    """Opened for writing, which NFS requires for a lock; read-only where writing is not permitted."""
    try:
        return path.open("r+b")
    except OSError:
        return path.open("rb")


def is_at(path: Path, file: BinaryIO) -> bool:
    """Whether the path still names this file, rather than one that replaced it before it was locked."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def is_gone(path: Path) -> bool:
    """Whether the file certainly does not exist; one that cannot be accessed may exist."""
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False


def version_of(path: Path) -> Version:
    """Changes whenever the file is written. Raises OSError."""
    return version(path.stat())


def version(state: os.stat_result) -> Version:
    return (state.st_size, state.st_mtime_ns)


def append(file: BinaryIO, lines: Iterator[bytes]) -> None:
    """Write and sync; a failed write is undone."""
    end = file.tell()
    try:
        for block in iter(lambda: b"".join(itertools.islice(lines, LINES_PER_WRITE)), b""):
            _write_all(file, block)
        sync(file)
    except OSError:
        file.truncate(end)
        file.seek(end)
        raise


def ends_with_newline(file: BinaryIO) -> bool:
    """False where a failed write could not be undone and left a partial line. Moves to the end of the file."""
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
    """Makes the names of new and renamed files durable."""
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
