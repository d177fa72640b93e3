"""No record stops a consumer, whatever bytes another client writes. On the embedded broker and on real Kafka.

Most records are produced twice: with a valid value, which is stored, and with an invalid one, which is dead-lettered.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from random import Random
from threading import Event, Thread
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import KafkaException, Producer
from prometheus_client import CollectorRegistry

from local.broker import EmbeddedBroker
from local.raw_producer import RawRecord, produce_raw
from src.audit.comparison import Audit
from src.consumer import DataConsumer
from src.dead_letters.__main__ import main
from src.dead_letters.dead_letter import OFFSET, PARTITION, TOPIC, original_headers, read_replay_marker
from src.kafka.topic_reader import TopicReader
from src.model.header_names import as_bytes
from src.model.record import Record
from src.settings import Settings
from src.storage import DataStorage
from src.utils.config import parse
from tests.kafka_containers import kafka3_servers
from tests.kafka_server import Topics

__all__ = ["kafka3_servers"]  # Kafka 4 does not write the old formats

PATIENCE = 60.0  # seconds
RawHeaders = Sequence[tuple[bytes, bytes | None]]

SMALL: Sequence[RawHeaders] = (
    ((b"a", b"1"), (b"caf\xe9", b"x"), (b"a", None)),
    ((b"\xff", b""), (b"\xed\xa0\x80", b"\xff"), (b"caf\xc3", None)),
    ((b"base64:\xff", b"1"), (b"base64:!", b"2"), (b"__connect.\xff", b"3")),
    ((b"", b""), (b"", None)),
    tuple((b"%d \xff" % number, None) for number in range(5_000)),
)
LONG_NAME: RawHeaders = ((Random(1).randbytes(900_000).replace(b"\0", b"\xff"), b"x"),)
LONG_VALUE: RawHeaders = ((b"a", b"\xff" * 1_000_000),)
TIMESTAMPS = (
    -(2**63),
    -2,
    -1,
    0,
    253_402_300_800_000,
    2**62,
    2**63 - 1,
)  # the fifth: year 10000
ANY_TIMESTAMP = {"message.timestamp.after.max.ms": str(2**63 - 1)}  # since Kafka 4.0, the default is an hour
CODECS = ("gzip", "snappy", "lz4", "zstd")
LARGE_KEY = b"\xff" * 1_000_000


class World:
    """A topic of one partition, a SQLite store, and a consumer that runs in a thread."""

    def __init__(self, servers: str, topic: str, folder: Path) -> None:
        self.servers = servers
        self.topic = topic
        self.config: dict[str, Any] = {
            "kafka": {
                "bootstrap_servers": servers,
                "topic": topic,
                "dead_letter_topic": f"{topic}.dlq",
                "group_id": topic,
                "client": {"session.timeout.ms": 6000, "fetch.wait.max.ms": 20},
            },
            "consumer": {"offset_commit_frequency_ms": 20},
            "mongodb": {"uri": f"sqlite:///{folder}/store.db"},
            "metrics": {"port": 0},
        }
        self.file = folder / "config.json"
        self.file.write_text(json.dumps(self.config))
        self.settings: Settings = parse(Settings, self.config)
        self._ids: list[str] = []

    def put(self, *records: RawRecord) -> None:
        produce_raw(self.servers, self.topic, records)

    def put_dead_letter(self, record: RawRecord) -> None:
        produce_raw(self.servers, self.settings.kafka.dead_letter_topic, [record])

    def put_twice(self, like: RawRecord) -> None:
        """With a valid and an invalid value, between two other records."""
        bad = like._replace(value=b"{bad")
        self.put(RawRecord(self.good()), like._replace(value=self.good()), bad, RawRecord(self.good()))

    def good(self) -> bytes:
        self._ids.append(str(len(self._ids)))
        return b'{"id": "%s"}' % self._ids[-1].encode()

    @contextmanager
    def consuming(self) -> Iterator[None]:
        stop = Event()
        with DataConsumer(self.settings, registry=CollectorRegistry(), stop=stop) as consumer:
            self._running = Thread(target=consumer.run, daemon=True)
            self._running.start()
            try:
                yield
            finally:
                stop.set()
                self._running.join(PATIENCE)

    def consume_all(self) -> None:
        with self.consuming():
            self.wait_until_all_is_committed()

    def wait_until_all_is_committed(self) -> None:
        tick, deadline = Event(), monotonic() + PATIENCE
        with TopicReader(self.settings.kafka) as reader:
            while reader.committed(self.topic, [0])[0] != reader.offset_ranges(self.topic, [0])[0].end:
                assert self._running.is_alive(), "the consumer has stopped"
                assert monotonic() < deadline, "not all is committed"
                tick.wait(0.05)

    def assert_all_is_stored_but(self, dead_lettered: int) -> None:
        with TopicReader(self.settings.kafka) as reader, DataStorage(self.settings.mongodb) as storage:
            stored = {document["id"] for document in storage.get({})}
            findings = Audit(self.settings, reader, storage).run().findings
        assert stored == set(self._ids)
        assert (findings.stored, findings.dead_lettered) == (len(self._ids), dead_lettered)
        assert (findings.lost, findings.twice, findings.repeated) == (0, 0, 0)

    def dead_lettered(self) -> list[tuple[bytes | None, bytes | None, RawHeaders]]:
        """Key, value and original headers of each dead letter."""
        topic = self.settings.kafka.dead_letter_topic
        with TopicReader(self.settings.kafka) as reader:
            records = reader.read(topic, reader.offset_ranges(topic, [0]))
            return [
                (record.key, record.value, raw_headers(record)) for record in records if not read_replay_marker(record)
            ]

    def dead_letters(self, command: str, *options: str) -> list[Any]:
        return [json.loads(line) for line in self._run(command, "--json", *options).splitlines()]

    def replay(self, *options: str) -> None:
        self._run("replay", *options)

    def _run(self, command: str, *options: str) -> str:
        with redirect_stdout(StringIO()) as out:
            assert main([command, "--config", str(self.file), *options]) == 0
        return out.getvalue()


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.docker)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    topic = f"test-{uuid4().hex[:12]}"
    if request.param == "embedded":
        with EmbeddedBroker({topic: 1, f"{topic}.dlq": 1}) as broker:
            yield World(broker.address, topic, tmp_path)
    else:
        topics = Topics(request.getfixturevalue("kafka3_servers"))
        for name in (topic, f"{topic}.dlq"):
            topics.create(name, partitions=1, **ANY_TIMESTAMP)
        yield World(topics.servers, topic, tmp_path)


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("librdkafka").setLevel(logging.NOTSET)
    logging.captureWarnings(False)


@pytest.mark.parametrize("kind", [SMALL, [LONG_NAME], [LONG_VALUE]], ids=["small", "a long name", "a long value"])
def test_headers_of_any_bytes_are_stored_or_dead_lettered_and_replayed(
    world: World, kind: Sequence[RawHeaders]
) -> None:
    for headers in kind:
        world.put_twice(RawRecord(b"", b"key \xff", headers))

    with world.consuming():
        world.wait_until_all_is_committed()
        world.assert_all_is_stored_but(dead_lettered=len(kind))
        assert world.dead_lettered() == [(b"key \xff", b"{bad", headers) for headers in kind]
        for entry, headers in zip(world.dead_letters("list"), kind, strict=True):
            (shown,) = world.dead_letters("show", f"{entry['partition']}:{entry['offset']}")
            assert len(shown["headers"]) == len(headers)

        world.replay()
        world.wait_until_all_is_committed()

    world.assert_all_is_stored_but(dead_lettered=2 * len(kind))
    assert world.dead_lettered() == 2 * [(b"key \xff", b"{bad", headers) for headers in kind]


def test_the_dead_letter_topic_may_hold_any_record_of_another_program(world: World) -> None:
    world.put(RawRecord(world.good()), RawRecord(b"{bad"))
    world.consume_all()
    foreign = [
        *SMALL,
        *map(position_headers, (b"", b"a\0b", b"a b", b"\xff", b"x" * 300)),
        position_headers(world.topic.encode(), 2**63),
    ]
    for headers in foreign:
        world.put_dead_letter(RawRecord(b"{", None, headers))
    for timestamp in TIMESTAMPS:
        world.put_dead_letter(RawRecord(None, None, (), timestamp))

    world.replay("--any-topic")

    states = Counter(entry["state"] for entry in world.dead_letters("list", "--all"))
    assert states == {"replayed": 1, "foreign": len(foreign) + len(TIMESTAMPS)}
    world.assert_all_is_stored_but(dead_lettered=1)


def test_a_record_with_any_create_time_is_stored_or_dead_lettered(world: World) -> None:
    for timestamp in TIMESTAMPS:
        world.put_twice(RawRecord(b"", timestamp=timestamp))

    world.consume_all()

    world.assert_all_is_stored_but(dead_lettered=len(TIMESTAMPS))
    assert len(world.dead_letters("list")) == len(TIMESTAMPS)


def test_a_key_of_1_mb_and_missing_values_are_stored_or_dead_lettered(world: World) -> None:
    world.put_twice(RawRecord(b"", LARGE_KEY))
    world.put(RawRecord(None), RawRecord(None, b"key"), RawRecord(b""))

    world.consume_all()

    world.assert_all_is_stored_but(dead_lettered=4)
    assert [message[:2] for message in world.dead_lettered()] == [
        (LARGE_KEY, b"{bad"),
        (None, None),
        (b"key", None),
        (None, b""),
    ]


def test_a_batch_of_each_compression_codec_is_stored_or_dead_lettered(world: World) -> None:
    for codec in CODECS:
        producer = Producer({"bootstrap.servers": world.servers, "compression.type": codec, "linger.ms": 50})
        for value in (world.good(), b"{bad", world.good()):
            producer.produce(world.topic, value)
        assert producer.flush(PATIENCE) == 0

    world.consume_all()

    world.assert_all_is_stored_but(dead_lettered=len(CODECS))


@pytest.mark.docker
@pytest.mark.parametrize("world", ["real"], indirect=True)  # the embedded broker writes no transaction markers
def test_only_committed_transactions_are_stored_or_dead_lettered(world: World) -> None:
    producer = Producer({"bootstrap.servers": world.servers, "transactional.id": world.topic})
    eventually(lambda: producer.init_transactions(PATIENCE))
    for value, end in ((b"{bad", producer.commit_transaction), (b"{aborted", producer.abort_transaction)):
        producer.begin_transaction()
        producer.produce(world.topic, value)
        assert producer.flush(PATIENCE) == 0
        end(PATIENCE)
    world.put(RawRecord(world.good()))

    world.consume_all()

    world.assert_all_is_stored_but(dead_lettered=1)
    assert [value for _, value, _ in world.dead_lettered()] == [b"{bad"]


def position_headers(topic: bytes, offset: int = 0) -> RawHeaders:
    """Headers of a dead letter of another program."""
    return ((TOPIC.encode(), topic), (PARTITION.encode(), b"0"), (OFFSET.encode(), b"%d" % offset))


def raw_headers(dead_letter: Record) -> RawHeaders:
    return tuple((as_bytes(name), content) for name, content in original_headers(dead_letter.headers))


def eventually(action: Callable[[], object]) -> None:
    """Retries while a broker that has just started loads its transaction coordinator."""
    tick, deadline = Event(), monotonic() + PATIENCE
    while True:
        try:
            action()
        except KafkaException as error:
            if not error.args[0].retriable() or monotonic() > deadline:
                raise
            tick.wait(0.1)
        else:
            return
