"""Writes rejected messages to the dead-letter topic, and retries until each is confirmed."""

import time
from collections.abc import Sequence
from typing import Protocol

from src.model.errors import DeadLetterError
from src.model.record import Rejection
from src.pipeline.ownership import Ownership
from src.pipeline.retry import Retrier

HOLD_TIMEOUT = 30.0  # seconds that dead letters wait for commits to be accepted again
HOLD_INTERVAL = 0.05  # seconds


class DeadLetters(Protocol):
    def send(self, rejections: Sequence[Rejection]) -> None:
        """Returns when all are confirmed. Raises DeadLetterError."""

    def close(self) -> None: ...


class DeadLetterWriter:
    """A message whose partition is no longer assigned to this consumer is left to the partition's new owner.

    A dead letter whose offset cannot be committed is written again by the next owner. Therefore none is written while
    commits are rejected, as they are in a rebalance: either they are accepted again, or the partition is reassigned.
    """

    def __init__(self, dead_letters: DeadLetters, retrier: Retrier, ownership: Ownership) -> None:
        self.holding = False
        """Whether dead letters wait for commits to be accepted."""
        self.writing = False
        """Whether dead letters are being written: they are confirmed or have failed within seconds."""
        self._dead_letters = dead_letters
        self._retrier = retrier
        self._ownership = ownership

    def write(self, rejections: Sequence[Rejection]) -> list[Rejection]:
        """Returns those that were confirmed, once all that are still assigned are. Raises WriterStopped.

        Confirmed dead letters are not resent.
        """
        pending = list(rejections)
        confirmed: list[Rejection] = []

        def send() -> None:
            nonlocal pending
            self.writing = True  # before ownership is checked, so that a drain in between waits
            try:
                pending = self._still_owned(pending)
                self._dead_letters.send(pending)
            except DeadLetterError as error:
                unconfirmed = frozenset(error.unconfirmed)
                confirmed.extend(each for index, each in enumerate(pending) if index not in unconfirmed)
                pending = [pending[index] for index in sorted(unconfirmed)]
                raise
            finally:
                self.writing = False
            confirmed.extend(pending)

        if pending:
            self._hold_while_commits_are_rejected(pending)
            self._retrier.retry_until_available(send)
        return confirmed

    def _hold_while_commits_are_rejected(self, rejections: Sequence[Rejection]) -> None:
        """Not for longer than HOLD_TIMEOUT: where commits are never accepted, messages are still settled."""
        deadline = time.monotonic() + HOLD_TIMEOUT
        try:
            while self._commits_rejected(rejections) and time.monotonic() < deadline:
                self.holding = True  # only here: a drain does not wait while this is set
                self._retrier.wait(HOLD_INTERVAL, "a rebalance")
        finally:
            self.holding = False

    def _commits_rejected(self, rejections: Sequence[Rejection]) -> bool:
        owned = self._still_owned(rejections)
        return any(self._ownership.commits_rejected(rejection.record) for rejection in owned)

    def _still_owned(self, rejections: Sequence[Rejection]) -> list[Rejection]:
        return [rejection for rejection in rejections if self._ownership.owns(rejection.record)]
