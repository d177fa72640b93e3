"""Holds messages back during a dead-letter storm, and lets a few through at intervals to see whether it has ended."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping

from src.model.errors import DeadLetterStorm
from src.model.record import Rejection
from src.pipeline.circuit_breaker import CircuitBreaker
from src.pipeline.retry import Retrier

logger = logging.getLogger(__name__)


class StormGuard:
    """A storm begins when the circuit breaker opens and ends when it closes.

    Meanwhile messages are admitted in probes: after a probe with too many dead letters the next one waits for
    `probe_interval` seconds, after any other it follows at once.
    """

    def __init__(self, breaker: CircuitBreaker, retrier: Retrier, *, probe_interval: float) -> None:
        self.storm: DeadLetterStorm | None = None
        """The reason for the next wait; None where nothing is held back. Safe to read from any thread."""
        self.waiting = False
        self._breaker = breaker
        self._retrier = retrier
        self._probe_interval = probe_interval

    @property
    def probing(self) -> bool:
        """Whether a probe is next, instead of a whole batch."""
        return self._breaker.open

    def wait_for_next_probe(self) -> None:
        """Returns at once where nothing is held back. Raises WriterStopped."""
        if self.storm is None:
            return
        self._retrier.on_retry(self.storm.cause)
        self.waiting = True
        try:
            self._retrier.wait(self._probe_interval, "a dead-letter storm")
        finally:
            self.waiting = False

    def admit(self, rejections: Mapping[int, Rejection], messages: int) -> int:
        """How many messages of a batch may be settled: all, or those before the dead letter that begins a storm.

        `rejections` are of those that would be dead-lettered, by their index in the batch.
        """
        admitted = self._breaker.admit([index in rejections for index in range(messages)])
        if self._breaker.open:
            self.storm = self._described([each for index, each in rejections.items() if index >= admitted])
            logger.error("dead-letter storm", extra={"cause": self.storm.cause, "reason": str(self.storm)})
        return admitted

    def record_probe(self, rejections: Mapping[int, Rejection], messages: int) -> None:
        """Count the messages of a probe. All of them may be settled, so that those behind them are reached."""
        for index in range(messages):
            self._breaker.count(index in rejections)
        failed = self._breaker.open and self._breaker.exceeded_by(len(rejections), messages)
        self.storm = self._described(rejections.values()) if failed else None
        if not self._breaker.open:
            logger.info("dead-letter storm ended")

    def _described(self, rejections: Iterable[Rejection]) -> DeadLetterStorm:
        reasons = Counter(rejection.reason for rejection in rejections).most_common(1)
        most_common = "".join(f", currently mostly for {reason}" for reason, _ in reasons)
        breaker = self._breaker
        return DeadLetterStorm(
            f"{breaker.dead_letters:,} of the last {breaker.window:,} messages would be dead-lettered{most_common}"
            f" ({breaker.limit} % is allowed); set consumer.dead_letter_storm_percent to 100 to let them through"
        )
