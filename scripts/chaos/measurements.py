"""Measurements of a trial: the group's progress by partition, and how long a partition made none."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from threading import Event, Lock, Thread
from typing import Any, NamedTuple, Self

from local.children import parse_event
from local.errors import CannotRun
from local.metrics import http_get
from local.offsets import OffsetReader, Progress

POLL_INTERVAL = 0.2  # seconds
ASSIGNMENT_EVENTS = ("partitions assigned", "partitions revoked", "partitions lost")


class Observation(NamedTuple):
    time: float
    committed: Mapping[int, int]
    end: Mapping[int, int]


class OffsetHistory:
    """The offsets at each observation. Committed offsets must not decrease, unless the topic was recreated."""

    def __init__(self, *, recreated: bool = False) -> None:
        self.decreases: list[str] = []
        self._recreated = recreated
        self._observations: list[Observation] = []

    def add(self, time: float, progress: Progress) -> None:
        if self._observations and not self._recreated:
            self._compare(self._observations[-1].committed, progress.committed)
        self._observations.append(Observation(time, progress.committed, progress.end))

    @property
    def progress(self) -> Progress:
        """The last observation."""
        last = self._observations[-1]
        return Progress(end=last.end, committed=last.committed)

    @property
    def settled(self) -> int:
        return sum(self._observations[-1].committed.values()) if self._observations else 0

    @property
    def longest_pause(self) -> float:
        """The longest time in seconds that a partition with unread messages made no progress."""
        return max((self._longest_pause(partition) for partition in self._partitions), default=0.0)

    def progress_after(self, time: float) -> float | None:
        """Seconds until every partition with unread messages had made progress; None if there were none."""
        before = next((each for each in reversed(self._observations) if each.time <= time), None)
        after = [each for each in self._observations if each.time > time]
        if before is None or not after:
            return None
        times = [self._first_progress(partition, before, after) for partition in self._partitions]
        return max((each - time for each in times if each is not None), default=None)

    @property
    def _partitions(self) -> Iterable[int]:
        return sorted(self._observations[-1].end) if self._observations else ()

    def _longest_pause(self, partition: int) -> float:
        longest, since, last = 0.0, None, None
        for now, committed, end in self._observations:
            if since is not None:
                longest = max(longest, now - since)
            offset = committed.get(partition, 0)
            if offset >= end.get(partition, 0):
                since = None
            elif since is None or offset != last:
                since = now
            last = offset
        return longest

    @staticmethod
    def _first_progress(partition: int, before: Observation, after: Iterable[Observation]) -> float | None:
        start = before.committed.get(partition, 0)
        return next((each.time for each in after if each.committed.get(partition, 0) > start), None)

    def _compare(self, before: Mapping[int, int], now: Mapping[int, int]) -> None:
        self.decreases += [
            f"the committed offset of partition {partition} decreased from {before[partition]} to {offset}"
            for partition, offset in now.items()
            if offset < before.get(partition, 0)
        ]


class OffsetWatcher:
    """Reads the offsets several times per second in a thread of its own while the `with` block runs."""

    def __init__(self, reader: OffsetReader, clock: Callable[[], float] = time.monotonic) -> None:
        self.history = OffsetHistory()
        self._reader = reader
        self._clock = clock
        self._stopped = Event()
        self._lock = Lock()
        self._thread = Thread(target=self._run, name="offset-watcher", daemon=True)

    def follow(self, reader: OffsetReader, *, recreated: bool) -> None:
        """Read a topic that has more partitions now, or that was recreated."""
        with self._lock:
            self._reader = reader
            if recreated:
                self.history = OffsetHistory(recreated=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def read(self) -> Progress | None:
        """The current progress; None while Kafka is unreachable."""
        with self._lock:
            try:
                progress = self._reader.read()
            except CannotRun:
                return None
            self.history.add(self._clock(), progress)
            return progress

    def _run(self) -> None:
        while not self._stopped.wait(POLL_INTERVAL):
            self.read()


class Growth:
    """Compares the last fifth of a gauge's values with the second fifth, when everything has started."""

    ALLOWED = 0.1

    def __init__(self) -> None:
        self._values: list[float] = []

    def add(self, value: float) -> None:
        """0 means that the process did not report the gauge."""
        if value:
            self._values.append(value)

    @property
    def flat(self) -> bool:
        """False for a gauge that was never reported."""
        before, after = self._medians
        return 0 < after <= before * (1 + self.ALLOWED)

    def __str__(self) -> str:
        before, after = self._medians
        return f"{before:,.0f} to {after:,.0f}"

    @property
    def _medians(self) -> tuple[float, float]:
        fifth = len(self._values) // 5
        if not fifth:
            return 0.0, 0.0
        return median(self._values[fifth : 2 * fifth]), median(self._values[-fifth:])


def count_rebalances(logs: Iterable[Path]) -> int:
    """How often a consumer's assignment changed, by the consumers' logs."""
    return sum(event.get("message") in ASSIGNMENT_EVENTS for log in logs for event in events(log))


def events(log: Path) -> list[dict[str, Any]]:
    """The events that a process has logged so far."""
    return [parse_event(line) for line in log.read_bytes().splitlines()]


def metric(port: int | None, name: str) -> float:
    """The value of a process's metric; 0 if it is not reported."""
    samples = (line.rpartition(" ") for line in (http_get(port, "/metrics") or "").splitlines())
    return next((float(value) for sample, _, value in samples if sample == name), 0.0)


def readiness_failures(port: int | None) -> list[str]:
    """The reasons on /ready; empty if the process is ready or unreachable."""
    response = http_get(port, "/ready")
    return list(json.loads(response)["reasons"]) if response else []
