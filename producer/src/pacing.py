"""When the next batch is due."""

import time
from collections.abc import Callable

MAX_CATCH_UP = 60.0  # seconds; after a longer delay, older batches are skipped


class Pacer:
    """One batch every `interval` seconds by a monotonic clock. Due times are counted from the previous due time, not
    from the actual one, so delays do not accumulate.
    """

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._due = clock()

    def seconds_until_due(self) -> float:
        return max(0.0, self._due - self._clock())

    def advance(self, share: float = 1.0) -> None:
        """A batch was sent, or this share of one."""
        self._due = max(self._due, self._clock() - MAX_CATCH_UP) + self._interval * share

    def postpone(self, seconds: float) -> None:
        """There was nothing to send: the next batch is due in this number of seconds, without catching up."""
        self._due = self._clock() + seconds


def describe_rate(interval: float, batch_size: int) -> str:
    if not interval:
        return f"batches of {batch_size:,} messages, as fast as possible"
    rate = batch_size / interval
    return f"{batch_size:,} messages every {interval:g} s, {rate:,.1f} per second, {rate * 3600:,.0f} per hour"
