"""What the Kafka client tells of partitions' offsets. What is not told in time is left out."""

import logging
from collections.abc import Collection

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, OFFSET_INVALID, Consumer, KafkaException, TopicPartition

from src.kafka.messages import reason
from src.kafka.statistics import Watermarks

logger = logging.getLogger(__name__)

COMMITTED_TIMEOUT = 10.0  # seconds to learn the committed offsets of new partitions
BEGINS_TIMEOUT = 10.0  # seconds to learn where they begin
ENDS_TIMEOUT = 1.0  # seconds


class OffsetLookup:
    """Asked by the thread that polls."""

    def __init__(self, consumer: Consumer, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic

    def committed(self, partitions: Collection[int]) -> list[TopicPartition]:
        """Where the group stands, with what was committed beside it; OFFSET_BEGINNING where it has committed nothing.

        Where that can't be learnt it is OFFSET_INVALID: the client then looks for itself.
        """
        asked = self._at(OFFSET_INVALID, partitions)
        try:
            answers = self._consumer.committed(asked, timeout=COMMITTED_TIMEOUT) if asked else []
        except KafkaException as error:
            logger.warning("committed offsets not told", extra={"reason": reason(error)})
            return asked
        for answer in answers:
            if not answer.error and answer.offset == OFFSET_INVALID:
                answer.offset = OFFSET_BEGINNING
        return answers

    def begins(self, partitions: Collection[int]) -> dict[int, int]:
        """The offset of each one's oldest message."""
        return self._told(OFFSET_BEGINNING, partitions, BEGINS_TIMEOUT)

    def ends(self, partitions: Collection[int]) -> dict[int, int]:
        """The offset after each one's last message."""
        return self._told(OFFSET_END, partitions, ENDS_TIMEOUT)

    def spans(self, partitions: Collection[int]) -> dict[int, Watermarks]:
        """Both, None where it is not told."""
        begins, ends = self.begins(partitions), self.ends(partitions)
        return {partition: Watermarks(begins.get(partition), ends.get(partition)) for partition in partitions}

    def _told(self, where: int, partitions: Collection[int], timeout: float) -> dict[int, int]:
        if not partitions:
            return {}
        try:
            answers = self._consumer.offsets_for_times(self._at(where, partitions), timeout=timeout)
        except KafkaException:
            return {}
        return {answer.partition: answer.offset for answer in answers if not answer.error}

    def _at(self, offset: int, partitions: Collection[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, partition, offset) for partition in partitions]
