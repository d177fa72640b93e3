"""What is measured while a trial runs: how the group gets on, partition by partition, and how long one stands still."""

import http.client
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from threading import Event, Lock, Thread
from typing import Any, NamedTuple, Self

from local.children import event_in
from local.errors import CannotRun
from local.measure import scrape
from local.progress import Meter, Progress

LOOK_EVERY = 0.2  # seconds
ANSWER_WITHIN = 1.0
CHANGES = ("partitions assigned", "partitions revoked", "partitions lost")


class Look(NamedTuple):
    moment: float
    committed: Mapping[int, int]
    ends: Mapping[int, int]


class Course:
    """How far the group was at each look. Decides; asks nobody. A forgiving one takes no offense at going back."""

    def __init__(self, *, forgiving: bool = False) -> None:
        self._forgiving = forgiving
        self.went_back: list[str] = []
        self._looks: list[Look] = []

    def add(self, moment: float, progress: Progress) -> None:
        if self._looks and not self._forgiving:
            self._compare(self._looks[-1].committed, progress.committed)
        self._looks.append(Look(moment, progress.committed, progress.ends))

    @property
    def progress(self) -> Progress:
        """As it was last seen."""
        last = self._looks[-1]
        return Progress(ends=last.ends, committed=last.committed)

    @property
    def settled(self) -> int:
        return sum(self._looks[-1].committed.values()) if self._looks else 0

    @property
    def longest_pause(self) -> float:
        """Seconds that some partition stood still while there were messages in it."""
        return max((self._longest_pause(partition) for partition in self._partitions), default=0.0)

    def progress_after(self, moment: float) -> float | None:
        """Seconds from then until each partition that had something to do had moved on; None where none had."""
        before = next((look for look in reversed(self._looks) if look.moment <= moment), None)
        after = [look for look in self._looks if look.moment > moment]
        if before is None or not after:
            return None
        waits = [self._moved(partition, before, after) for partition in self._partitions]
        return max((wait - moment for wait in waits if wait is not None), default=None)

    @property
    def _partitions(self) -> Iterable[int]:
        return sorted(self._looks[-1].ends) if self._looks else ()

    def _longest_pause(self, partition: int) -> float:
        longest, since, position = 0.0, None, None
        for moment, committed, ends in self._looks:
            if since is not None:
                longest = max(longest, moment - since)
            here = committed.get(partition, 0)
            if here >= ends.get(partition, 0):
                since = None
            elif since is None or here != position:
                since = moment
            position = here
        return longest

    @staticmethod
    def _moved(partition: int, before: Look, after: Iterable[Look]) -> float | None:
        start = before.committed.get(partition, 0)
        return next((look.moment for look in after if look.committed.get(partition, 0) > start), None)

    def _compare(self, before: Mapping[int, int], now: Mapping[int, int]) -> None:
        self.went_back += [
            f"partition {partition} went back from {before[partition]} to {offset}"
            for partition, offset in now.items()
            if offset < before.get(partition, 0)
        ]


class Watch:
    """Looks at the offsets several times a second, from a thread of its own, while the `with` block runs."""

    def __init__(self, meter: Meter, clock: Callable[[], float] = time.monotonic) -> None:
        self.course = Course()
        self._meter = meter
        self._clock = clock
        self._over = Event()
        self._one_at_a_time = Lock()
        self._thread = Thread(target=self._look_on, name="watch", daemon=True)

    def follow(self, meter: Meter, *, anew: bool) -> None:
        """A topic with other partitions, or one that was made anew, where offsets go back."""
        with self._one_at_a_time:
            self._meter = meter
            if anew:
                self.course = Course(forgiving=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def look(self) -> Progress | None:
        """How far the group is now; None while Kafka does not say."""
        with self._one_at_a_time:
            try:
                progress = self._meter.read()
            except CannotRun:
                return None
            self.course.add(self._clock(), progress)
            return progress

    def _look_on(self) -> None:
        while not self._over.wait(LOOK_EVERY):
            self.look()


class Growth:
    """Whether a gauge of a process stays flat: its last fifth against its second, when all that starts has started."""

    ALLOWED = 0.1

    def __init__(self) -> None:
        self._values: list[float] = []

    def add(self, value: float) -> None:
        """0 is no value: the process did not tell."""
        if value:
            self._values.append(value)

    @property
    def flat(self) -> bool:
        """Never of a process that did not tell."""
        before, after = self._ends
        return 0 < after <= before * (1 + self.ALLOWED)

    def __str__(self) -> str:
        before, after = self._ends
        return f"{before:,.0f} to {after:,.0f}"

    @property
    def _ends(self) -> tuple[float, float]:
        fifth = len(self._values) // 5
        if not fifth:
            return 0.0, 0.0
        return median(self._values[fifth : 2 * fifth]), median(self._values[-fifth:])


def rebalances(logs: Iterable[Path]) -> int:
    """How often a consumer's assignment changed, as their logs say."""
    return sum(event.get("message") in CHANGES for log in logs for event in events(log))


def events(log: Path) -> list[dict[str, Any]]:
    """What a process has logged so far."""
    return [event_in(line) for line in log.read_bytes().splitlines()]


def sample(port: int | None, name: str) -> float:
    """One of a process's metrics; 0 where it does not tell."""
    told = (line.rpartition(" ") for line in (scrape(port) or "").splitlines())
    return next((float(value) for metric, _, value in told if metric == name), 0.0)


def unready(port: int | None) -> list[str]:
    """What /ready complains of; empty while the process is ready, or does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port or 0, timeout=ANSWER_WITHIN)
    try:
        connection.request("GET", "/ready")
        return list(json.loads(connection.getresponse().read())["reasons"])
    except (OSError, http.client.HTTPException):
        return []
    finally:
        connection.close()
