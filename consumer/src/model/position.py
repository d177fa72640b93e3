"""Where a message is in Kafka."""

from typing import NamedTuple


class MessagePosition(NamedTuple):
    topic: str
    partition: int
    offset: int
