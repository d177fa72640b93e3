"""Which partitions the Kafka client fetches, and from which offset."""

from collections.abc import Collection, Iterable, Mapping

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as PartitionOffset

from src.model.position import TopicPartition


class Fetcher:
    """Used by the thread that polls, also inside rebalance callbacks. Raises KafkaException."""

    def __init__(self, client: Consumer, *, paused: bool) -> None:
        self._client = client
        self.paused = paused
        """Whether all partitions are paused, including those that are assigned later."""
        self.held: frozenset[TopicPartition] = frozenset()
        """The partitions that are paused whatever happens to the others, until they are no longer held."""

    def start(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Fetch these partitions from these offsets."""
        positions = [PartitionOffset(*partition, offset) for partition, offset in offsets.items()]
        self._client.incremental_assign(positions)
        # explicitly: a pause before the assignment is ignored, and an older one outlives it
        self._client.pause(_at(offsets.keys() if self.paused else offsets.keys() & self.held))
        self._resume(offsets)

    def stop(self, partitions: Collection[TopicPartition]) -> None:
        """Unassign these partitions, and drop their messages that were fetched and not returned yet."""
        self._client.incremental_unassign(_at(partitions))

    def pause_one(self, partition: TopicPartition) -> None:
        """Pause this partition only, whatever happens to the others."""
        self._client.pause(_at([partition]))

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        self.paused = True
        self._client.pause(_at(partitions))

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        self.paused = False
        self._resume(partitions)

    def hold(self, partitions: frozenset[TopicPartition], readable: Collection[TopicPartition]) -> None:
        """Pause these partitions, and resume those that were held before, as far as they are readable."""
        released, self.held = self.held - partitions, partitions
        self._client.pause(_at(partitions))
        self._resume(released.intersection(readable))

    def _resume(self, partitions: Iterable[TopicPartition]) -> None:
        if not self.paused:
            self._client.resume(_at(frozenset(partitions) - self.held))


def _at(partitions: Iterable[TopicPartition]) -> list[PartitionOffset]:
    return [PartitionOffset(*partition) for partition in partitions]
