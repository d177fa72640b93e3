"""What the writer asks of the assignment."""

from typing import Protocol

from src.model.record import Record


class Ownership(Protocol):
    """Assignment is one. Safe to call from any thread."""

    def owns(self, record: Record) -> bool:
        """Whether the record's partition is still assigned to this consumer, under the record's number."""

    def commits_rejected(self, record: Record) -> bool:
        """Whether Kafka rejected the last commit for the record's partition, as during a rebalance."""
