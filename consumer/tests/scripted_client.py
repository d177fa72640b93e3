"""A Kafka client that follows a script, for events that a broker cannot be made to cause."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException
from confluent_kafka import TopicPartition as PartitionOffset

from src.kafka.messages import partition_of
from src.model.position import TopicPartition
from tests.fake_kafka import FakeMessage, RebalanceCallback


class ScriptedClient:
    """Polls follow the script; a function in it is called where it stands, as librdkafka runs callbacks."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.script: deque[FakeMessage | Callable[[], None]] = deque()
        self.group: dict[TopicPartition, tuple[int, str]] = {}
        """What the group has committed: offsets with their metadata."""
        self.earliest: dict[TopicPartition, int] = {}
        """The earliest offsets; look-ups of other partitions time out."""
        self.starts: list[int] = []
        self.paused: set[TopicPartition] = set()
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

    def assign(self, *partitions: TopicPartition) -> None:
        self._on_assign(self, [PartitionOffset(*partition) for partition in partitions])

    def revoke(self, *partitions: TopicPartition) -> None:
        self._on_revoke(self, [PartitionOffset(*partition) for partition in partitions])

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

    def commit(self, offsets: Sequence[PartitionOffset], *, asynchronous: bool) -> list[PartitionOffset]:
        if self.failing:
            raise KafkaException(KafkaError(KafkaError._STATE, "not now"))
        self.group |= {partition_of(position): (position.offset, position.metadata or "") for position in offsets}
        if asynchronous:
            self.script.appendleft(lambda: self.settings["on_commit"](None, list(offsets)))
        return list(offsets)

    def committed(self, partitions: list[PartitionOffset], *, timeout: float) -> list[PartitionOffset]:
        if self.failing:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no response"))
        nothing = (OFFSET_INVALID, "")
        return [PartitionOffset(p.topic, p.partition, *self.group.get(partition_of(p), nothing)) for p in partitions]

    def offsets_for_times(self, partitions: list[PartitionOffset], *, timeout: float) -> list[PartitionOffset]:
        if not all(partition_of(p) in self.earliest for p in partitions):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no response"))
        return [PartitionOffset(p.topic, p.partition, self.earliest[partition_of(p)]) for p in partitions]

    def incremental_assign(self, partitions: list[PartitionOffset]) -> None:
        self.starts += [position.offset for position in partitions]

    def incremental_unassign(self, partitions: list[PartitionOffset]) -> None:
        """Drops what was fetched of them and not returned yet."""
        gone = {partition_of(position) for position in partitions}
        self.script = deque(
            step
            for step in self.script
            if not (isinstance(step, FakeMessage) and TopicPartition(step.topic(), step.partition()) in gone)
        )

    def pause(self, partitions: list[PartitionOffset]) -> None:
        self.paused |= {partition_of(position) for position in partitions}

    def resume(self, partitions: list[PartitionOffset]) -> None:
        self.paused -= {partition_of(position) for position in partitions}

    def close(self) -> None:
        """Nothing is open."""
