"""Runs a contender and measures it, or a program that measures itself."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from bench.contender import Contender, Job
from bench.process_tree import ProcessTree
from bench.stores import Progress, Store
from local.children import run_program
from local.errors import CannotRun
from local.plan import ALLOCATOR, ROOT

POLL_INTERVAL = 0.05  # seconds; the acknowledging server says when its last documents arrived
STALL_TIMEOUT = 90.0  # seconds without progress; a JVM starts slowly
STOP_TIMEOUT = 20.0
PROGRAM_TIMEOUT = 300.0
WARM_UP_SHARE = 0.1  # of the messages; the rate is measured from there on


_SERVICES_SETTINGS = ("CONSUMER_", "KAFKA_", "LOG_", "METRICS_", "MONGODB_", "PRODUCER_")


@dataclass(frozen=True)
class Finished:
    """A run until the last message was stored. The rate's time starts when the first tenth was."""

    messages: int
    messages_per_second: float
    cpu_seconds: float
    peak_bytes: int
    sent_bytes: int | None = None
    server_cpu_seconds: float | None = None


def run_contender(
    contender: Contender,
    job: Job,
    store: Store,
    messages: int,
    folder: Path,
    replicas: int = 1,
    *,
    stop_timeout: float = STOP_TIMEOUT,
) -> Finished:
    """Raises CannotRun if the contender does not store these messages."""
    folder.mkdir(parents=True, exist_ok=True)
    store.create(job.collection)
    before = store.progress(job.collection)
    with ExitStack() as running:
        processes = [
            running.enter_context(started(contender, job, folder, number, stop_timeout))
            for number in range(1, replicas + 1)
        ]
        warm, end = _watch(store, job.collection, messages, processes, folder)
        trees = [ProcessTree(process.pid) for process in processes]
        return Finished(
            messages=messages,
            messages_per_second=(end.documents - warm.documents) / max(end.time - warm.time, 1e-6),
            cpu_seconds=sum(tree.cpu_seconds for tree in trees),
            peak_bytes=max(tree.peak_bytes for tree in trees),
            sent_bytes=end.sent_bytes,
            server_cpu_seconds=_difference(end.server_cpu_seconds, before.server_cpu_seconds),
        )


@contextmanager
def started(
    contender: Contender, job: Job, folder: Path, number: int = 1, stop_timeout: float = STOP_TIMEOUT
) -> Iterator[subprocess.Popen[bytes]]:
    """The running program, which logs to `log-NUMBER.txt`; stopped at the end of the block."""
    with (folder / f"log-{number}.txt").open("wb") as log:
        process = subprocess.Popen(
            contender.command(job, folder),
            cwd=contender.folder,
            env=environment(job.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _stop(process, stop_timeout)


def _watch(
    store: Store, collection: str, messages: int, processes: Sequence[subprocess.Popen[bytes]], folder: Path
) -> tuple[Progress, Progress]:
    """The progress after the warm-up and at the end."""
    warm: Progress | None = None
    last, last_change = Progress(0, 0.0), time.monotonic()
    while last.documents < messages:
        Event().wait(POLL_INTERVAL)
        current = store.progress(collection)
        if current.documents > last.documents:
            last, last_change = current, time.monotonic()
        if warm is None and last.documents >= messages * WARM_UP_SHARE:
            warm = last
        _require_alive(processes, folder)
        if time.monotonic() - last_change > STALL_TIMEOUT:
            raise CannotRun(f"no progress for {STALL_TIMEOUT:.0f} s after {last.documents:,} messages; see {folder}")
    return warm or last, last


def _require_alive(processes: Sequence[subprocess.Popen[bytes]], folder: Path) -> None:
    for process in processes:
        if (code := process.poll()) is not None:
            raise CannotRun(f"ended with exit code {code}; see {folder}")


def _stop(process: subprocess.Popen[bytes], timeout: float) -> None:
    """Its descendants too: those of a session of its own."""
    process.terminate()
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout)
    finally:
        _kill_session(process)


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _difference(end: float | None, start: float | None) -> float | None:
    return None if end is None or start is None else end - start


@dataclass(frozen=True)
class SelfMeasured:
    messages: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int

    @property
    def messages_per_second(self) -> float:
        return self.messages / self.seconds

    @property
    def cpu_us(self) -> float:
        """Per message."""
        return self.cpu_seconds / self.messages * 1e6


def self_measured(name: str, variables: Mapping[str, str], folder: Path) -> SelfMeasured:
    """The measurement that one of the bench's own programs prints. Raises CannotRun."""
    folder.mkdir(parents=True, exist_ok=True)
    done = run_program(program(name.replace(" ", "_")), ROOT, environment(variables), PROGRAM_TIMEOUT)
    if done.returncode:
        (folder / "log.txt").write_text(done.stderr, encoding="utf-8")
        raise CannotRun(f"exit code {done.returncode}; see {folder}")
    return SelfMeasured(**json.loads(done.stdout))


def program(name: str) -> list[str]:
    """The command of one of the bench's own programs."""
    return [sys.executable, "-m", f"bench.programs.{name}"]


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The caller's without the services' settings, with these variables, and with the bench's modules on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_SERVICES_SETTINGS)}
    return {**ALLOCATOR, **kept, "PYTHONPATH": str(ROOT / "scripts"), **variables}
