"""Creates the topics configured in .env; run by the Compose job `topics` at every `docker compose up`.

Existing topics are updated but never reduced: a higher partition count or maximum message size is kept.
"""

import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, Self

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic

TIMEOUT = 30.0  # seconds per request
HOUR_MS = 3_600_000
BROKERS_DEFAULT = -1  # the replication factor that the brokers are configured with
MAX_MESSAGE_BYTES = "max.message.bytes"
DEFAULT_MAX_MESSAGE_BYTES = 1_048_588  # Kafka's default
DEAD_LETTER_OVERHEAD = 64 * 1024  # bytes that a dead letter adds to its original message
DEAD_LETTER_RETENTION_HOURS = 30 * 24


class Topic(NamedTuple):
    name: str
    partitions: int
    config: Mapping[str, str]

    def allowing(self, message_bytes: int) -> Self:
        """The topic with its maximum message size raised to this number of bytes, if that is larger."""
        largest = max(message_bytes, int(self.config[MAX_MESSAGE_BYTES]))
        return self._replace(config={**self.config, MAX_MESSAGE_BYTES: str(largest)})


def desired_topics(environ: Mapping[str, str]) -> list[Topic]:
    """The topics of messages, and the dead-letter topic, which must accept every message of the former."""
    others = [name.strip() for name in environ.get("KAFKA_TOPICS", "").split(",") if not name.strip().startswith("^")]
    names = dict.fromkeys(filter(None, [environ["KAFKA_TOPIC"], *others]))
    messages = _config(int(environ["KAFKA_RETENTION_HOURS"]), DEFAULT_MAX_MESSAGE_BYTES)
    dead_letters = _config(DEAD_LETTER_RETENTION_HOURS, DEFAULT_MAX_MESSAGE_BYTES + DEAD_LETTER_OVERHEAD)
    return [
        *(Topic(name, int(environ["KAFKA_PARTITIONS"]), messages) for name in names),
        Topic(environ["KAFKA_DEAD_LETTER_TOPIC"], 1, dead_letters),
    ]


def _config(retention_hours: int, max_message_bytes: int) -> dict[str, str]:
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(retention_hours * HOUR_MS),
        MAX_MESSAGE_BYTES: str(max_message_bytes),
    }


def ensure(admin: AdminClient, topic: Topic) -> str:
    """Create the topic, or update its config and partitions. Returns what was done. Raises KafkaException."""
    existing = admin.list_topics(timeout=TIMEOUT).topics.get(topic.name)
    if existing is None:
        _wait(admin.create_topics([NewTopic(topic.name, topic.partitions, BROKERS_DEFAULT, config=dict(topic.config))]))
        return f"created with {topic.partitions} partition(s)"
    _wait(admin.incremental_alter_configs([_changes(topic.allowing(max_message_bytes(admin, topic.name)))]))
    return _ensure_partitions(admin, topic, len(existing.partitions))


def max_message_bytes(admin: AdminClient, topic: str) -> int:
    """Waits for a broker that does not know a topic yet which another one has just created. Raises KafkaException."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return int(admin.describe_configs([resource])[resource].result(TIMEOUT)[MAX_MESSAGE_BYTES].value)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART or time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def _changes(topic: Topic) -> ConfigResource:
    operation = AlterConfigOpType.SET
    entries = [ConfigEntry(key, value, incremental_operation=operation) for key, value in topic.config.items()]
    return ConfigResource(ConfigResource.Type.TOPIC, topic.name, incremental_configs=entries)


def _ensure_partitions(admin: AdminClient, topic: Topic, partitions: int) -> str:
    if partitions > topic.partitions:
        return f"keeps its {partitions} partitions; Kafka cannot reduce them to {topic.partitions}"
    if partitions < topic.partitions:
        _wait(admin.create_partitions([NewPartitions(topic.name, topic.partitions)]))
        return f"increased from {partitions} to {topic.partitions} partitions"
    return f"exists with {partitions} partition(s)"


def _wait(futures: Mapping[Any, Future[Any]]) -> None:
    for future in futures.values():
        future.result(TIMEOUT)


def main() -> int:
    admin = AdminClient({"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"]})
    try:
        *topics, dead_letters = desired_topics(os.environ)
        for topic in topics:
            print(f"{topic.name}: {ensure(admin, topic)}")
            dead_letters = dead_letters.allowing(max_message_bytes(admin, topic.name) + DEAD_LETTER_OVERHEAD)
        print(f"{dead_letters.name}: {ensure(admin, dead_letters)}")
    except (KafkaException, TimeoutError) as error:
        print(f"cannot create or update the topics: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
