"""The undelivered folder: JSON lines, one segment a process, locked as long as that process lives.

So replicas may share a folder, and what a dead process left is known by its free lock. On Windows, which has no
`flock`, nothing is locked: send again only while no producer runs there.
"""

import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self

import msgspec

from src.errors import UndeliveredFileError
from src.message import Encoded, utc_text
from src.shipment import Failure
from src.utils.config import ConfigurationError

if sys.platform != "win32":
    import fcntl

SUFFIX = ".jsonl"
ASIDE = ".broken"  # beside a segment: lines of it that are no whole message, as they were found


class _Binary(msgspec.Struct):
    """Bytes that are not UTF-8 text, in JSON as `{"base64": "…"}`."""

    base64: bytes


_Content = str | _Binary | None


class Kept(msgspec.Struct):
    """One line: a message, where it was to go, and why it did not get there."""

    given_up_at: str
    reason: str
    topic: str
    key: _Content
    value: _Content
    headers: list[tuple[str, _Content]]

    @property
    def message(self) -> Encoded:
        headers = [(name, _bytes(content)) for name, content in self.headers]
        return Encoded(_bytes(self.key), _bytes(self.value), headers)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Kept).decode


def to_line(failure: Failure, topic: str, given_up_at: str) -> bytes:
    key, value, headers = failure.message
    pairs = [(name, _content(content)) for name, content in headers]
    return _encode(Kept(given_up_at, failure.reason, topic, _content(key), _content(value), pairs)) + b"\n"


def from_line(line: bytes) -> Kept | None:
    """What a line holds; None where it was torn by a crash, or by somebody's editor."""
    try:
        return _decode(line) if line.endswith(b"\n") else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class Undelivered:
    """This process's segment. It is made with the first message that is given up, but the folder is tried at once.

    Raises ConfigurationError where nothing can be written there.
    """

    def __init__(
        self,
        folder: Path,
        topic: str,
        *,
        clock: Callable[[], float] = time.time,
        host: str | None = None,
    ) -> None:
        self._folder = folder
        self._topic = topic
        self._clock = clock
        self._host = host or socket.gethostname()
        self._file: BinaryIO | None = None
        self._counts: dict[Path, tuple[tuple[int, int], int]] = {}
        prove_writable(folder)

    def keep(self, failures: Sequence[Failure]) -> None:
        """All of these are on the disk when this returns, or none is. Raises UndeliveredFileError."""
        now = utc_text(self._clock())
        lines = b"".join(to_line(failure, self._topic, now) for failure in failures)
        try:
            self._file = self._file or self._open()
            _append(self._file, lines)
        except OSError as error:
            raise UndeliveredFileError(f"{self._folder}: {error.strerror or error}") from error

    def count(self) -> int:
        """Messages in the folder, those of other processes too."""
        return sum(self._count(path) for path in segments(self._folder))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self) -> BinaryIO:
        started = utc_text(self._clock()).replace(":", "").replace("-", "")
        return _create_locked(self._folder / f"{self._host}-{started}-{os.getpid()}{SUFFIX}")

    def _count(self, path: Path) -> int:
        with suppress(FileNotFoundError):  # sent again meanwhile
            state = path.stat()
            version = (state.st_size, state.st_mtime_ns)
            if self._counts.get(path, (None, 0))[0] != version:
                self._counts[path] = (version, _count_lines(path))
            return self._counts[path][1]
        return 0


def prove_writable(folder: Path) -> None:
    """Make the folder, and a file in it for a moment: better to fail at the start than at the first lost message."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise ConfigurationError(
            f"producer.undelivered_dir: cannot write into {str(folder)!r}: {reason};"
            " make it writable, or set PRODUCER_UNDELIVERED_DIR"
        ) from error


def segments(folder: Path) -> list[Path]:
    """The segments in the folder, by host and time."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("."))


@contextmanager
def taken(path: Path) -> Iterator[BinaryIO | None]:
    """The segment, ours alone while the block runs; None where its process lives, or somebody else has taken it."""
    try:
        segment = path.open("rb")
    except FileNotFoundError:
        yield None
        return
    with segment:
        yield segment if _lock(segment) and _is_at(path, segment) else None


class Remainder:
    """What stays of a segment that is taken: it takes the segment's place, at once and whole, when the block ends
    without an error.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.lines = 0
        self._path = path
        self._clock = clock
        self._new = path.with_name(f".{path.name}.new")
        self.aside = path.with_suffix(ASIDE)

    def __enter__(self) -> Self:
        self._file = self._new.open("wb")
        _lock(self._file)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._file:
            if kind is None and self.lines:
                _sync(self._file)
                self._new.replace(self._path)
            else:
                self._new.unlink()
                if kind is None:
                    self._path.unlink()
        _sync_folder(self._path.parent)

    def add(self, line: bytes) -> None:
        self._file.write(line)
        self.lines += 1

    def put_aside(self, line: bytes) -> None:
        """Keep what is no message where it is in nobody's way."""
        with self.aside.open("ab") as file:
            file.write(line if line.endswith(b"\n") else line + b"\n")
            _sync(file)


def _create_locked(path: Path) -> BinaryIO:
    """A new file that nobody can see before it is locked: it gets its name last."""
    hidden = path.with_name(f".{path.name}.new")
    file = hidden.open("xb", buffering=0)
    try:
        _lock(file)
        hidden.rename(path)
    except OSError:
        file.close()
        hidden.unlink()
        raise
    _sync_folder(path.parent)
    return file


def _append(file: BinaryIO, lines: bytes) -> None:
    """Write and sync; after a failure nothing of it is left to be glued to what comes next."""
    good = file.tell()
    try:
        _write_all(file, lines)
        _sync(file)
    except OSError:
        file.truncate(good)
        file.seek(good)
        raise


def _write_all(file: BinaryIO, lines: bytes) -> None:
    rest = memoryview(lines)
    while rest:
        rest = rest[file.write(rest) :]


def _lock(file: BinaryIO) -> bool:
    """Whether the lock is ours now; it is let go when the file is closed, however the process ends."""
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _is_at(path: Path, file: BinaryIO) -> bool:
    """Whether the path still names this file, and not the one that took its place before we had the lock."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """So that a file's name is on the disk as well."""
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _content(content: bytes | None) -> _Content:
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return _Binary(content)


def _bytes(content: _Content) -> bytes | None:
    if content is None:
        return None
    return content.base64 if isinstance(content, _Binary) else content.encode()
