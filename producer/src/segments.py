"""The undelivered folder: JSON lines in segments, each locked by who writes it or sends it, as long as that takes.

So replicas may share a folder, and what a dead process left is known by its free lock. On Windows, which has no
`flock`, nothing is locked: send again only while no producer runs there.
"""

import itertools
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
from src.shipment import Failure, Fault
from src.utils.config import ConfigurationError

if sys.platform != "win32":
    import fcntl

LOCKS = sys.platform != "win32"
SUFFIX = ".jsonl"
ASIDE = ".broken"  # beside a segment: lines of it that are no whole message, as they were found
SEGMENT_BYTES = 8 * 1024 * 1024  # a segment that has these is not written on
WRITTEN_AT_ONCE = 1000  # lines


class _Binary(msgspec.Struct):
    """Bytes that are not UTF-8 text, in JSON as `{"base64": "…"}`."""

    base64: bytes


_Content = str | _Binary | None
Version = tuple[int, int]


class Kept(msgspec.Struct, omit_defaults=True):
    """One line: a message, where it was to go, and why it did not get there."""

    given_up_at: str
    reason: str
    topic: str
    key: _Content
    value: _Content
    headers: list[tuple[str, _Content]]
    refused: bool = False
    """It is the message's own fault; to send it again helps only after somebody has changed something."""

    @property
    def message(self) -> Encoded:
        headers = [(name, _bytes(content)) for name, content in self.headers]
        return Encoded(_bytes(self.key), _bytes(self.value), headers)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Kept).decode


def to_line(failure: Failure, topic: str, given_up_at: str) -> bytes:
    key, value, headers = failure.message
    pairs = [(name, _content(content)) for name, content in headers]
    refused = failure.fault is Fault.MESSAGE
    return _encode(Kept(given_up_at, failure.reason, topic, _content(key), _content(value), pairs, refused)) + b"\n"


def from_line(line: bytes) -> Kept | None:
    """What a line holds; None where it was torn by a crash, or by somebody's editor."""
    try:
        return _decode(line) if line.endswith(b"\n") else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class Undelivered:
    """This process's segments. One is made when a message is given up, but the folder is tried at once.

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
        self.folder = folder
        self.topic = topic
        self._clock = clock
        self._host = host or socket.gethostname()
        self._own: list[Path] = []
        self._made = 0
        self._counts: dict[Path, tuple[Version, int]] = {}
        prove_writable(folder)

    def keep(self, failures: Sequence[Failure]) -> None:
        """All of these are on the disk when this returns, or none is. Raises UndeliveredFileError."""
        now = utc_text(self._clock())
        try:
            with self._last_segment() or self._new_segment() as segment:
                _append(segment, (to_line(failure, self.topic, now) for failure in failures))
        except OSError as error:
            raise UndeliveredFileError(f"{self.folder}: {error.strerror or error}") from error

    def count(self) -> int:
        """Messages in the folder, those of other processes too."""
        return sum(self._count(path) for path in segments(self.folder))

    @property
    def own(self) -> list[Path]:
        """The segments of this process that are still there."""
        self._own = [path for path in self._own if path.exists()]
        return list(self._own)

    def left(self) -> int:
        """Messages that this process has kept and nobody has sent yet."""
        return sum(self._count(path) for path in self.own)

    def _last_segment(self) -> BinaryIO | None:
        """The one written last, unless it is full, or being sent, or was."""
        if not self._own:
            return None
        try:
            segment = self._own[-1].open("r+b", buffering=0)
        except FileNotFoundError:
            return None
        if _lock(segment) and _is_at(self._own[-1], segment) and segment.seek(0, os.SEEK_END) < SEGMENT_BYTES:
            return segment
        segment.close()
        return None

    def _new_segment(self) -> BinaryIO:
        made = utc_text(self._clock()).replace(":", "").replace("-", "")
        while True:
            self._made += 1
            path = self.folder / f"{self._host}-{made}-{os.getpid()}-{self._made}{SUFFIX}"
            if segment := _created(path):
                self._own = [*self.own, path]
                return segment

    def _count(self, path: Path) -> int:
        with suppress(FileNotFoundError):  # sent again meanwhile
            version = version_of(path)
            known, count = self._counts.get(path, (None, 0))
            if known != version:
                count = lines_in(path)
                self._counts[path] = (version, count)
            return count
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


def version_of(path: Path) -> Version:
    """Another whenever something was written. Raises FileNotFoundError."""
    state = path.stat()
    return (state.st_size, state.st_mtime_ns)


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


def aside(path: Path) -> Path:
    """Where the broken lines of a segment go."""
    return path.with_suffix(ASIDE)


class Remainder:
    """What stays of a segment that is taken: it takes the segment's place, at once and whole, when the block ends
    without an error.
    """

    def __init__(self, path: Path) -> None:
        self.lines = 0
        self.broken = 0
        self._path = path
        self._new = path.with_name(f".{path.name}.new")

    def __enter__(self) -> Self:
        self._file = self._new.open("wb")
        _lock(self._file)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._take_place()
        finally:
            self._new.unlink(missing_ok=True)
            self._file.close()

    def _take_place(self) -> None:
        if self.lines:
            _sync(self._file)
            self._new.replace(self._path)
        else:
            self._path.unlink()
        _sync_folder(self._path.parent)

    def add(self, line: bytes) -> None:
        self._file.write(line)
        self.lines += 1

    def put_aside(self, line: bytes) -> None:
        """Keep what is no message where it is in nobody's way."""
        with aside(self._path).open("ab") as file:
            file.write(line if line.endswith(b"\n") else line + b"\n")
            _sync(file)
        self.broken += 1


def _created(path: Path) -> BinaryIO | None:
    """A new file, locked; None where there is one of that name, or somebody took it before we had the lock."""
    try:
        file = path.open("xb", buffering=0)
    except FileExistsError:
        return None
    if not (_lock(file) and _is_at(path, file)):
        file.close()
        return None
    _sync_folder(path.parent)
    return file


def _append(file: BinaryIO, lines: Iterator[bytes]) -> None:
    """Write and sync; after a failure nothing of it is left to be glued to what comes next."""
    good = file.tell()
    try:
        for block in iter(lambda: b"".join(itertools.islice(lines, WRITTEN_AT_ONCE)), b""):
            _write_all(file, block)
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


def lines_in(path: Path) -> int:
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
