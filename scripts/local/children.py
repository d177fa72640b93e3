"""The processes of a run: the very programs that run in the containers."""

import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

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
        self._read = 0
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
        if self._port is None:
            self._port = self._port_in_new_lines()
        return self._port

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
        if self.exit_code is None:
            self._process.send_signal(signal.SIGTERM)

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

    def _port_in_new_lines(self) -> int | None:
        with self.log.open("rb") as lines:
            lines.seek(self._read)
            text = lines.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        return next((port for port in map(port_in, whole.splitlines()) if port), None)


def port_in(line: bytes) -> int | None:
    """The port that a log line tells, if it is the one that does."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if isinstance(event, dict) and event.get("message") == "serving metrics and health":
        return int(event["port"])
    return None
