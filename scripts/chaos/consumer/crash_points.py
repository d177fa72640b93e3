"""Points at which the consumer kills itself, as if the machine had failed there."""

import logging
import os
import signal
from collections.abc import Mapping, Sequence
from threading import Event
from typing import Any

from src.consumer import DataConsumer, DeadLetters, Storage
from src.model.record import Rejection
from src.model.verdict import Verdict
from src.pipeline.batch_writer import Result
from src.stores.document import Document, DocumentBatch, ValidDocument

STORING, STORED, DEAD_LETTERED, FREEZING, STALLING = "storing", "stored", "dead-lettered", "freezing", "stalling"
STALL = 16.0  # seconds; longer than the max.poll.interval.ms and the session timeout of the trials together

logger = logging.getLogger("consumer")


class Countdown:
    """True at the call with this number after the start."""

    def __init__(self, call: int) -> None:
        self._left = call
        self._started = False

    def start(self) -> None:
        self._started = True

    def __call__(self) -> bool:
        if not self._started:
            return False
        self._left -= 1
        return self._left == 0


class CrashingStorage:
    """Kills the process when half of a batch is stored, or when all of it is stored and not committed; or stops it
    before a batch is stored, which is stored when it continues."""

    def __init__(self, storage: Storage, point: str, countdown: Countdown) -> None:
        self._storage = storage
        self._point = point
        self._countdown = countdown

    def save_valid(self, batch: DocumentBatch) -> Sequence[Verdict]:
        size = len(batch.documents)
        crash = size > 1 and self._countdown()
        if crash and self._point == STORING:
            self._storage.save_valid(batch.part(range(size // 2)))
            kill()
        if crash and self._point == FREEZING:
            logger.warning("frozen")
            os.kill(os.getpid(), signal.SIGSTOP)
            Event().wait(1.0)  # the signal may reach this thread a moment later, when it would have locked the store
        verdicts = self._storage.save_valid(batch)
        if crash and self._point == FREEZING:
            logger.warning("continued")
        elif crash:
            kill()
        return verdicts

    def validated(self, document: Document) -> ValidDocument:
        return self._storage.validated(document)

    def save(self, data: Mapping[str, Any]) -> bool:
        return self._storage.save(data)

    def ensure_indexes(self) -> None:
        self._storage.ensure_indexes()

    def ping(self) -> None:
        self._storage.ping()

    def close(self) -> None:
        self._storage.close()


class CrashingDeadLetters:
    """Kills the process when dead letters are confirmed and their offsets not committed."""

    def __init__(self, dead_letters: DeadLetters, countdown: Countdown) -> None:
        self._dead_letters = dead_letters
        self._countdown = countdown

    def send(self, rejections: Sequence[Rejection]) -> None:
        self._dead_letters.send(rejections)
        if self._countdown():
            kill()

    @property
    def unavailable_reason(self) -> str | None:
        return self._dead_letters.unavailable_reason

    def look_up(self) -> None:
        self._dead_letters.look_up()

    def close(self) -> None:
        self._dead_letters.close()


class StallingConsumer(DataConsumer):
    """Its loop stalls when results are settled and not committed; heartbeats continue."""

    stalls: Countdown

    def _settle(self, results: Sequence[Result]) -> None:
        super()._settle(results)
        if results and self.stalls():
            logger.warning("stalled")
            Event().wait(STALL)
            logger.warning("continued")


def kill() -> None:
    """Like `kill -9`: no cleanup, no log message."""
    os.kill(os.getpid(), signal.SIGKILL)
