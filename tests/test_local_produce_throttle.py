"""The throttle in front of the embedded broker."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from confluent_kafka import Consumer, Producer, TopicPartition

from local.broker import EmbeddedBroker
from local.connectivity import host_port, kafka_addresses
from local.kafka import kafka
from local.offsets import OffsetReader
from local.options import Options
from local.plan import Names
from local.produce_throttle import ProduceThrottle

TOPIC = "data-topic"
WINDOW = 256 * 1024  # bytes


class Throttled(NamedTuple):
    throttle: ProduceThrottle
    address: str
    reader: OffsetReader

    def producer(self) -> Producer:
        return Producer({"bootstrap.servers": self.address, "linger.ms": 0, "batch.size": 16_384, "log_level": 0})


@contextmanager
def throttled(allowed: int) -> Iterator[Throttled]:
    topics = {TOPIC: 2, f"{TOPIC}.dlq": 1}
    with (
        EmbeddedBroker(topics) as broker,
        ProduceThrottle(kafka_addresses(broker.address)[0], TOPIC, allowed) as throttle,
    ):
        address = host_port(throttle.address)
        yield Throttled(throttle, address, OffsetReader(address, TOPIC, "group", 2))


def test_requests_beyond_the_window_wait_and_none_is_rejected() -> None:
    with throttled(WINDOW) as world:
        producer = world.producer()
        for _ in range(1000):
            producer.produce(TOPIC, b"x" * 1000)

        held = producer.flush(1)
        in_topic = world.reader.read().produced
        world.throttle.allow(10 * WINDOW)
        left = producer.flush(10)

        assert held > 700
        assert in_topic == 1000 - held
        assert left == 0
        assert world.reader.read().produced == 1000
        assert world.throttle.answered > 1_000_000


def test_dead_letters_are_not_throttled() -> None:
    with throttled(0) as world:
        producer = world.producer()
        producer.produce(f"{TOPIC}.dlq", b"{")

        left = producer.flush(10)

        assert left == 0


def test_a_held_request_of_a_disconnected_client_is_dropped() -> None:
    with throttled(0) as world:
        producer = world.producer()
        producer.produce(TOPIC, b"x")
        held = producer.flush(1)
        producer.purge()
        producer.flush(1)
        del producer
        world.reader.read()  # the relay has noticed the disconnect before it answers this

        world.throttle.allow(WINDOW)

        assert held == 1
        assert world.reader.read().produced == 0


def test_connections_are_closed_while_the_broker_is_down() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))

        with (
            ProduceThrottle(unused.getsockname(), TOPIC, 0) as throttle,
            socket.create_connection(throttle.address, timeout=5) as client,
        ):
            answer = client.recv(1)

    assert answer == b""


def test_the_embedded_kafka_never_has_more_unsettled_bytes_than_allowed() -> None:
    names = Names(TOPIC, "group", "messages")
    lags = []

    with kafka(Options(partitions=1), names, unsettled_bytes=100_000) as broker:
        producer = Producer({"bootstrap.servers": broker.address, "linger.ms": 0, "batch.size": 16_384, "log_level": 0})
        group = Consumer({"bootstrap.servers": broker.address, "group.id": names.group, "log_level": 0})
        for _ in range(1000):
            producer.produce(TOPIC, b"x" * 1000)
        while producer.flush(0.1):
            progress = broker.progress()
            lags.append(progress.lag)
            group.commit(offsets=[TopicPartition(TOPIC, 0, progress.end[0])], asynchronous=False)
        group.close()

        assert broker.progress().produced == 1000
        assert 0 < max(lags) <= 100
