"""The folder of a local run, `.local`: one run at a time, and afresh unless it is to be kept."""

import fcntl
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.errors import CannotRun

_LEFT_BY_A_RUN = ("logs", "undelivered", "messages.db*", "*.json")  # the virtual environment lies here too, and stays


@dataclass(frozen=True)
class Folder:
    """`lock` is held by every process that has the file open: a run's children keep it even when the run is gone."""

    path: Path
    lock: int

    def begin(self, *, keep: bool) -> None:
        if not keep:
            for pattern in _LEFT_BY_A_RUN:
                for old in self.path.glob(pattern):
                    _remove(old)
        (self.path / "logs").mkdir(exist_ok=True)

    def write_settings(self, name: str, settings: Mapping[str, Any]) -> Path:
        """A settings file for a service, for nobody else to read: a MongoDB URI may hold a password."""
        path = self.path / name
        path.touch(mode=0o600)
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return path

    def note(self, processes: Iterable[int]) -> None:
        """Who is at work here, for whoever finds the folder locked."""
        _lock_file(self.path).write_text(" ".join(map(str, processes)), encoding="utf-8")


@contextmanager
def reserved(path: Path) -> Iterator[Folder]:
    """The folder, for this run alone. Raises CannotRun."""
    try:
        path.mkdir(exist_ok=True)
        lock = _lock_file(path).open("a", encoding="utf-8")
    except OSError as error:
        raise CannotRun(f"cannot write to {path}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            processes = _lock_file(path).read_text(encoding="utf-8")
            raise CannotRun(
                f"{path} is in use by another local run; wait for its end, or end it: kill {processes}"
            ) from error
        yield Folder(path, lock.fileno())


def _lock_file(path: Path) -> Path:
    return path / "lock"


def _remove(old: Path) -> None:
    if old.is_dir():
        shutil.rmtree(old)
    else:
        old.unlink()
