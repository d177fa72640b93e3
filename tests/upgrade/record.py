"""Records what a version writes, as fixtures for the tests of an upgrade from it. See README.md."""

import argparse
import gzip
import json
import os
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from bson import json_util
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.cimpl import NewTopic
from pymongo import MongoClient

TOPIC = "recorded-topic"
DEAD_LETTERS = f"{TOPIC}.dlq"
PARTITIONS = 2
STORES = ("sqlite", "mongodb")  # each with a consumer group
TTL_DAYS = "20000"  # no fixture expires
UNREACHABLE = "127.0.0.1:9"
TIMEOUT = 60.0
MESSAGES = 300

Content = bytes | None
Headers = list[tuple[str, str | bytes | None]]

INVALID: tuple[tuple[Content, Content, Headers], ...] = (
    (b"key", b"{broken", [("repeated", b"1"), ("repeated", b"2"), ("null", None), ("bytes", b"\xff\x00")]),
    (None, b"\xff\xfe not text", [("base64:YWJj", b"a name of another program"), ("ünïcode", "é".encode())]),
    (b"\xff\x01", b"[1]", []),
    (b"no-id", b'{"name": "item_1"}', [("created_at", b"2026-11-01T00:00:00.000Z")]),
    (b"date", b'{"id": "date", "created_at": "yesterday"}', []),
    (b"m-0001", b'{"id": "m-0001", "name": "another message"}', []),
    (b"tombstone", None, [("why", b"deleted")]),
)
DUPLICATES = ("m-0002", "m-0003")


class Version:
    """The programs of the version in a checkout."""

    def __init__(self, checkout: Path, python: Path, environment: Mapping[str, str]) -> None:
        self._checkout = checkout
        self._python = python
        self._environment = {**os.environ, "METRICS_PORT": "0", "LOG_FORMAT": "text", **environment}

    def start(self, service: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self._python, "-m", *arguments],
            cwd=self._checkout / service,
            env={**self._environment, **environment},
            stderr=subprocess.DEVNULL,
        )

    def run(self, service: str, *arguments: str, **environment: str) -> int:
        return self.start(service, *arguments, **environment).wait(TIMEOUT)


class Cluster:
    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._admin = AdminClient({"bootstrap.servers": servers})

    def create_topics(self) -> None:
        topics = [NewTopic(TOPIC, PARTITIONS, 1), NewTopic(DEAD_LETTERS, 1, 1)]
        for future in self._admin.create_topics(topics).values():
            future.result()

    def limit_message_size(self, size: int) -> None:
        entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource("topic", TOPIC, incremental_configs=[entry])
        for future in self._admin.incremental_alter_configs([resource]).values():
            future.result()

    def produce(self, records: Iterable[tuple[Content, Content, Headers]]) -> None:
        producer = Producer({"bootstrap.servers": self._servers})
        for number, (key, value, headers) in enumerate(records):
            producer.produce(TOPIC, key=key, value=value, headers=headers, partition=number % PARTITIONS)
        if producer.flush(TIMEOUT):
            raise SystemExit("not everything was produced")

    def records(self, topic: str, partitions: int) -> list[dict[str, Any]]:
        records = []
        consumer = Consumer({"bootstrap.servers": self._servers, "group.id": "record", "enable.partition.eof": True})
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
        ends = 0
        while ends < partitions:
            message = consumer.poll(TIMEOUT)
            if message is None:
                raise SystemExit(f"{topic} cannot be read")
            if message.error() is not None:
                ends += 1
                continue
            headers = cast(Headers, message.headers() or [])
            records.append(
                {
                    "partition": message.partition(),
                    "offset": message.offset(),
                    "timestamp": message.timestamp()[1],
                    "key": content(message.key()),
                    "value": content(message.value()),
                    "headers": [[name, content(value)] for name, value in headers],
                }
            )
        consumer.close()
        return sorted(records, key=lambda record: (record["partition"], record["offset"]))

    def committed(self, group: str) -> list[TopicPartition]:
        partitions = [TopicPartition(TOPIC, partition) for partition in range(PARTITIONS)]
        request = ConsumerGroupTopicPartitions(group, partitions)
        found: list[TopicPartition] = (
            self._admin.list_consumer_group_offsets([request])[group].result().topic_partitions
        )
        return found

    def end(self) -> int:
        return len(self.records(TOPIC, PARTITIONS))

    def wait_until_committed(self, group: str) -> None:
        end, deadline = self.end(), time.monotonic() + TIMEOUT
        while sum(max(0, partition.offset) for partition in self.committed(group)) < end:
            if time.monotonic() > deadline:
                raise SystemExit(f"{group} has not committed everything")
            time.sleep(0.2)


def content(value: bytes | str | None) -> str | dict[str, str] | None:
    """Text, or base64 for what is not UTF-8."""
    if value is None or isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}


def message(number: int) -> dict[str, Any]:
    """Text, dates, numbers and nesting of every kind that a store keeps."""
    zone = ("Z", "+01:00", "789Z")[number % 3]
    return {
        "id": f"m-{number:04d}",
        "name": f"item_{number:08d}",
        "created_at": f"2026-11-{number % 28 + 1:02d}T12:34:56.{number % 1000:03d}{zone}",
        "metadata": {"source": ("shop", "café", "東京")[number % 3], "version": "1.0"},
        "value": (number, number / 7, None, True, [1, {"deep": ["x"]}], "2026-11-01T00:00:00Z")[number % 6],
    }


def record(version: Version, cluster: Cluster, stores: Mapping[str, str], folder: Path) -> None:
    lines = "".join(json.dumps(message(number)) + "\n" for number in range(MESSAGES))
    (folder / "input.jsonl").write_text(lines)
    cluster.create_topics()
    version.run("producer", "src.producer", "--input", str(folder / "input.jsonl"))
    (folder / "input.jsonl").unlink()
    version.run("producer", "src.producer", "--count", "20", PRODUCER_INTERVAL_MS="1")
    consume(version, cluster, stores)
    cluster.produce(INVALID)
    cluster.produce((name.encode(), json.dumps(message(int(name[2:]))).encode(), []) for name in DUPLICATES)
    consume(version, cluster, stores)
    version.run("consumer", "src.dead_letters", "replay", "--reason", "not_json")
    consume(version, cluster, stores)
    version.run("producer", "src.producer", "--count", "30", PRODUCER_INTERVAL_MS="1")  # not consumed


def group_of(store: str) -> str:
    return f"{TOPIC}-{store}"


def consume(version: Version, cluster: Cluster, stores: Mapping[str, str]) -> None:
    for store in STORES:
        consumer = version.start(
            "consumer",
            "src.consumer",
            CONSUMER_GROUP_ID=group_of(store),
            MONGODB_URI=stores[store],
            MONGODB_TTL_DAYS=TTL_DAYS,
        )
        cluster.wait_until_committed(group_of(store))
        consumer.terminate()
        consumer.wait(TIMEOUT)


def record_undelivered(version: Version, cluster: Cluster, folder: Path) -> None:
    """Two segments of an outage, one of a message that Kafka rejects, and a line cut off by a crash."""
    kept = folder / "undelivered"
    settings = {
        "PRODUCER_UNDELIVERED_DIR": str(kept),
        "PRODUCER_MAX_RETRIES": "0",
        "PRODUCER_INTERVAL_MS": "1",
        "PRODUCER_DELIVERY_TIMEOUT_MS": "1000",
    }
    outage = {**settings, "KAFKA_BOOTSTRAP_SERVERS": UNREACHABLE}
    for count in ("12", "8"):
        version.run("producer", "src.producer", "--count", count, **outage)
    with min(kept.glob("*.jsonl")).open("ab") as segment:
        segment.write(b'{"given_up_at":"2026-11-2')
    version.run("producer", "src.undelivered", "resend", **outage)
    rejected, large = folder / "rejected", folder / "large.jsonl"
    large.write_text(json.dumps({"id": "too-large", "text": "x" * 2000}) + "\n")
    cluster.limit_message_size(1000)
    settings |= {"PRODUCER_UNDELIVERED_DIR": str(rejected), "KAFKA_COMPRESSION_TYPE": "none"}
    version.run("producer", "src.producer", "--input", str(large), **settings)
    for segment_path in rejected.iterdir():
        segment_path.rename(kept / segment_path.name)
    rejected.rmdir()
    large.unlink()


def write(cluster: Cluster, stores: Mapping[str, str], folder: Path) -> None:
    write_gzip(folder / "topic.jsonl.gz", json_lines(cluster.records(TOPIC, PARTITIONS)))
    (folder / "dead-letters.jsonl").write_bytes(json_lines(cluster.records(DEAD_LETTERS, 1)))
    committed = {
        store: {p.partition: [p.offset, p.metadata] for p in cluster.committed(group_of(store))} for store in STORES
    }
    (folder / "committed.json").write_text(json.dumps(committed, indent=2) + "\n")
    store = folder / "store.db"
    write_gzip(folder / "store.db.gz", store.read_bytes())
    store.unlink()
    with MongoClient[dict[str, Any]](stores["mongodb"], tz_aware=True) as client:
        collection = client["pubsub"]["messages"]
        content = {"documents": list(collection.find()), "indexes": list(collection.list_indexes())}
    text = json_util.dumps(content, json_options=json_util.CANONICAL_JSON_OPTIONS)
    write_gzip(folder / "mongodb.json.gz", text.encode())


def json_lines(records: Iterable[object]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in records)


def write_gzip(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content, 9, mtime=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="checkout of the version")
    parser.add_argument("python", type=Path, help="interpreter with the requirements of both services")
    parser.add_argument("kafka", help="host:port of an empty Kafka")
    parser.add_argument("mongodb", help="URI of an empty MongoDB")
    parser.add_argument("folder", type=Path, help="new folder for the fixtures")
    options = parser.parse_args()
    folder = options.folder.absolute()
    folder.mkdir(parents=True)
    cluster = Cluster(options.kafka)
    version = Version(
        options.checkout,
        options.python.absolute(),
        {
            "KAFKA_BOOTSTRAP_SERVERS": options.kafka,
            "KAFKA_TOPIC": TOPIC,
            "KAFKA_DEAD_LETTER_TOPIC": DEAD_LETTERS,
        },
    )
    stores = {"sqlite": f"sqlite:///{folder}/store.db", "mongodb": options.mongodb}
    record(version, cluster, stores, folder)
    record_undelivered(version, cluster, folder)
    write(cluster, stores, folder)


if __name__ == "__main__":
    main()
