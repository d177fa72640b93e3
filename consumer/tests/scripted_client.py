"""A Kafka client that follows a script, for events that a broker cannot be made to cause."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from tests.fake_kafka import FakeMessage, RebalanceCallback
from tests.fakes import TOPIC


class ScriptedClient:
    """Polls follow the script; a function in it is called where it stands, as librdkafka runs callbacks."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.script: deque[FakeMessage | Callable[[], None]] = deque()
        self.group: dict[int, tuple[int, str]] = {}
        """What the group has committed: offsets with their metadata."""
        self.earliest: dict[int, int] = {}
        """The earliest offsets; look-ups of other partitions time out."""
        self.starts: list[int] = []
        self.paused: set[int] = set()
        self.failing = False
        """Whether commits and look-ups of committed offsets fail."""

        self.credentials: tuple[str, str] | None = None

    def set_sasl_credentials(self, username: str, password: str, /) -> None:
        self.credentials = username, password

    def subscribe(
        self,
        _topics: list[str],
        *,
        on_assign: RebalanceCallback,
        on_revoke: RebalanceCallback,
        on_lost: RebalanceCallback,
    ) -> None:
        self._on_assign, self._on_revoke = on_assign, on_revoke

    def assign(self, *partitions: int) -> None:
        self._on_assign(self, [TopicPartition(TOPIC, partition) for partition in partitions])

    def revoke(self, *partitions: int) -> None:
        self._on_revoke(self, [TopicPartition(TOPIC, partition) for partition in partitions])

    def poll(self, _timeout: float) -> Any:
        return next(iter(self.consume(1, 0.0)), None)

    def consume(self, limit: int, _timeout: float) -> list[Any]:
        arrived: list[Any] = []
        while self.script and len(arrived) < limit:
            step = self.script.popleft()
            if isinstance(step, FakeMessage):
                arrived.append(step)
            else:
                step()
        return arrived

    def commit(self, offsets: Sequence[TopicPartition], *, asynchronous: bool) -> list[TopicPartition]:
        if self.failing:
            raise KafkaException(KafkaError(KafkaError._STATE, "not now"))
        self.group |= {position.partition: (position.offset, position.metadata or "") for position in offsets}
        if asynchronous:
            self.script.appendleft(lambda: self.settings["on_commit"](None, list(offsets)))
        return list(offsets)

    def committed(self, partitions: list[TopicPartition], *, timeout: float) -> list[TopicPartition]:
        if self.failing:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no response"))
        nothing = (OFFSET_INVALID, "")
        return [TopicPartition(TOPIC, p.partition, *self.group.get(p.partition, nothing)) for p in partitions]

    def offsets_for_times(self, partitions: list[TopicPartition], *, timeout: float) -> list[TopicPartition]:
        if not all(position.partition in self.earliest for position in partitions):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no response"))
        return [TopicPartition(TOPIC, position.partition, self.earliest[position.partition]) for position in partitions]

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self.starts += [position.offset for position in partitions]

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        """Drops what was fetched of them and not returned yet."""
        gone = {position.partition for position in partitions}
        self.script = deque(s for s in self.script if not (isinstance(s, FakeMessage) and s.partition() in gone))

    def pause(self, partitions: list[TopicPartition]) -> None:
        self.paused |= {position.partition for position in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        self.paused -= {position.partition for position in partitions}

    def close(self) -> None:
        """Nothing is open."""
