"""The processes of a run: the very programs that run in the containers."""

import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

STOPS_WITHIN = 30.0  # seconds from SIGTERM; a member that leaves during a rebalance waits for its end


class Child:
    """A running program, its output in a log file. It is killed when the `with` block ends, if it still runs."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        log: Path,
        *,
        environment: Mapping[str, str],
        lock: int | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._port: int | None = None
        self._partitions: tuple[int, ...] = ()
        self._heard = 0  # bytes of the log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=() if lock is None else (lock,),
                start_new_session=True,  # Ctrl-C is the run's to hear, not theirs
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def port(self) -> int | None:
        """Where it serves metrics and health; None as long as it has not said so."""
        self._hear()
        return self._port

    @property
    def partitions(self) -> tuple[int, ...]:
        """Those that a consumer owns, as it last said itself; its metrics name them seconds later."""
        self._hear()
        return self._partitions if self.exit_code is None else ()

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    @property
    def state(self) -> str:
        code = self.exit_code
        if code is None:
            return "running" if self.port else "starting"
        if code == 0:
            return "finished"
        return "killed" if code < 0 else f"failed ({code})"

    @property
    def failed(self) -> bool:
        """Whether it ended by itself and in trouble; one that somebody killed did not."""
        return (self.exit_code or 0) > 0

    def last_lines(self, count: int = 5) -> list[str]:
        return self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]

    def ask_to_stop(self) -> None:
        self.send(signal.SIGTERM)

    def send(self, number: signal.Signals) -> None:
        """Nothing happens where it has ended."""
        self._process.send_signal(number)

    def wait(self, timeout: float = STOPS_WITHIN) -> bool:
        """Whether it has ended in time."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def _hear(self) -> None:
        """Take in what it has logged since."""
        with self.log.open("rb") as lines:
            lines.seek(self._heard)
            text = lines.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._heard += len(whole)
        for event in map(event_in, whole.splitlines()):
            self._port = self._port or event.get("port")
            self._partitions = tuple(event.get("owned", self._partitions))


def event_in(line: bytes) -> dict[str, Any]:
    """The event that a log line is; an empty one where it is something else."""
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
