"""Records handed to the Kafka client together, and their delivery reports. Independent of the client itself."""

from collections.abc import Callable, Sequence

from src.model.delivery_failure import DeliveryFailure, Fault
from src.model.message import ProducerRecord

Identifier = bytes | int | None


class ProduceRequest:
    """Complete once every record has its delivery report; it is then passed to `on_complete`.

    A report identifies its record by the key, or by its number where a key is empty, missing or repeated.
    """

    def __init__(self, records: Sequence[ProducerRecord], on_complete: Callable[["ProduceRequest"], None]) -> None:
        self.size = len(records)
        self.failures: list[DeliveryFailure] = []
        self.identifiers: Sequence[Identifier] = [record.key for record in records]
        self._on_complete = on_complete
        self._sealed = False
        self._unreported: dict[Identifier, ProducerRecord] = dict(zip(self.identifiers, records, strict=True))
        self.identified_by_key = len(self._unreported) == self.size and not {None, b""} & self._unreported.keys()
        if not self.identified_by_key:
            self.identifiers = range(self.size)
            self._unreported = dict(enumerate(records))

    @property
    def delivered(self) -> int:
        return self.size - len(self.failures) - len(self._unreported)

    def seal(self, size: int) -> None:
        """The client has accepted or rejected the first `size` records, and has no capacity for the others."""
        for identifier in self.identifiers[size:]:
            del self._unreported[identifier]
        self.size = size
        self._sealed = True
        self._complete_if_reported()

    def report_delivered(self, identifier: Identifier) -> None:
        if self._unreported.pop(identifier, None) is not None and not self._unreported:
            self._complete_if_reported()

    def report_failed(self, identifier: Identifier, fault: Fault, reason: str) -> None:
        record = self._unreported.pop(identifier, None)
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
