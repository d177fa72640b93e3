"""A Kafka client that does what a test's script says, for what no broker here can be made to do."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from tests.fakes import TOPIC

Callback = Callable[[Any, list[TopicPartition]], None]


class Arrival:
    """A message, or an event of the client in place of one."""

    def __init__(self, offset: int | None, partition: int = 0, *, error: KafkaError | None = None) -> None:
        self._offset = offset
        self._partition = partition
        self._error = error

    def error(self) -> KafkaError | None:
        return self._error

    def topic(self) -> str:
        return TOPIC

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int | None:
        return self._offset

    def key(self) -> None:
        return None

    def value(self) -> bytes:
        return b"{}"

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 0, 0


class ScriptedClient:
    """Polls follow the script, in which a function is called where it stands, as librdkafka calls back."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.script: deque[Arrival | Callable[[], None]] = deque()
        self.group: dict[int, tuple[int, str]] = {}
        """What the group has committed: offsets, and what is kept beside them."""
        self.begins: dict[int, int] = {}
        """Where partitions begin; of others the broker does not tell in time."""
        self.starts: list[int] = []
        self.paused: set[int] = set()
        self.refusing = False
        """Whether commits, and questions for them, are refused."""

    def subscribe(self, _topics: list[str], *, on_assign: Callback, on_revoke: Callback, on_lost: Callback) -> None:
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
            if isinstance(step, Arrival):
                arrived.append(step)
            else:
                step()
        return arrived

    def commit(self, offsets: Sequence[TopicPartition], *, asynchronous: bool) -> list[TopicPartition]:
        if self.refusing:
            raise KafkaException(KafkaError(KafkaError._STATE, "not now"))
        self.group |= {position.partition: (position.offset, position.metadata or "") for position in offsets}
        if asynchronous:
            self.script.appendleft(lambda: self.settings["on_commit"](None, list(offsets)))
        return list(offsets)

    def committed(self, partitions: list[TopicPartition], *, timeout: float) -> list[TopicPartition]:
        if self.refusing:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer"))
        nothing = (OFFSET_INVALID, "")
        return [TopicPartition(TOPIC, p.partition, *self.group.get(p.partition, nothing)) for p in partitions]

    def offsets_for_times(self, partitions: list[TopicPartition], *, timeout: float) -> list[TopicPartition]:
        if not all(position.partition in self.begins for position in partitions):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer"))
        return [TopicPartition(TOPIC, position.partition, self.begins[position.partition]) for position in partitions]

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self.starts += [position.offset for position in partitions]

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        """What was fetched of them and not yet returned is gone with them."""
        gone = {position.partition for position in partitions}
        self.script = deque(s for s in self.script if not (isinstance(s, Arrival) and s.partition() in gone))

    def pause(self, partitions: list[TopicPartition]) -> None:
        self.paused |= {position.partition for position in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        self.paused -= {position.partition for position in partitions}

    def close(self) -> None:
        """Nobody is left."""


class Telling:
    """An administrator's client to whom the broker tells the topic's id."""

    def __init__(self, topic_id: str) -> None:
        self.topic_id = topic_id

    def describe_topics(self, *_topics: object, **_how: object) -> Mapping[str, Future[Any]]:
        answer: Future[Any] = Future()
        answer.set_result(Described(self.topic_id))
        return {TOPIC: answer}


class Described:
    def __init__(self, topic_id: str) -> None:
        self.topic_id = topic_id
