"""Looks up partition offsets in Kafka. A partition is left out if there is no response for it in time."""

import logging
from collections.abc import Collection

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, OFFSET_INVALID, Consumer, KafkaException
from confluent_kafka import TopicPartition as PartitionOffset

from src.kafka.messages import partition_of, reason
from src.kafka.statistics import Watermarks
from src.model.position import TopicPartition

logger = logging.getLogger(__name__)

COMMITTED_TIMEOUT = 10.0  # seconds to fetch the committed offsets of new partitions
EARLIEST_TIMEOUT = 10.0  # seconds
LATEST_TIMEOUT = 1.0  # seconds


class OffsetLookup:
    """Used by the thread that polls, which waits for the responses."""

    def __init__(self, client: Consumer) -> None:
        self._client = client

    def committed(self, partitions: Collection[TopicPartition]) -> list[PartitionOffset]:
        """The group's offsets with their metadata; OFFSET_BEGINNING where it has committed none.

        Without a response they are OFFSET_INVALID: the client then fetches them itself.
        """
        asked = _at(OFFSET_INVALID, partitions)
        try:
            results = self._client.committed(asked, timeout=COMMITTED_TIMEOUT) if asked else []
        except KafkaException as error:
            logger.warning("committed offsets unavailable", extra={"reason": reason(error)})
            return asked
        for result in results:
            if not result.error and result.offset == OFFSET_INVALID:
                result.offset = OFFSET_BEGINNING
        return results

    def earliest(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset of each partition's oldest message."""
        return self._offsets(OFFSET_BEGINNING, partitions, EARLIEST_TIMEOUT)

    def latest(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset after each partition's newest message."""
        return self._offsets(OFFSET_END, partitions, LATEST_TIMEOUT)

    def watermarks(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Watermarks]:
        earliest, latest = self.earliest(partitions), self.latest(partitions)
        return {partition: Watermarks(earliest.get(partition), latest.get(partition)) for partition in partitions}

    def _offsets(self, which: int, partitions: Collection[TopicPartition], timeout: float) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        try:
            results = self._client.offsets_for_times(_at(which, partitions), timeout=timeout)
        except KafkaException:
            return {}
        return {partition_of(result): result.offset for result in results if not result.error}


def _at(offset: int, partitions: Collection[TopicPartition]) -> list[PartitionOffset]:
    return [PartitionOffset(*partition, offset) for partition in partitions]
