"""The undelivered folder: JSON lines in segments, each locked by who writes it or sends it, as long as that takes.

So replicas may share a folder, and what a dead process left is known by its free lock. On Windows, which has no
`flock`, nothing is locked: send again only while no producer runs there.
"""

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self

import msgspec

from src.kafka.produce_request import Failure, Fault
from src.model.errors import UndeliveredFileError
from src.model.message import Encoded, utc_text
from src.undelivered.files import (
    Version,
    append,
    created,
    is_at,
    is_gone,
    is_whole,
    lines_in,
    opened,
    sync,
    sync_folder,
    version,
    version_of,
)
from src.utils.config import ConfigurationError
from src.utils.locking import lock

SUFFIX = ".jsonl"
ASIDE = ".broken"  # beside a segment: lines of it that are no whole message, as they were found
SEGMENT_BYTES = 8 * 1024 * 1024  # a segment that has these is not written on


class _Binary(msgspec.Struct):
    """Bytes that are not UTF-8 text, in JSON as `{"base64": "…"}`."""

    base64: bytes


_Content = str | _Binary | None


class UndeliveredRecord(msgspec.Struct, omit_defaults=True):
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
_decode = msgspec.json.Decoder(UndeliveredRecord).decode


def to_line(failure: Failure, topic: str, given_up_at: str) -> bytes:
    key, value, headers = failure.message
    pairs = [(name, _content(content)) for name, content in headers]
    refused = failure.fault is Fault.MESSAGE
    return (
        _encode(UndeliveredRecord(given_up_at, failure.reason, topic, _content(key), _content(value), pairs, refused))
        + b"\n"
    )


def from_line(line: bytes) -> UndeliveredRecord | None:
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
                before = self._count(self._own[-1])
                append(segment, (to_line(failure, self.topic, now) for failure in failures))
                self._counts[self._own[-1]] = (version(os.fstat(segment.fileno())), before + len(failures))
        except OSError as error:
            raise UndeliveredFileError(f"{self.folder}: {error.strerror or error}") from error

    def count(self) -> int:
        """Messages in the folder, those of other processes too; where it can't be read, as many as before."""
        try:
            paths = segments(self.folder)
        except OSError:
            paths = list(self._counts)
        return sum(map(self._count, paths))

    @property
    def own(self) -> list[Path]:
        """The segments of this process that are still there."""
        self._own = [path for path in self._own if not is_gone(path)]
        return list(self._own)

    def left(self) -> int:
        """Messages that this process has kept and nobody has sent yet."""
        return sum(map(self._count, self.own))

    def _last_segment(self) -> BinaryIO | None:
        """The one written last, unless it is full, or broken off, or being sent, or was."""
        if not self._own:
            return None
        try:
            segment = self._own[-1].open("r+b", buffering=0)
        except OSError:
            return None
        if lock(segment) and is_at(self._own[-1], segment) and is_whole(segment) and segment.tell() < SEGMENT_BYTES:
            return segment
        segment.close()
        return None

    def _new_segment(self) -> BinaryIO:
        made = utc_text(self._clock()).replace(":", "").replace("-", "")
        while True:
            self._made += 1
            path = self.folder / f"{self._host}-{made}-{os.getpid()}-{self._made}{SUFFIX}"
            if segment := created(path):
                self._own = [*self.own, path]
                return segment

    def _count(self, path: Path) -> int:
        known, count = self._counts.get(path, (None, 0))
        try:
            now = version_of(path)
            if known != now:
                count = lines_in(path)
                self._counts[path] = (now, count)
        except FileNotFoundError:  # sent again meanwhile
            self._counts.pop(path, None)
            return 0
        except OSError:
            pass  # it may be read later; it holds at least what was counted
        return count


def prove_writable(folder: Path) -> None:
    """Make the folder, and do in it for a moment all that keeping takes: better to fail at the start than at the first
    lost message.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            lock(file)
            sync(file)
        sync_folder(folder)
    except (OSError, ValueError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise ConfigurationError(
            f"producer.undelivered_dir: cannot write into {str(folder)!r}: {reason};"
            " make it writable, or set PRODUCER_UNDELIVERED_DIR"
        ) from error


def segments(folder: Path) -> list[Path]:
    """The segments in the folder, by host and time; none where there is no folder. Raises OSError where it can't be
    listed.
    """
    with suppress(FileNotFoundError):
        return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and not path.name.startswith("."))
    return []


@contextmanager
def taken(path: Path) -> Iterator[BinaryIO | None]:
    """The segment, ours alone while the block runs; None where its process lives, or somebody else has taken it."""
    try:
        segment = opened(path)
    except FileNotFoundError:
        yield None
        return
    with segment:
        yield segment if lock(segment) and is_at(path, segment) else None


def aside(path: Path) -> Path:
    """Where the broken lines of a segment go."""
    return path.with_suffix(ASIDE)


class SegmentRewrite:
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
        lock(self._file)
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
            sync(self._file)
            self._new.replace(self._path)
        else:
            self._path.unlink()
        sync_folder(self._path.parent)

    def add(self, line: bytes) -> None:
        self._file.write(line)
        self.lines += 1

    def put_aside(self, line: bytes) -> None:
        """Keep what is no message where it is in nobody's way."""
        with aside(self._path).open("ab") as file:
            file.write(line if line.endswith(b"\n") else line + b"\n")
            sync(file)
        self.broken += 1


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
