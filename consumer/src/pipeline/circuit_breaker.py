"""Detects that so many of the latest messages would be dead-lettered that the cause is probably elsewhere."""

from collections import deque
from collections.abc import Sequence

WINDOW = 200  # messages


class CircuitBreaker:
    """Open while more than `limit` percent of the last `window` messages are dead letters.

    It stays closed until that many messages are known, and with a limit of 100. A message is represented by whether it
    is a dead letter.
    """

    def __init__(self, limit: int, window: int = WINDOW) -> None:
        self.limit = limit
        self.window = window
        self.dead_letters = 0
        """In the window."""
        self._messages: deque[bool] = deque(maxlen=window)

    @property
    def open(self) -> bool:
        return len(self._messages) == self.window and self.exceeded_by(self.dead_letters, self.window)

    def exceeded_by(self, dead_letters: int, messages: int) -> bool:
        """Whether the share of dead letters is above the limit; a share equal to the limit is not."""
        return dead_letters * 100 > self.limit * messages

    def count(self, is_dead_letter: bool) -> None:
        if len(self._messages) == self.window:
            self.dead_letters -= self._messages[0]
        self._messages.append(is_dead_letter)
        self.dead_letters += is_dead_letter

    def admit(self, messages: Sequence[bool]) -> int:
        """The number of messages before the dead letter that opens the breaker, or of all if none does.

        These and that one are counted.
        """
        if not self.dead_letters and not any(messages):
            self._messages.extend(messages)
            return len(messages)
        for position, is_dead_letter in enumerate(messages):
            self.count(is_dead_letter)
            if is_dead_letter and self.open:
                return position
        return len(messages)
