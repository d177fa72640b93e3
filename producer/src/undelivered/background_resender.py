"""Resends undelivered messages while the producer sends new ones."""

import logging
import time
from collections.abc import Callable
from threading import Event
from typing import Self

from src.delivery.batch import Batch
from src.delivery.delivery import Delivery
from src.model.delivery_failure import Fault
from src.undelivered.folder import UndeliveredFolder
from src.undelivered.resender import BATCH_SIZE, Resender, SegmentResult
from src.utils.locking import LOCKS

logger = logging.getLogger(__name__)

BATCH_INTERVAL = 1.0  # seconds from one batch to the next
RETRY_INTERVAL = 10.0  # seconds until the next attempt after a failed one
SCAN_INTERVAL = 5.0  # seconds until the folder is read again …
SCAN_INTERVAL_AFTER_ERROR = 60.0  # … and where a segment could not be read or rewritten


class BackgroundResender:
    """Empties the folder at a moderate rate; while deliveries fail, a single message probes Kafka at intervals.

    Does nothing on Windows, where another process's segments cannot be recognized.
    """

    def __init__(
        self,
        folder: UndeliveredFolder,
        delivery: Delivery,
        *,
        stop: Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.error: str | None = None
        self._latest_error: str | None = None
        self._folder = folder
        self._delivery = delivery
        self._stop = stop
        self._clock = clock
        self._resender = Resender(folder, delivery, on_result=self._log_result)
        self._batches = self._resender.batches(stop.is_set)
        self._batch: Batch | None = None
        self._due = clock()

    @property
    def in_flight(self) -> int:
        return self._batch.in_flight if self._batch else 0

    @property
    def has_own_messages(self) -> bool:
        """Whether messages that this process wrote can still be sent, and Kafka accepts messages."""
        if not LOCKS or self.error or not self._delivery.healthy:
            return False
        return any(self._resender.may_send(path) for path in self._folder.own)

    def poll_once(self) -> None:
        """Send the next batch if it is due."""
        if self._batch and self._batch.settled:
            if any(failure.fault is Fault.TRANSIENT for failure in self._batch.failures):
                self._due = self._clock() + RETRY_INTERVAL
            self._batch = None
        if LOCKS and self._batch is None and self._clock() >= self._due and self._delivery.has_resend_capacity:
            self._send_next()

    def close(self) -> None:
        """Write unsent messages back into their segment. Call it once nothing is in flight."""
        if not self.in_flight:
            next(self._batches, None)
        self._batches.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _send_next(self) -> None:
        self._resender.batch_size = BATCH_SIZE if self._delivery.healthy else 1
        self._batch = next(self._batches, None)
        self._due = self._clock() + BATCH_INTERVAL
        if self._batch is None:
            self._start_next_pass()

    def _start_next_pass(self) -> None:
        self.error, self._latest_error = self._latest_error, None
        self._due = self._clock() + (SCAN_INTERVAL_AFTER_ERROR if self.error else SCAN_INTERVAL)
        self._batches = self._resender.batches(self._stop.is_set)

    def _log_result(self, result: SegmentResult) -> None:
        fields = {"segment": result.segment.name, "sent": result.sent, "left": result.left}
        if result.error:
            self._latest_error = f"cannot resend undelivered messages: {result.segment}: {result.error}"
            logger.error("cannot resend undelivered messages", extra={**fields, "reason": result.error})
        elif result.corrupt:
            logger.warning("corrupt lines moved aside", extra={**fields, "corrupt": result.corrupt})
        elif result.sent:
            logger.info("undelivered messages resent", extra=fields)
