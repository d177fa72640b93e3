"""How often a failed record is retried, and after which delay."""

import random
from dataclasses import dataclass

MAX_RETRY_DELAY = 60.0  # seconds, unless the initial delay is longer

_MAX_DOUBLINGS = 30  # enough to exceed MAX_RETRY_DELAY from 1 ms; more would overflow a float


@dataclass(frozen=True)
class RetryPolicy:
    max_retries: int | None
    """None: unlimited."""
    initial_delay: float  # seconds

    def allows(self, retry: int) -> bool:
        return self.max_retries is None or retry <= self.max_retries

    def delay(self, retry: int) -> float:
        """Seconds before the retry with this number, from 1: exponential backoff with jitter, capped."""
        backoff = self.initial_delay * 2.0 ** min(retry - 1, _MAX_DOUBLINGS)
        jitter = random.uniform(0, self.initial_delay / 4)
        return min(backoff + jitter, max(MAX_RETRY_DELAY, self.initial_delay))
