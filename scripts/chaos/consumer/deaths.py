"""Points at which the consumer can be made to die, as if the machine had failed there."""

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from src.consumer import Storage
from src.model.record import Rejection
from src.model.verdict import Verdict
from src.pipeline.dead_letter_writer import DeadLetters

STORING, STORED, PARKED = "storing", "stored", "parked"


class Countdown:
    """True at the call with this number after it was begun, and never else."""

    def __init__(self, call: int) -> None:
        self._left = call
        self._begun = False

    def begin(self) -> None:
        self._begun = True

    def __call__(self) -> bool:
        if not self._begun:
            return False
        self._left -= 1
        return self._left == 0


class DyingStorage:
    """Dies with half of a batch stored, or with all of it stored and nothing committed."""

    def __init__(self, storage: Storage, point: str, due: Countdown) -> None:
        self._storage = storage
        self._point = point
        self._due = due

    def save_many(self, documents: Sequence[Mapping[str, Any]]) -> Sequence[Verdict]:
        dies = len(documents) > 1 and self._due()
        if dies and self._point == STORING:
            self._storage.save_many(documents[: len(documents) // 2])
            die()
        verdicts = self._storage.save_many(documents)
        if dies:
            die()
        return verdicts

    def save(self, data: Mapping[str, Any]) -> bool:
        return self._storage.save(data)

    def ensure_indexes(self) -> None:
        self._storage.ensure_indexes()

    def ping(self) -> None:
        self._storage.ping()

    def close(self) -> None:
        self._storage.close()


class DyingDeadLetters:
    """Dies with the letters confirmed, and their offsets not committed."""

    def __init__(self, dead_letters: DeadLetters, due: Countdown) -> None:
        self._dead_letters = dead_letters
        self._due = due

    def send(self, rejections: Sequence[Rejection]) -> None:
        self._dead_letters.send(rejections)
        if self._due():
            die()

    def close(self) -> None:
        self._dead_letters.close()


def die() -> None:
    """As by `kill -9`: nothing is finished, nothing is said."""
    os.kill(os.getpid(), signal.SIGKILL)
