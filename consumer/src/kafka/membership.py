"""Detects a Kafka client that has lost its group membership for good, and closes clients in the background."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Thread

from confluent_kafka import Consumer, KafkaException

from src.kafka.statistics import ClusterStatistics

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 10.0  # seconds


class MembershipWatchdog:
    """Detects a client that has been connected to brokers but outside its group for longer than `timeout` seconds.

    No rebalance takes longer than one max.poll.interval.ms: by then a member is in the group, or was removed.
    """

    def __init__(self, timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout = timeout
        self._clock = clock
        self._outside_since: float | None = None

    def expired(self, statistics: ClusterStatistics) -> bool:
        """Call it in every iteration of the loop. After True, the time starts again."""
        if statistics.in_group or statistics.unreachable:
            self._outside_since = None
            return False
        now = self._clock()
        if self._outside_since is None:
            self._outside_since = now
        if now - self._outside_since < self._timeout:
            return False
        self._outside_since = None
        return True


def close_in_background(client: Consumer, timeout: float = 0.0) -> Thread:
    """Close the client in a thread, and wait up to `timeout` seconds: a close may never end. Returns the thread."""
    closing = Thread(target=_close, args=[client], name="closing", daemon=True)
    closing.start()
    closing.join(timeout)
    if timeout and closing.is_alive():
        logger.warning("close timed out, client abandoned", extra={"seconds": timeout})
    return closing


def _close(client: Consumer) -> None:
    with suppress(KafkaException, RuntimeError):
        client.close()
