"""The Kafka of a run: the embedded broker behind its gate, or a real one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from local.broker import RETENTION_BYTES, EmbeddedBroker
from local.gate import Gate, Window
from local.options import Options
from local.plan import Names
from local.progress import Meter, Progress, make_topics

UNSETTLED_BYTES = RETENTION_BYTES * 4 // 5  # in all, so that not even a single partition comes near its limit
JOIN_WITHIN_MS = 2000  # consumers that start together become one group at once; a later one stops it for seconds


class Kafka(Protocol):
    """Where the messages go through."""

    @property
    def address(self) -> str: ...

    def progress(self) -> Progress:
        """How far they have come. Raises CannotRun."""


class RealKafka:
    def __init__(self, address: str, meter: Meter) -> None:
        self.address = address
        self._meter = meter

    def progress(self) -> Progress:
        return self._meter.read()


class EmbeddedKafka:
    """Each look at the progress opens the gate by as much as has been settled since."""

    def __init__(self, gate: Gate, window: Window, meter: Meter) -> None:
        self.address = _address(gate)
        self._gate = gate
        self._window = window
        self._meter = meter

    def progress(self) -> Progress:
        answered = self._gate.answered  # before the offsets are read, so that they cover at least these bytes
        progress = self._meter.read()
        self._window.mark(answered, progress.ends)
        self._window.settle(progress.committed)
        self._gate.allow(self._window.allowed)
        return progress


@contextmanager
def kafka(options: Options, names: Names, unsettled_bytes: int = UNSETTLED_BYTES) -> Iterator[Kafka]:
    """The Kafka that the options ask for, with both topics. Raises CannotRun."""
    if options.kafka:
        partitions = make_topics(options.kafka, names.topic, names.dead_letter_topic, options.partitions)
        yield RealKafka(options.kafka, Meter(options.kafka, names.topic, names.group, partitions))
        return
    topics = {names.topic: options.partitions, names.dead_letter_topic: 1}
    window = Window(unsettled_bytes)
    with (
        EmbeddedBroker(topics, rebalance_delay_ms=JOIN_WITHIN_MS) as broker,
        Gate(broker.address, names.topic, window.allowed) as gate,
    ):
        broker.advertise(gate.port)
        yield EmbeddedKafka(gate, window, Meter(_address(gate), names.topic, names.group, options.partitions))


def _address(gate: Gate) -> str:
    return f"127.0.0.1:{gate.port}"
