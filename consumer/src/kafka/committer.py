"""From a batch's result to a committed offset: what is settled, when it is committed, and whose it is."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from src.kafka.assignment import OffsetTracker
from src.kafka.statistics import Watermarks
from src.model.record import Record
from src.pipeline.batch_writer import Result
from src.pipeline.writer_thread import WriterThread
from src.utils.metrics import ConsumerMetrics

logger = logging.getLogger(__name__)

_NO_COMMIT = (
    "the group or the topic is new, or the committed offsets have expired (offsets.retention.minutes): it begins at the"
    " oldest messages, and whether any were lost before can't be told"
)

STOCK_EVERY = 1.0  # seconds
DRAIN = 3.0  # seconds that a partition's batch in hand may take before the partition is let go


class Commits(Protocol):
    """What a source offers to whom it tells of its partitions."""

    committing: bool

    def commit(self, offsets: Mapping[int, int]) -> None: ...

    def commit_now(self, offsets: Mapping[int, int]) -> None: ...

    def ends(self, partition: int) -> Watermarks: ...

    @property
    def ends_met(self) -> Mapping[int, int]: ...


class Settlement:
    """Commits by time, on revoke and on close, never past what is settled. Hears from the source of its partitions."""

    def __init__(
        self,
        source: Commits,
        writer: WriterThread,
        metrics: ConsumerMetrics,
        *,
        topic: str,
        commit_every: float,
        tracker: OffsetTracker | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._writer = writer
        self._metrics = metrics
        self._topic = topic
        self._commit_every = commit_every
        self._clock = clock
        self._tracker = tracker or OffsetTracker()
        self._last_commit = clock()
        self._last_stock = self._last_commit - STOCK_EVERY

    def take(self, records: Sequence[Record]) -> list[Record]:
        """Those whose partition is still ours; they are in hand from now on."""
        ours = [record for record in records if self._tracker.owns(record)]
        self._tracker.take(ours)
        return ours

    def settle(self, results: Sequence[Result]) -> None:
        for result in results:
            self._tracker.settle(result.records)
            self._count(result)

    def commit_if_due(self) -> None:
        now = self._clock()
        if self._source.committing or now - self._last_commit < self._commit_every:
            return
        self._last_commit = now
        if due := self._tracker.due():
            self._source.commit(due)

    def take_stock_if_due(self) -> None:
        if self._clock() - self._last_stock >= STOCK_EVERY:
            self.take_stock()

    def take_stock(self) -> None:
        """Pass what was read and is no message, and show what lies ahead. Only while all that was polled is taken."""
        self._last_stock = self._clock()
        self._tracker.reach(self._source.ends_met)
        self._show_lag()

    # -- what the source tells

    def assigned(self, committed: Mapping[int, int | None], assignment: int) -> None:
        for partition, offset in committed.items():
            self._tracker.assign(partition, assignment, offset)
        self._changed("assigned", tuple(committed))

    def begun(self, positions: Mapping[int, int]) -> None:
        for partition, position in positions.items():
            self._tracker.skip_to(partition, position)
        if later := {partition: position for partition, position in positions.items() if position > 0}:
            logger.warning(
                "started without a committed offset, and not at 0", extra={"oldest": later, "reason": _NO_COMMIT}
            )

    def revoking(self, partitions: Collection[int]) -> None:
        self.settle(self._writer.drain(DRAIN))
        due = self._tracker.due(partitions)
        self._forget(partitions)  # before the commit, which may take seconds: the writer parks nothing of them any more
        if due:
            self._source.commit_now(due)
        self._changed("revoked", partitions)

    def lost(self, partitions: Collection[int]) -> None:
        self._forget(partitions)
        self._changed("lost", partitions)

    def replaced(self, partitions: Collection[int]) -> None:
        self._forget(partitions)

    def skipped(self, partition: int, offsets: int, position: int) -> None:
        logger.warning("offsets skipped", extra={"partition": partition, "offsets": offsets, "position": position})
        self._tracker.skip_to(partition, position)
        self._metrics.skipped_offsets.inc(offsets)

    def committed(self, offsets: Mapping[int, int]) -> None:
        self._tracker.confirm(offsets)
        self._metrics.commits_confirmed.inc()

    def refused(self, offsets: Mapping[int, int]) -> None:
        logger.debug("offsets stay due", extra={"partitions": sorted(offsets)})
        self._metrics.commits_refused.inc()

    # -- what is shown

    def _changed(self, event: str, partitions: Collection[int]) -> None:
        owned = sorted(self._tracker.partitions)
        logger.info(f"partitions {event}", extra={"partitions": sorted(partitions), "owned": owned})
        self._metrics.rebalances[event].inc()
        self._metrics.assigned_partitions.set(len(owned))

    def _forget(self, partitions: Collection[int]) -> None:
        for partition in partitions:
            self._tracker.revoke(partition)
            self._metrics.forget_lag(self._topic, partition)
        self._metrics.assigned_partitions.set(len(self._tracker.partitions))

    def _show_lag(self) -> None:
        for partition in self._tracker.partitions:
            low, high = self._source.ends(partition)
            position = self._tracker.position(partition)
            reached = low if position is None else position
            if high is None or reached is None:
                self._metrics.forget_lag(self._topic, partition)
            else:
                self._metrics.lag.labels(self._topic, partition).set(max(0, high - reached))

    def _count(self, result: Result) -> None:
        metrics = self._metrics
        metrics.stored.inc(len(result.stored))
        metrics.duplicates.inc(result.duplicates)
        metrics.dead_lettered.inc(len(result.rejections))
        metrics.batch_size.observe(len(result.records))
        metrics.storage_latency.observe(result.storage_seconds)
        metrics.last_progress.set(result.finished)
        for record in result.stored:
            if record.timestamp is not None:
                metrics.end_to_end_latency.observe(result.finished - record.timestamp / 1000)
        if result.rejections:
            self._count_rejections(result)
        logger.debug(
            "batch settled",
            extra={"stored": len(result.stored), "duplicates": result.duplicates, "parked": len(result.rejections)},
        )

    def _count_rejections(self, result: Result) -> None:
        reasons = Counter(rejection.reason for rejection in result.rejections)
        for reason, number in reasons.items():
            self._metrics.dead_letters.labels(reason).inc(number)
        logger.info("messages parked", extra={"reasons": dict(reasons)})
