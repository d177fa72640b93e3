"""Fakes of Kafka, the clock and the undelivered store, and helpers for tests. The fakes of Kafka and of the store pass
the same contract tests as what they replace.
"""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat
from pathlib import Path

from src.kafka.produce_request import Identifier, ProduceRequest
from src.model.delivery_failure import DeliveryFailure, Fault
from src.model.errors import FatalClientError, UndeliveredStoreError
from src.model.message import ProducerRecord
from src.undelivered.record import from_line
from src.undelivered.segments import segment_paths

UNLIMITED = 1_000_000
DEADLINE = 10.0  # seconds after which a test has failed


def record(name: str, size: int = 0) -> ProducerRecord:
    """A record whose key is its name."""
    value = b'{"id":"%s"}' % name.encode() + b" " * size
    return ProducerRecord(name.encode(), value, [("content-type", b"application/json")])


def records(count: int) -> list[ProducerRecord]:
    return [record(str(number)) for number in range(count)]


def key(record: ProducerRecord) -> str:
    return (record.key or b"").decode()


def keys_in(*segments: Path) -> list[str]:
    """The keys in these segments, without corrupt lines."""
    lines = [line for segment in segments for line in segment.read_bytes().splitlines(keepends=True)]
    return [key(undelivered.producer_record) for line in lines if (undelivered := from_line(line))]


def undelivered_keys(folder: Path) -> list[str]:
    return keys_in(*segment_paths(folder))


class FakeClock:
    """Advances when a caller waits."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class FakePublisher:
    """Delivers in memory, in the next `poll`. `failures` is a script of the failures of single records, by key."""

    def __init__(self, clock: FakeClock | None = None, *, capacity: int = UNLIMITED) -> None:
        self.delivered: list[ProducerRecord] = []
        self.sizes: list[int] = []
        self.unavailable_reason: str | None = None
        self.topic_failure: str | None = None
        self.silent = False
        """While set, there are no delivery reports."""
        self.failing: str | None = None
        """While set, every record fails for this transient reason."""
        self.reject_next: str | None = None
        """The next record is rejected permanently, for this reason."""
        self.failures: dict[bytes, deque[tuple[Fault, str]]] = {}
        self.fatal_after: int | None = None
        self.closed = False
        self.on_poll: Callable[[], None] = lambda: None
        self.on_close: Callable[[], None] = lambda: None
        self._clock = clock or FakeClock()
        self._capacity = capacity
        self._in_flight: deque[tuple[ProduceRequest, Identifier, ProducerRecord]] = deque()
        self._completed: list[ProduceRequest] = []

    def fail(self, name: str, *reasons: str, fault: Fault = Fault.TRANSIENT) -> None:
        """Let a record fail once for each reason."""
        self.failures[name.encode()] = deque((fault, reason) for reason in reasons)

    def send(self, records: Sequence[ProducerRecord]) -> ProduceRequest:
        request = ProduceRequest(records, self._completed.append)
        request.seal(min(len(records), max(0, self._capacity - len(self._in_flight))))
        self._in_flight.extend(zip(repeat(request), request.identifiers[: request.size], records, strict=False))
        self.sizes.append(request.size)
        return request

    def poll(self, timeout: float) -> list[ProduceRequest]:
        self.on_poll()
        if self.fatal_after is not None and len(self.delivered) >= self.fatal_after:
            raise FatalClientError("fatal Kafka client error: fenced")
        if not self._completed and (self.silent or not self._in_flight):
            self._clock.advance(timeout)
        while self._in_flight and not self.silent:
            self._report(*self._in_flight.popleft())
        completed, self._completed[:] = list(self._completed), []
        return completed

    def purge(self) -> None:
        self.silent = False
        for request, identifier, _ in self._in_flight:
            request.report_failed(identifier, Fault.TRANSIENT, "producer stopped before the acknowledgement")
        self._in_flight.clear()

    def close(self) -> None:
        self.on_close()
        self.closed = True

    def _report(self, request: ProduceRequest, identifier: Identifier, record: ProducerRecord) -> None:
        failures = self.failures.get(record.key or b"")
        if self.failing:
            request.report_failed(identifier, Fault.TRANSIENT, self.failing)
        elif self.reject_next:
            request.report_failed(identifier, Fault.PERMANENT, self.reject_next)
            self.reject_next = None
        elif failures:
            request.report_failed(identifier, *failures.popleft())
        else:
            self.delivered.append(record)
            request.report_delivered(identifier)


class ScriptedPublisher:
    """Accepts records within its capacity, and reports on each as the script says. An idle client accepts one."""

    def __init__(self, clock: FakeClock) -> None:
        self.unavailable_reason: str | None = None
        self.topic_failure: str | None = None
        self.fatal = False
        self.capacity = UNLIMITED
        self.delivers = False
        """While set, everything is delivered by the next poll."""
        self.script: deque[Fault | None] = deque()
        """The delivery reports that arrive during the next polls; None is delivered."""
        self.purges = True
        self.in_flight: list[tuple[ProduceRequest, Identifier, bytes]] = []
        self.confirmed: set[bytes] = set()
        """The keys whose delivery report was accepted."""
        self.closed = False
        self._clock = clock
        self._completed: list[ProduceRequest] = []

    def send(self, records: Sequence[ProducerRecord]) -> ProduceRequest:
        request = ProduceRequest(records, self._completed.append)
        request.seal(min(len(records), max(0, self.capacity - len(self.in_flight))))
        for identifier, record in zip(request.identifiers[: request.size], records, strict=False):
            self.in_flight.append((request, identifier, record.key or b""))
        return request

    def poll(self, timeout: float) -> list[ProduceRequest]:
        if self.fatal:
            raise FatalClientError("fatal Kafka client error: fenced")
        while self.delivers and self.in_flight:
            self.report(0, None)
        if self.script:
            self.report(0, self.script.popleft())
        if not self._completed:
            self._clock.advance(timeout)
        completed, self._completed[:] = list(self._completed), []
        return completed

    def purge(self) -> None:
        while self.purges and self.in_flight:
            self.report(0, Fault.TRANSIENT)

    def close(self) -> None:
        self.closed = True

    def report(self, position: int, fault: Fault | None) -> None:
        if not self.in_flight:
            return
        request, identifier, key = self.in_flight.pop(position % len(self.in_flight))
        known = request.delivered
        if fault is not None:
            request.report_failed(identifier, fault, "not delivered")
        else:
            request.report_delivered(identifier)
        if request.delivered > known:
            assert key not in self.confirmed, "delivered twice"
            self.confirmed.add(key)


class FakeUndeliveredStore:
    """Keeps failures in memory. `full` is the number of calls that fail."""

    def __init__(self, *, full: int = 0) -> None:
        self.failures: list[DeliveryFailure] = []
        self.full = full

    @property
    def keys(self) -> list[str]:
        return [key(failure.record) for failure in self.failures]

    @property
    def reasons(self) -> list[str]:
        return [failure.reason for failure in self.failures]

    def append(self, failures: Sequence[DeliveryFailure]) -> None:
        if self.full:
            self.full -= 1
            raise UndeliveredStoreError("no space left on device")
        self.failures += failures
