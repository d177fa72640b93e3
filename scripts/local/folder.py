"""The folder of local runs, `.local`: one run at a time, and emptied first unless its content is to be kept."""

import fcntl
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local.errors import CannotRun

_FILES_OF_A_RUN = ("logs", "undelivered", "messages.db*", "*.json")  # the virtual environment is here too, and stays


@dataclass(frozen=True)
class Folder:
    """`lock` is inherited by the child processes, which hold it even if the run itself is gone."""

    path: Path
    lock: int

    def prepare(self, *, keep: bool) -> None:
        if not keep:
            for pattern in _FILES_OF_A_RUN:
                for old in self.path.glob(pattern):
                    if old.is_dir():
                        shutil.rmtree(old)
                    else:
                        old.unlink()
        (self.path / "logs").mkdir(exist_ok=True)

    def record_processes(self, processes: Iterable[int]) -> None:
        """For the error text that a second run shows while the folder is locked."""
        _lock_file(self.path).write_text(" ".join(map(str, processes)), encoding="utf-8")


@contextmanager
def locked(path: Path) -> Iterator[Folder]:
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
                f"{path} is in use by another local run; wait until it ends, or stop it: kill {processes}"
            ) from error
        yield Folder(path, lock.fileno())


def _lock_file(path: Path) -> Path:
    return path / "lock"
