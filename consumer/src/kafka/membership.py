"""A Kafka client that has lost its group and does not find it again: noticed, and let go without waiting for it."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Thread

from confluent_kafka import Consumer, KafkaException

from src.kafka.statistics import ClusterStatistics

logger = logging.getLogger(__name__)

CLOSED_WITHIN = 10.0  # seconds


class MembershipWatchdog:
    """Notices a client that brokers answer, and that is in no group for longer than `patience` seconds.

    No rebalance takes longer than one max.poll.interval.ms: by then a member is in, or out.
    """

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._astray_since: float | None = None

    def notices(self, view: ClusterStatistics) -> bool:
        """To be asked again and again; having said yes, it begins anew."""
        if view.in_group or view.trouble:
            self._astray_since = None
            return False
        now = self._clock()
        if self._astray_since is None:
            self._astray_since = now
        if now - self._astray_since < self._patience:
            return False
        self._astray_since = None
        return True


def close_in_background(client: Consumer, within: float = 0.0) -> Thread:
    """Close it in a thread of its own, which is returned, and wait so many seconds: it may never come to an end."""
    closing = Thread(target=_close, args=[client], name="closing", daemon=True)
    closing.start()
    closing.join(within)
    if within and closing.is_alive():
        logger.warning("the Kafka client is not closed in time and is left behind", extra={"seconds": within})
    return closing


def _close(client: Consumer) -> None:
    with suppress(KafkaException, RuntimeError):
        client.close()
