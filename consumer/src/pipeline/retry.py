"""Retries until a dependency is available again. Every wait ends when the service is asked to stop."""

import logging
from collections.abc import Callable
from threading import Event
from typing import TypeVar

from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)

from src.model.errors import ConsumerError, Unavailable

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

FIRST_BACKOFF = 0.2  # seconds; upper bound of the first random delay


class WriterStopped(ConsumerError):
    """Asked to stop while waiting. The batch is not settled; the next owner of its partitions reads it again."""


class Retrier:
    """Retries with exponential backoff and jitter. `on_retry` is called with the cause of each retry."""

    def __init__(self, stop: Event, *, max_backoff: float, on_retry: Callable[[str], object]) -> None:
        self.unavailable: Unavailable | None = None
        """Why the dependency is unavailable; None while it is available. Safe to read from any thread."""
        self.max_backoff = max_backoff
        self.on_retry = on_retry
        self._stop = stop
        self._retrying = Retrying(
            retry=retry_if_exception_type(Unavailable),
            wait=wait_random_exponential(multiplier=min(FIRST_BACKOFF, max_backoff), max=max_backoff),
            stop=stop_when_event_set(stop),
            sleep=sleep_using_event(stop),
            before_sleep=self._before_retry,
        )

    def retry_until_available(self, call: Callable[[], Result]) -> Result:
        """Repeat the call while it raises Unavailable. Raises WriterStopped when asked to stop meanwhile."""
        try:
            result = self._retrying(call)
        except RetryError as error:
            raise WriterStopped(f"stopped while unavailable: {error.last_attempt.exception()}") from error
        self.mark_available()
        return result

    def mark_unavailable(self, error: Unavailable) -> None:
        self.unavailable = error
        logger.warning("dependency unavailable, retrying", extra={"cause": error.cause, "reason": str(error)})

    def mark_available(self) -> None:
        if self.unavailable is not None:
            logger.info("dependency recovered", extra={"cause": self.unavailable.cause})
            self.unavailable = None

    def wait(self, seconds: float, during: str) -> None:
        """Raises WriterStopped when asked to stop meanwhile."""
        if self._stop.wait(seconds):
            raise WriterStopped(f"stopped during {during}")

    def stop(self) -> None:
        """End all waits, now and in the future, with WriterStopped."""
        self._stop.set()

    def _before_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Unavailable):
            self.mark_unavailable(error)
            self.on_retry(error.cause)
