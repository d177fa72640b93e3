"""Writes rejected messages to the dead-letter topic, and retries until each is confirmed."""

from collections.abc import Callable, Sequence
from typing import Protocol

from src.model.errors import DeadLetterError
from src.model.record import Record, Rejection
from src.pipeline.retry import Retrier


class DeadLetters(Protocol):
    def send(self, rejections: Sequence[Rejection]) -> None:
        """Returns when all are confirmed. Raises DeadLetterError."""

    def close(self) -> None: ...


class DeadLetterWriter:
    """A message whose partition is no longer assigned to this consumer is left to the partition's new owner."""

    def __init__(self, dead_letters: DeadLetters, retrier: Retrier, is_assigned: Callable[[Record], bool]) -> None:
        self._dead_letters = dead_letters
        self._retrier = retrier
        self._is_assigned = is_assigned

    def write(self, rejections: Sequence[Rejection]) -> list[Rejection]:
        """Returns those that were confirmed, once all that are still assigned are. Raises WriterStopped.

        What was confirmed is not sent again.
        """
        pending = list(rejections)
        confirmed: list[Rejection] = []

        def send() -> None:
            nonlocal pending
            pending = [rejection for rejection in pending if self._is_assigned(rejection.record)]
            try:
                self._dead_letters.send(pending)
            except DeadLetterError as error:
                unconfirmed = frozenset(error.unconfirmed)
                confirmed.extend(each for index, each in enumerate(pending) if index not in unconfirmed)
                pending = [pending[index] for index in sorted(unconfirmed)]
                raise
            confirmed.extend(pending)

        if pending:
            self._retrier.retry_until_available(send)
        return confirmed
