"""A batch of records and the attempts to send it."""

from collections.abc import Sequence
from dataclasses import dataclass

from src.model.delivery_failure import DeliveryFailure
from src.model.message import ProducerRecord, total_size


class Batch:
    """Records accepted together. It is settled once each of them is delivered or has failed permanently."""

    def __init__(
        self,
        records: Sequence[ProducerRecord],
        started: float,
        failures: list[DeliveryFailure],
        *,
        counted: bool = False,
    ) -> None:
        self.size = len(records)
        self.bytes = total_size(records)
        self.started = started
        self.failures = failures
        """Receives the permanent failures; batches may share the list."""
        self.counted = counted
        """The records have failed before and were counted then."""
        self.delivered = 0
        self.undelivered = 0

    @property
    def in_flight(self) -> int:
        return self.size - self.delivered - self.undelivered

    @property
    def settled(self) -> bool:
        return not self.in_flight


@dataclass(frozen=True)
class SendAttempt:
    """Records of one batch that are sent together, for the first time or as retry number `retry`."""

    batch: Batch
    records: Sequence[ProducerRecord]
    retry: int = 0
    alone: bool = False
    failures: Sequence[DeliveryFailure] = ()
    """Why the previous attempt failed, while these records wait for their retry."""

    def size_of(self, count: int) -> int:
        """Bytes of the first records; known already where these are the whole batch."""
        return self.batch.bytes if count == self.batch.size else total_size(self.records[:count])
