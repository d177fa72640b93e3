"""A record that Kafka has not acknowledged, and what can be done about it."""

from enum import Enum, auto
from typing import NamedTuple

from src.model.message import ProducerRecord


class Fault(Enum):
    """What caused a failed delivery, which decides what happens next."""

    TRANSIENT = auto()
    """A condition that may pass; the record is retried."""
    BATCH = auto()
    """Kafka rejected a whole produce request; the record is retried alone."""
    PERMANENT = auto()
    """The record itself; it will never be accepted."""


class DeliveryFailure(NamedTuple):
    """The reason is for people; it says whether the message may be in the topic anyway."""

    record: ProducerRecord
    fault: Fault
    reason: str
