"""How far the messages have come, by what Kafka itself says: how many are in the topic, how many are settled."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import confluent_kafka.admin
from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from local.errors import CannotRun
from local.reach import in_kafka, reach_one_of, unreachable

ANSWER_WITHIN = 10.0  # seconds
DEAD_LETTER_ROOM = 64 * 1024  # bytes that a dead letter may be longer than its message
DEAD_LETTERS_KEPT_MS = 30 * 24 * 3600 * 1000

_admin: Any = confluent_kafka.admin  # the library does not declare its own re-exports, so to mypy they aren't there

COORDINATOR_MOVES = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
"""What a broker answers for a moment after its start."""

Offsets = Mapping[int, int]  # partition to offset


@dataclass(frozen=True)
class Progress:
    """Where each partition ends and up to where the group has settled it; `start` is where the run found the ends."""

    start: Offsets = field(default_factory=dict)
    ends: Offsets = field(default_factory=dict)
    committed: Offsets = field(default_factory=dict)

    @property
    def delivered(self) -> int:
        """Messages that came into the topic during this run."""
        return sum(self.ends.values()) - sum(self.start.values())

    @property
    def lag(self) -> int:
        return sum(end - self.committed.get(partition, 0) for partition, end in self.ends.items())

    @property
    def settled(self) -> int:
        """Of those, the ones stored or dead-lettered."""
        return max(0, self.delivered - self.lag)


class Meter:
    """Reads one topic's and one group's offsets."""

    def __init__(self, kafka: str, topic: str, group: str, partitions: int, patience: float = ANSWER_WITHIN) -> None:
        # The admin client's calls for it won't do: one crashes the process while the coordinator moves (librdkafka
        # issue 5040), the other fails for minutes after a broker's restart (FENCED_LEADER_EPOCH).
        self._consumer = Consumer(
            {"bootstrap.servers": kafka, "group.id": group, "log_level": 0, "reconnect.backoff.max.ms": 1000}
        )
        self._settled_group = Retrying(
            retry=retry_if_exception(_coordinator_moves),
            wait=wait_fixed(0.2),
            stop=stop_after_delay(patience),
            reraise=True,
        )
        self._partitions = [TopicPartition(topic, number) for number in range(partitions)]
        self._patience = patience
        self._start = self._ends()

    def read(self) -> Progress:
        """The offsets of one moment, the committed ones not older than the ends. Raises CannotRun."""
        ends = self._ends()
        return Progress(self._start, ends, self._committed())

    def _ends(self) -> Offsets:
        asked = [TopicPartition(partition.topic, partition.partition, OFFSET_END) for partition in self._partitions]
        try:
            answers = self._consumer.offsets_for_times(asked, timeout=self._patience)
        except KafkaException as error:
            raise CannotRun(f"Kafka does not say where the topic ends: {error.args[0].str()}") from error
        for answer in answers:
            if answer.error:
                raise CannotRun(f"Kafka does not say where partition {answer.partition} ends: {answer.error.str()}")
        return {answer.partition: answer.offset for answer in answers}

    def _committed(self) -> Offsets:
        try:
            found = self._settled_group(self._consumer.committed, self._partitions, timeout=self._patience)
        except KafkaException as error:
            raise CannotRun(f"Kafka does not say what the group has committed: {error.args[0].str()}") from error
        return {partition.partition: max(0, partition.offset) for partition in found}


def make_topics(kafka: str, topic: str, dead_letter_topic: str, partitions: int, admin: Any = None) -> int:
    """Make both topics where they are missing; the number of partitions that the topic has. Raises CannotRun."""
    reach_one_of("Kafka", kafka, in_kafka(kafka))
    admin = admin or _admin.AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    _reach_brokers(admin, kafka)
    _create(admin, _admin.NewTopic(topic, partitions))
    _create(admin, _admin.NewTopic(dead_letter_topic, 1, config=_dead_letter_settings(_largest_message(admin, topic))))
    return len(admin.list_topics(topic, timeout=ANSWER_WITHIN).topics[topic].partitions)


def _coordinator_moves(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() in COORDINATOR_MOVES


def _reach_brokers(admin: Any, kafka: str) -> None:
    """The addresses that Kafka sends its clients on to are the ones that count."""
    try:
        brokers = admin.list_topics(timeout=ANSWER_WITHIN).brokers.values()
    except KafkaException as error:
        raise CannotRun(f"what answers at {kafka} is no Kafka that talks to us: {error.args[0].str()}") from error
    for broker in brokers:
        if reason := unreachable(broker.host, broker.port):
            raise CannotRun(
                f"Kafka at {kafka} sends its clients on to {broker.host}:{broker.port}, which can't be reached from"
                f" here ({reason}): see the broker's advertised.listeners"
            )


def _create(admin: Any, topic: Any) -> None:
    try:
        admin.create_topics([topic], request_timeout=ANSWER_WITHIN)[topic.topic].result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise CannotRun(f"cannot make the topic {topic.topic}: {error.args[0].str()}") from error


def _largest_message(admin: Any, topic: str) -> int:
    asked = _admin.ConfigResource(_admin.ResourceType.TOPIC, topic)
    try:
        settings = admin.describe_configs([asked], request_timeout=ANSWER_WITHIN)[asked].result()
    except KafkaException as error:
        raise CannotRun(f"Kafka does not tell the settings of {topic}: {error.args[0].str()}") from error
    return int(settings["max.message.bytes"].value)


def _dead_letter_settings(largest_message: int) -> dict[str, Any]:
    return {
        "cleanup.policy": "delete",
        "max.message.bytes": str(largest_message + DEAD_LETTER_ROOM),
        "retention.ms": str(DEAD_LETTERS_KEPT_MS),
    }
