"""Records handed to the Kafka client together, and their delivery reports. Independent of the client itself."""

from collections.abc import Callable

from src.model.delivery_failure import DeliveryFailure, Fault
from src.model.message import ProducerRecord


class ProduceRequest:
    """Complete once every record has its delivery report; it is then passed to `on_complete`."""

    def __init__(self, on_complete: Callable[["ProduceRequest"], None]) -> None:
        self.size = 0
        self.delivered = 0
        self.delivered_bytes = 0
        self.failures: list[DeliveryFailure] = []
        self._on_complete = on_complete
        self._sealed = False
        self._unreported: dict[int, ProducerRecord] = {}

    def add(self, record: ProducerRecord) -> None:
        """The client has accepted the record; its number is `size` before the call."""
        self._unreported[self.size] = record
        self.size += 1

    def reject(self, record: ProducerRecord, fault: Fault, reason: str) -> None:
        """The client has not accepted the record; no delivery report will follow."""
        self.failures.append(DeliveryFailure(record, fault, reason))
        self.size += 1

    def seal(self) -> None:
        """No more records will be added."""
        self._sealed = True
        self._complete_if_reported()

    def report_delivered(self, number: int) -> None:
        record = self._unreported.pop(number, None)
        if record is not None:
            self.delivered += 1
            self.delivered_bytes += record.size
            self._complete_if_reported()

    def report_failed(self, number: int, fault: Fault, reason: str) -> None:
        record = self._unreported.pop(number, None)
        if record is not None:
            self.failures.append(DeliveryFailure(record, fault, reason))
            self._complete_if_reported()

    def fail_unreported(self, reason: str) -> None:
        """No more delivery reports will arrive."""
        self.failures += [DeliveryFailure(record, Fault.TRANSIENT, reason) for record in self._unreported.values()]
        self._unreported.clear()

    def _complete_if_reported(self) -> None:
        if self._sealed and not self._unreported:
            self._on_complete(self)
