"""Small real classes in place of Kafka, the clock and the disk, and what the tests are told in."""

from collections import deque
from collections.abc import Callable, Sequence

from src.kafka.produce_request import Failure, Fault, ProduceRequest
from src.model.errors import BrokerError, UndeliveredFileError
from src.model.message import Encoded

DEADLINE = 10.0  # seconds; what takes longer in a test has failed


def encoded(name: str, size: int = 0) -> Encoded:
    """A message that is told apart by its name."""
    return Encoded(name.encode(), b'{"id":"%s"}' % name.encode() + b" " * size, [("content-type", b"application/json")])


def named(count: int) -> list[Encoded]:
    return [encoded(str(number)) for number in range(count)]


class FakeClock:
    """A time that passes when somebody waits."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class FakePublisher:
    """Delivers in memory, in the next `settled`. `answers` script what becomes of single messages, by their key."""

    def __init__(self, clock: FakeClock | None = None, *, room: int = 1_000_000) -> None:
        self.delivered: list[Encoded] = []
        self.sizes: list[int] = []
        self.trouble: str | None = None
        self.silent = False
        """While it is set, no reports come."""
        self.failing: str | None = None
        """While it is set, every message fails for this reason, by nobody's fault."""
        self.refuse_next: str | None = None
        """The next message is refused for this reason, by its own fault."""
        self.answers: dict[bytes, deque[tuple[Fault, str]]] = {}
        self.fatal_after: int | None = None
        self.closed = False
        self.on_wait: Callable[[], None] = lambda: None
        self.on_close: Callable[[], None] = lambda: None
        self._clock = clock or FakeClock()
        self._room = room
        self._under_way: deque[tuple[ProduceRequest, int, Encoded]] = deque()
        self._settled: list[ProduceRequest] = []

    def refuse(self, name: str, *reasons: str, fault: Fault = Fault.WORLD) -> None:
        """Have a message fail, once for each reason."""
        self.answers[name.encode()] = deque((fault, reason) for reason in reasons)

    def send(self, messages: Sequence[Encoded]) -> ProduceRequest:
        shipment = ProduceRequest(self._settled.append)
        for message in messages:
            if len(self._under_way) >= self._room:
                break
            self._under_way.append((shipment, shipment.size, message))
            shipment.load(message)
        shipment.seal()
        self.sizes.append(shipment.size)
        return shipment

    def settled(self, timeout: float) -> list[ProduceRequest]:
        self.on_wait()
        if self.fatal_after is not None and len(self.delivered) >= self.fatal_after:
            raise BrokerError("the Kafka client can't go on: fenced")
        if not self._settled and (self.silent or not self._under_way):
            self._clock.advance(timeout)
        while self._under_way and not self.silent:
            self._report(*self._under_way.popleft())
        settled, self._settled[:] = list(self._settled), []
        return settled

    def purge(self) -> None:
        self.silent = False
        for shipment, number, _ in self._under_way:
            shipment.report_failed(number, Fault.WORLD, "stopped before it was confirmed")
        self._under_way.clear()

    def close(self) -> None:
        self.on_close()
        self.closed = True

    def _report(self, shipment: ProduceRequest, number: int, message: Encoded) -> None:
        answers = self.answers.get(message.key or b"")
        if self.failing:
            shipment.report_failed(number, Fault.WORLD, self.failing)
        elif self.refuse_next:
            shipment.report_failed(number, Fault.MESSAGE, self.refuse_next)
            self.refuse_next = None
        elif answers:
            shipment.report_failed(number, *answers.popleft())
        else:
            self.delivered.append(message)
            shipment.report_delivered(number)


class FakeKeeper:
    """Keeps in memory. `full` is how many calls find no room."""

    def __init__(self) -> None:
        self.kept: list[Failure] = []
        self.full = 0

    @property
    def keys(self) -> list[str]:
        return [(failure.message.key or b"").decode() for failure in self.kept]

    @property
    def reasons(self) -> list[str]:
        return [failure.reason for failure in self.kept]

    def keep(self, failures: Sequence[Failure]) -> None:
        if self.full:
            self.full -= 1
            raise UndeliveredFileError("no space left on device")
        self.kept += failures
