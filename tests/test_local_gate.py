"""The gate before the embedded broker."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from confluent_kafka import Consumer, Producer, TopicPartition

from local.broker import EmbeddedBroker
from local.gate import Gate
from local.kafka import kafka
from local.options import Options
from local.plan import Names
from local.progress import Meter

TOPIC = "data-topic"
WINDOW = 256 * 1024  # bytes


class Gated(NamedTuple):
    gate: Gate
    address: str
    meter: Meter

    def producer(self) -> Producer:
        return Producer({"bootstrap.servers": self.address, "linger.ms": 0, "batch.size": 16_384, "log_level": 0})


@contextmanager
def gated(allowed: int) -> Iterator[Gated]:
    topics = {TOPIC: 2, f"{TOPIC}.dlq": 1}
    with EmbeddedBroker(topics) as broker, Gate(broker.address, TOPIC, allowed) as gate:
        broker.advertise(gate.port)
        address = f"127.0.0.1:{gate.port}"
        yield Gated(gate, address, Meter(address, TOPIC, "group", 2))


def test_what_exceeds_the_window_waits_and_nothing_is_refused() -> None:
    with gated(WINDOW) as world:
        producer = world.producer()
        for _ in range(1000):
            producer.produce(TOPIC, b"x" * 1000)

        held = producer.flush(1)
        in_topic = world.meter.read().delivered
        world.gate.allow(10 * WINDOW)
        left = producer.flush(10)

        assert held > 700
        assert in_topic == 1000 - held
        assert left == 0
        assert world.meter.read().delivered == 1000
        assert world.gate.answered > 1_000_000


def test_dead_letters_pass_a_closed_gate() -> None:
    with gated(0) as world:
        producer = world.producer()
        producer.produce(f"{TOPIC}.dlq", b"{")

        left = producer.flush(10)

        assert left == 0


def test_what_was_held_for_a_client_that_hung_up_never_arrives() -> None:
    with gated(0) as world:
        producer = world.producer()
        producer.produce(TOPIC, b"x")
        held = producer.flush(1)
        producer.purge()
        producer.flush(1)
        del producer
        world.meter.read()  # the gate, which does one thing at a time, has heard of the end before it answers this

        world.gate.allow(WINDOW)

        assert held == 1
        assert world.meter.read().delivered == 0


def test_clients_are_turned_away_while_the_broker_is_not_there() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))

        with (
            Gate(f"127.0.0.1:{nobody.getsockname()[1]}", TOPIC, 0) as gate,
            socket.create_connection(("127.0.0.1", gate.port), timeout=5) as client,
        ):
            answer = client.recv(1)

    assert answer == b""


def test_the_embedded_kafka_never_holds_more_unsettled_bytes_than_it_keeps() -> None:
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
            group.commit(offsets=[TopicPartition(TOPIC, 0, progress.ends[0])], asynchronous=False)
        group.close()

        assert broker.progress().delivered == 1000
        assert 0 < max(lags) <= 100
