"""When the next batch is due. Decides; never sleeps itself."""

import time
from collections.abc import Callable

CATCH_UP = 60.0  # seconds' worth of batches that are made up for after a delay; what is older is let go


class Pacer:
    """One batch each `interval` seconds by a monotonic clock, without drift: the next time is counted from the last
    one that was planned, so a batch that came late does not move those after it.
    """

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._next = clock()

    def wait(self) -> float:
        """Seconds until the next batch is due; 0 when it is."""
        return max(0.0, self._next - self._clock())

    def took(self, share: float = 1.0) -> None:
        """A batch was taken, or this share of one."""
        self._next = max(self._next, self._clock() - CATCH_UP) + self._interval * share

    def idle(self, seconds: float) -> None:
        """There was nothing to take: look again in so many seconds. That time is not made up for."""
        self._next = self._clock() + seconds


def describe(interval: float, batch_size: int) -> str:
    """The pace in words, in all the units that people think in."""
    if not interval:
        return f"{batch_size:,} messages at a time, as fast as it goes"
    rate = batch_size / interval
    return f"{batch_size:,} messages every {interval:g} s, {rate:,.1f} a second, {rate * 3600:,.0f} an hour"
