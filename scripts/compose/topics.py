"""Makes the topics as .env describes them, in the one-shot `topics`. One that is there is mended, never made less:

it keeps partitions and a largest message that somebody has raised.
"""

import os
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic

TIMEOUT = 30.0  # seconds for each answer of the broker
HOUR_MS = 3_600_000
LARGEST = "max.message.bytes"
LARGEST_MESSAGE = 1_048_588  # Kafka's own default
PARCEL = 64 * 1024  # bytes: what a dead letter adds to the message that it holds
KEPT_DEAD_LETTERS_HOURS = 30 * 24


class Topic(NamedTuple):
    name: str
    partitions: int
    settings: Mapping[str, str]

    def with_room_for(self, largest: int) -> Self:
        """For messages of so many bytes, if not for larger ones."""
        largest = max(largest, int(self.settings[LARGEST]))
        return self._replace(settings={**self.settings, LARGEST: str(largest)})


def wanted(environ: Mapping[str, str]) -> list[Topic]:
    """The topic of the messages, and that of the dead letters, in which every message must fit and stay to be read."""
    messages = _settings(int(environ["KAFKA_RETENTION_HOURS"]), LARGEST_MESSAGE)
    letters = _settings(KEPT_DEAD_LETTERS_HOURS, LARGEST_MESSAGE + PARCEL)
    return [
        Topic(environ["KAFKA_TOPIC"], int(environ["KAFKA_PARTITIONS"]), messages),
        Topic(environ["KAFKA_DEAD_LETTER_TOPIC"], 1, letters),
    ]


def _settings(hours: int, largest: int) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(hours * HOUR_MS), LARGEST: str(largest)}


def ensure(admin: AdminClient, topic: Topic) -> str:
    """Make the topic, or give it the partitions and settings that it lacks; what was done. Raises KafkaException."""
    there = admin.list_topics(timeout=TIMEOUT).topics.get(topic.name)
    if there is None:
        _wait(admin.create_topics([NewTopic(topic.name, topic.partitions, 1, config=dict(topic.settings))]))
        return f"made with {topic.partitions} partition(s)"
    _wait(admin.incremental_alter_configs([_changes(topic.with_room_for(largest_message(admin, topic.name)))]))
    return _grown(admin, topic, len(there.partitions))


def largest_message(admin: AdminClient, topic: str) -> int:
    """In bytes. Raises KafkaException."""
    asked = ConfigResource(ConfigResource.Type.TOPIC, topic)
    return int(admin.describe_configs([asked])[asked].result(TIMEOUT)[LARGEST].value)


def _changes(topic: Topic) -> ConfigResource:
    operation = AlterConfigOpType.SET
    entries = [ConfigEntry(key, value, incremental_operation=operation) for key, value in topic.settings.items()]
    return ConfigResource(ConfigResource.Type.TOPIC, topic.name, incremental_configs=entries)


def _grown(admin: AdminClient, topic: Topic, partitions: int) -> str:
    """Kafka can't take partitions away, so more of them than asked for are left as they are."""
    if partitions > topic.partitions:
        return f"keeps its {partitions} partitions: Kafka can't make them {topic.partitions}"
    if partitions < topic.partitions:
        _wait(admin.create_partitions([NewPartitions(topic.name, topic.partitions)]))
        return f"grown from {partitions} to {topic.partitions} partitions"
    return f"there with {partitions} partition(s)"


def _wait(answers: Mapping[Any, Future[Any]]) -> None:
    for answer in answers.values():
        answer.result(TIMEOUT)


def main() -> int:
    admin = AdminClient({"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"]})
    try:
        messages, letters = wanted(os.environ)
        print(f"{messages.name}: {ensure(admin, messages)}")
        letters = letters.with_room_for(largest_message(admin, messages.name) + PARCEL)
        print(f"{letters.name}: {ensure(admin, letters)}")
    except (KafkaException, TimeoutError) as error:
        print(f"the topics could not be made: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
