"""The processes of a run: the same programs that run in the containers."""

import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from local.errors import CannotRun

STOP_TIMEOUT = 30.0  # seconds from SIGTERM; a member that leaves during a rebalance waits until it is complete


class Child:
    """A running program that logs to a file. It is killed at the end of the `with` block if it still runs."""

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
        self._log_position = 0
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=() if lock is None else (lock,),
                start_new_session=True,  # so that Ctrl-C reaches the run alone
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def port(self) -> int | None:
        """The port of its metrics and health endpoints; None until it has logged it."""
        self._read_log()
        return self._port

    @property
    def started(self) -> bool:
        """Whether it handles signals: SIGTERM kills a Python that is still importing its modules."""
        return self.port is not None or self.exit_code is not None

    @property
    def partitions(self) -> tuple[int, ...]:
        """The partitions assigned to a consumer, from its log (`topic[0]`); its metrics have them seconds later."""
        self._read_log()
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
        """Whether it exited with an error. A process that was killed by a signal did not."""
        return (self.exit_code or 0) > 0

    def last_lines(self, count: int = 5) -> list[str]:
        return self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: signal.Signals) -> None:
        """Does nothing if the process has ended."""
        self._process.send_signal(number)

    def wait(self, timeout: float = STOP_TIMEOUT) -> bool:
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

    def _read_log(self) -> None:
        with self.log.open("rb") as lines:
            lines.seek(self._log_position)
            text = lines.read()
        complete = text[: text.rfind(b"\n") + 1]
        self._log_position += len(complete)
        for event in map(parse_event, complete.splitlines()):
            self._port = self._port or event.get("port")
            if "assigned" in event:
                self._partitions = tuple(int(each[each.rindex("[") + 1 : -1]) for each in event["assigned"])


def parse_event(line: bytes) -> dict[str, Any]:
    """The event of a log line; empty if the line is not one."""
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def run_program(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of the services' commands to its end. Raises CannotRun if it takes too long."""
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise CannotRun(f"{' '.join(command)} timed out after {error.timeout:.0f} s") from error


def write_settings(path: Path, settings: Mapping[str, Any]) -> Path:
    """A settings file that only the user can read: a MongoDB URI may contain a password."""
    path.touch(mode=0o600)
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return path
