"""UndeliveredFolder: the folder that undelivered messages are written to."""

import os
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from src.model.delivery_failure import DeliveryFailure
from src.model.errors import UndeliveredStoreError
from src.undelivered.files import (
    Version,
    append,
    count_lines,
    create_locked,
    ends_with_newline,
    is_at,
    is_gone,
    sync,
    sync_folder,
    version,
    version_of,
)
from src.undelivered.record import to_line
from src.undelivered.segments import SUFFIX, segment_paths
from src.utils.config import ConfigurationError
from src.utils.locking import lock
from src.utils.text import utc_text

MAX_SEGMENT_BYTES = 8 * 1024 * 1024  # a segment of this size is not appended to


class UndeliveredFolder:
    """This process's segments are created with the first undelivered message; the folder is checked at once.

    Raises ConfigurationError where the folder cannot be written.
    """

    def __init__(
        self,
        path: Path,
        topic: str,
        *,
        clock: Callable[[], float] = time.time,
        host: str | None = None,
    ) -> None:
        self.path = path
        self.topic = topic
        self._clock = clock
        self._host = host or socket.gethostname()
        self._own: list[Path] = []
        self._created = 0
        self._counts: dict[Path, tuple[Version, int]] = {}
        check_writable(path)

    def append(self, failures: Sequence[DeliveryFailure]) -> None:
        """All of these are on disk when this returns, or none is. Raises UndeliveredStoreError."""
        now = utc_text(self._clock())
        try:
            with self._last_segment() or self._new_segment() as segment:
                before = self._count(self._own[-1])
                append(segment, (to_line(failure, self.topic, now) for failure in failures))
                self._counts[self._own[-1]] = (version(os.fstat(segment.fileno())), before + len(failures))
        except OSError as error:
            raise UndeliveredStoreError(f"{self.path}: {error.strerror or error}") from error

    def count(self) -> int:
        """Messages in the folder, those of other processes included; the last known number while it is unreadable."""
        try:
            paths = segment_paths(self.path)
        except OSError:
            paths = list(self._counts)
        return sum(map(self._count, paths))

    @property
    def own(self) -> list[Path]:
        """The segments of this process that still exist."""
        self._own = [path for path in self._own if not is_gone(path)]
        return list(self._own)

    def count_own(self) -> int:
        """Messages that this process has written and that have not been resent yet."""
        return sum(map(self._count, self.own))

    def _last_segment(self) -> BinaryIO | None:
        """The segment written last, unless it is full, ends in a partial line, or is being or was resent."""
        if not self._own:
            return None
        try:
            segment = self._own[-1].open("r+b", buffering=0)
        except OSError:
            return None
        usable = lock(segment) and is_at(self._own[-1], segment) and ends_with_newline(segment)
        if usable and segment.tell() < MAX_SEGMENT_BYTES:
            return segment
        segment.close()
        return None

    def _new_segment(self) -> BinaryIO:
        created = utc_text(self._clock()).replace(":", "").replace("-", "")
        while True:
            self._created += 1
            path = self.path / f"{self._host}-{created}-{os.getpid()}-{self._created}{SUFFIX}"
            if segment := create_locked(path):
                self._own = [*self.own, path]
                return segment

    def _count(self, path: Path) -> int:
        known, count = self._counts.get(path, (None, 0))
        try:
            now = version_of(path)
            if known != now:
                count = count_lines(path)
                self._counts[path] = (now, count)
        except FileNotFoundError:  # resent meanwhile
            self._counts.pop(path, None)
            return 0
        except OSError:
            pass  # it may become readable again, with at least what was counted
        return count


def check_writable(folder: Path) -> None:
    """Create the folder, and write, lock and sync a file in it: better to fail at the start than at the first
    undelivered message. Raises ConfigurationError.
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
