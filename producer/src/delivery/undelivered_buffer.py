"""Holds permanent failures until the undelivered store has them."""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from src.delivery.batch import Batch
from src.delivery.ledger import DeliveryLedger
from src.delivery.send_queue import SendQueue
from src.model.delivery_failure import DeliveryFailure, Fault
from src.model.errors import UndeliveredStoreError

logger = logging.getLogger(__name__)

WRITE_RETRY_INTERVAL = 1.0  # seconds until a write that failed is retried
MAX_LOGGED_KEYS = 20  # of messages that are lost


class UndeliveredStore(Protocol):
    """Where undelivered messages are written to; UndeliveredFolder implements it."""

    def append(self, failures: Sequence[DeliveryFailure]) -> None:
        """All of these are on disk when this returns, or none is. Raises UndeliveredStoreError."""


class UndeliveredBuffer:
    """While the store cannot be written, transient failures are resent: Kafka may recover before the disk does."""

    def __init__(
        self, store: UndeliveredStore, ledger: DeliveryLedger, queue: SendQueue, clock: Callable[[], float]
    ) -> None:
        self.failures: list[DeliveryFailure] = []
        self.write_error: str | None = None
        self._store = store
        self._ledger = ledger
        self._queue = queue
        self._clock = clock
        self._resent: Batch | None = None  # transient failures that could not be written
        self._next_write = 0.0

    @property
    def blocked(self) -> bool:
        return bool(self.failures or self.write_error)

    def flush(self) -> None:
        """Write the failures, and those being resent with a retry that is not due yet."""
        if self._resent and self._resent.settled and not self.failures:
            self._resent = self.write_error = None  # Kafka has accepted what the store could not
        if self._clock() < self._next_write:
            return
        try:
            self._write()
        except UndeliveredStoreError:
            self._resend_transient()

    def flush_before_exit(self) -> None:
        """Raises UndeliveredStoreError; then the messages are lost unless the next call succeeds."""
        try:
            self._write()
        except UndeliveredStoreError:
            logger.critical("messages lost", extra={"messages": len(self.failures), "keys": self._first_keys()})
            raise

    def _write(self) -> None:
        waiting = self._queue.scheduled_failures(self._resent) if self._resent else []
        if not (self.failures or waiting):
            return
        try:
            self._store.append([*self.failures, *waiting])
        except UndeliveredStoreError as error:
            self.write_error = f"cannot write undelivered messages: {error}"
            self._next_write = self._clock() + WRITE_RETRY_INTERVAL
            logger.error("cannot write undelivered messages", extra={"reason": str(error)})
            raise
        self.write_error = None
        self.failures.clear()
        self._withdraw(waiting)

    def _withdraw(self, written: Sequence[DeliveryFailure]) -> None:
        """They are in the store now and are not retried any more."""
        if self._resent and written:
            self._queue.cancel_retries(self._resent)
            size = sum(failure.record.size for failure in written)
            self._ledger.settle(self._resent, size, undelivered=len(written))

    def _resend_transient(self) -> None:
        transient = [failure for failure in self.failures if failure.fault is Fault.TRANSIENT]
        if transient and (self._resent is None or self._resent.settled):
            self.failures[:] = [failure for failure in self.failures if failure.fault is not Fault.TRANSIENT]
            records = [failure.record for failure in transient]
            self._resent = Batch(records, self._clock(), self.failures, counted=True)
            self._ledger.add(self._resent)
            self._queue.schedule_retry(self._resent, transient, retry=1)

    def _first_keys(self) -> list[str]:
        return [(failure.record.key or b"").decode(errors="replace") for failure in self.failures[:MAX_LOGGED_KEYS]]
