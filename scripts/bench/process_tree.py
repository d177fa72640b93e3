"""CPU time and memory of a process and its descendants, from Linux's /proc."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_SESSION, _TIMES = 3, slice(11, 15)  # positions in /proc/PID/stat after the name of the program


@dataclass(frozen=True)
class ProcessTree:
    """The processes of a session, which a program that was started in a session of its own leads."""

    leader: int

    @property
    def cpu_seconds(self) -> float:
        """User and system time, that of ended children included."""
        return sum(sum(map(int, fields[_TIMES])) for _, fields in self._processes()) / _TICKS

    @property
    def peak_bytes(self) -> int:
        """The sum of the largest resident sizes."""
        return sum(_peak_of(folder) for folder, _ in self._processes())

    def _processes(self) -> Iterator[tuple[Path, list[str]]]:
        for folder in _PROC.glob("[0-9]*"):
            fields = _read(folder / "stat").rpartition(")")[2].split()
            if fields and int(fields[_SESSION]) == self.leader:
                yield folder, fields


def is_supported() -> bool:
    return (_PROC / "self" / "stat").exists()


def _peak_of(folder: Path) -> int:
    lines = _read(folder / "status").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def _read(path: Path) -> str:
    """Empty if the process has ended."""
    try:
        return path.read_text()
    except OSError:
        return ""
