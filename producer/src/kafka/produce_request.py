"""Messages under way to Kafka, and what became of each. No Kafka here."""

from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from src.model.message import Encoded


class Fault(Enum):
    """Whose fault it is that a message was not delivered, and so what helps."""

    WORLD = auto()
    """Nobody's: later it may get through."""
    COMPANY = auto()
    """Kafka refused all that came in one request: alone it may get through."""
    MESSAGE = auto()
    """Its own: it never will."""


class Failure(NamedTuple):
    """A message that has no confirmation. The reason is for people, and says if the message may be in the topic."""

    message: Encoded
    fault: Fault
    reason: str


class ProduceRequest:
    """Messages handed over together. Settled once each has its delivery report; then it is passed to `on_settled`."""

    def __init__(self, on_settled: Callable[["ProduceRequest"], None]) -> None:
        self.size = 0
        self.delivered = 0
        self.delivered_bytes = 0
        self.failures: list[Failure] = []
        self._on_settled = on_settled
        self._sealed = False
        self._unreported: dict[int, Encoded] = {}

    def load(self, message: Encoded) -> None:
        """The message numbered `size` is under way."""
        self._unreported[self.size] = message
        self.size += 1

    def refuse(self, message: Encoded, fault: Fault, reason: str) -> None:
        """The client would not even take this message."""
        self.failures.append(Failure(message, fault, reason))
        self.size += 1

    def seal(self) -> None:
        """Nothing more comes aboard."""
        self._sealed = True
        self._pass_on_if_settled()

    def report_delivered(self, number: int) -> None:
        message = self._unreported.pop(number, None)
        if message is not None:
            self.delivered += 1
            self.delivered_bytes += message.size
            self._pass_on_if_settled()

    def report_failed(self, number: int, fault: Fault, reason: str) -> None:
        message = self._unreported.pop(number, None)
        if message is not None:
            self.failures.append(Failure(message, fault, reason))
            self._pass_on_if_settled()

    def write_off(self, reason: str) -> None:
        """No more reports will come."""
        self.failures += [Failure(message, Fault.WORLD, reason) for message in self._unreported.values()]
        self._unreported.clear()

    def _pass_on_if_settled(self) -> None:
        if self._sealed and not self._unreported:
            self._on_settled(self)
