"""Decides from which offset a partition is read when it is assigned, or when its position no longer exists.

Nothing is skipped silently: with `on_offset_gap: stop` a partition without its committed offset, or of a recreated
topic, is stopped until an operator intervenes; with `earliest` it is read from its oldest message, and that is logged.
"""

import logging
from collections.abc import Collection, Iterable, Sequence

from confluent_kafka import OFFSET_BEGINNING, Consumer
from confluent_kafka import TopicPartition as PartitionOffset

from src.kafka.assignment import Assignment, Start
from src.kafka.fetcher import Fetcher
from src.kafka.messages import partition_of
from src.kafka.offset_lookup import OffsetLookup
from src.kafka.statistics import Watermarks
from src.kafka.topic_monitor import UNKNOWN_ID, TopicMonitor, is_topic_id
from src.model.position import TopicPartition
from src.utils.metrics import ConsumerMetrics

logger = logging.getLogger(__name__)

_RECREATED = "the topic was deleted and recreated; see consumer.on_offset_gap"
_NO_COMMIT = (
    "the group or the topic is new, or the committed offsets have expired (offsets.retention.minutes): reading starts"
    " at the oldest messages; whether any messages were lost before is unknown"
)

_FOREIGN_COMMIT = (
    "another consumer in this group, or a reset of its offsets: messages before these offsets may be neither stored nor"
    " dead-lettered; the audit counts them"
)


class OffsetReset:
    """Used by the thread that polls, also inside rebalance callbacks."""

    def __init__(
        self,
        client: Consumer,
        assignment: Assignment,
        fetcher: Fetcher,
        topic_monitor: TopicMonitor,
        metrics: ConsumerMetrics,
        *,
        on_offset_gap: str,
    ) -> None:
        self._assignment = assignment
        self._fetcher = fetcher
        self._topic_monitor = topic_monitor
        self._metrics = metrics
        self._on_offset_gap = on_offset_gap
        self._lookup = OffsetLookup(client)

    def start(self, partitions: Sequence[TopicPartition]) -> None:
        """Read newly assigned partitions from their committed offsets, or from their oldest messages."""
        starts = self._lookup.committed(partitions)
        self._start(starts)
        self._topic_monitor.renew()
        self._compare_topic_id(partitions)
        self._report_foreign_commits(starts)

    def handle_gaps(self) -> None:
        """Call it before each fetch, when all fetched records are in flight under their assignment's number."""
        self._topic_monitor.refresh()
        missing = self._out_of_range()
        if missing:
            self._topic_monitor.renew()  # an offset may be gone with its topic
        self._compare_topic_id(self._assignment.partitions)
        for partition in missing:
            self._handle_out_of_range(partition)

    def stop(self, partition: TopicPartition, reason: str) -> None:
        """Stop the partition until an operator intervenes; the others continue."""
        self._assignment[partition].gap = f"{partition}: {reason}"
        self._fetcher.pause_one(partition)

    def _start(self, starts: Sequence[PartitionOffset]) -> None:
        by_partition = {partition_of(start): start for start in starts}
        uncommitted = [each for each, start in by_partition.items() if start.offset == OFFSET_BEGINNING]
        earliest = self._lookup.earliest(uncommitted)
        self._fetcher.start({each: earliest.get(each, start.offset) for each, start in by_partition.items()})
        self._assignment.assign({each: _known(start) for each, start in by_partition.items()})
        for partition, offset in earliest.items():
            self._assignment.skip_to(partition, offset)
        if later := {str(partition): offset for partition, offset in earliest.items() if offset > 0}:
            logger.warning(
                "no committed offset, reading from the earliest", extra={"earliest": later, "reason": _NO_COMMIT}
            )

    def _report_foreign_commits(self, starts: Sequence[PartitionOffset]) -> None:
        """The metadata of every commit of this service is the topic's id, as far as it was known."""
        foreign = {
            str(partition_of(each)): each.offset
            for each in starts
            if each.offset >= 0 and not _is_own(each.metadata) and self._topic_monitor.topic_id(each.topic) is not None
        }
        if foreign:
            self._metrics.foreign_commits.inc(len(foreign))
            logger.warning("offset committed by another program", extra={"offsets": foreign, "reason": _FOREIGN_COMMIT})

    def _restart(self, partitions: Collection[TopicPartition]) -> None:
        """Read from the oldest messages, under a new assignment number: records with the old one are ignored."""
        self._fetcher.stop(partitions)
        self._start([PartitionOffset(*partition, OFFSET_BEGINNING) for partition in partitions])

    # -- the topic was recreated

    def _compare_topic_id(self, partitions: Iterable[TopicPartition]) -> None:
        """A recreated topic has other messages at the same offsets."""
        recreated = [partition for partition in partitions if self._belongs_to_another_topic(partition)]
        if not recreated:
            return
        for partition, watermarks in self._lookup.watermarks(recreated).items():
            self._assignment[partition].out_of_range = None
            self._report(partition, None, watermarks, _RECREATED)
        if self._on_offset_gap == "earliest":
            for partition in recreated:
                self._assignment.topic_ids.pop(partition.topic, None)
            self._restart(recreated)
        else:
            for partition in recreated:
                self.stop(partition, _RECREATED)
            self._assignment.discard(recreated)

    def _belongs_to_another_topic(self, partition: TopicPartition) -> bool:
        state, current = self._assignment[partition], self._topic_monitor.topic_id(partition.topic)
        if current is None or state.gap is not None:
            return False
        known = self._assignment.topic_ids.setdefault(partition.topic, current)
        if state.topic_id is None:  # Kafka deletes the committed offsets of a deleted topic
            state.topic_id = known if state.committed is None else current
        return state.topic_id != current

    # -- a position no longer exists

    def _out_of_range(self) -> Sequence[TopicPartition]:
        assignment = self._assignment
        return [partition for partition in assignment.partitions if assignment[partition].out_of_range is not None]

    def _handle_out_of_range(self, partition: TopicPartition) -> None:
        state = self._assignment[partition]
        missing, state.out_of_range = state.out_of_range, None
        if missing is None:
            return  # the topic was recreated, and the partition restarted or stopped
        if missing.offset is None or missing.offset < 0:  # no committed offset, but its lookup timed out
            self._restart([partition])
            return
        text = f"offset {missing.offset} no longer exists; see consumer.on_offset_gap"
        watermarks = self._lookup.watermarks([partition])[partition]
        self._report(partition, missing.offset, watermarks, text)
        if self._on_offset_gap != "earliest":
            self.stop(partition, text)
        elif watermarks.low is None or watermarks.low < missing.offset:  # the position is after the high watermark
            self._restart([partition])
        else:
            self._skip(partition, missing.offset, watermarks.low)

    def _skip(self, partition: TopicPartition, missing: int, earliest: int) -> None:
        """Records from before the gap are still settled."""
        self._fetcher.stop([partition])
        self._fetcher.start({partition: earliest})
        self._assignment.skip_to(partition, earliest)
        self._metrics.skipped_offsets.inc(earliest - missing)
        logger.warning(
            "offsets skipped",
            extra={**partition._asdict(), "offsets": earliest - missing, "position": earliest},
        )

    def _report(self, partition: TopicPartition, missing: int | None, watermarks: Watermarks, text: str) -> None:
        logger.error(
            "committed offset no longer exists",
            extra={
                **partition._asdict(),
                "missing_offset": missing,
                **watermarks._asdict(),
                "reason": text,
                "on_offset_gap": self._on_offset_gap,
            },
        )


def _is_own(metadata: str | None) -> bool:
    return metadata == UNKNOWN_ID or is_topic_id(metadata)


def _known(start: PartitionOffset) -> Start:
    return Start(
        committed=start.offset if start.offset >= 0 else None,
        topic_id=start.metadata if is_topic_id(start.metadata) else None,
    )
