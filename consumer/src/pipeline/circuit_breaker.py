"""Whether so many of the latest messages would be dead-lettered that the fault is hardly theirs. No Kafka, no clock."""

from collections import deque
from collections.abc import Sequence

WINDOW = 1000  # verdicts


class CircuitBreaker:
    """Open while more than `limit` percent of the last `window` verdicts are dead letters, and never before as many
    are known. With a limit of 100 it stays closed. A verdict is True for a dead letter.
    """

    def __init__(self, limit: int, window: int = WINDOW) -> None:
        self.limit = limit
        self.window = window
        self.dead_letters = 0
        """Of the verdicts in the window."""
        self._verdicts: deque[bool] = deque(maxlen=window)

    @property
    def open(self) -> bool:
        return len(self._verdicts) == self.window and self.exceeded_by(self.dead_letters, self.window)

    def exceeded_by(self, dead_letters: int, messages: int) -> bool:
        """Whether that is a larger share than is allowed; as large a share is allowed."""
        return dead_letters * 100 > self.limit * messages

    def count(self, verdict: bool) -> None:
        if len(self._verdicts) == self.window:
            self.dead_letters -= self._verdicts[0]
        self._verdicts.append(verdict)
        self.dead_letters += verdict

    def admit(self, verdicts: Sequence[bool]) -> int:
        """How many of these, from the first on, may come true: all, or those before the dead letter that opens it.

        Those and that one are counted.
        """
        for position, verdict in enumerate(verdicts):
            self.count(verdict)
            if verdict and self.open:
                return position
        return len(verdicts)
