"""Where a message is in Kafka."""

from typing import NamedTuple


class TopicPartition(NamedTuple):
    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class MessagePosition(NamedTuple):
    topic: str
    partition: int
    offset: int
