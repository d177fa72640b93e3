"""Headers made of raw bytes, read from the embedded broker."""

import gc
from collections.abc import Iterator
from threading import Event, Thread

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from local.broker import EmbeddedBroker
from local.raw_producer import RawRecord, produce_raw
from src.kafka.message_headers import MessageHeaders
from tests.fakes import DEADLINE, TOPIC

MANY = 100
HEADERS = ((b"a", b"1"), (b"caf\xe9", b"x"), (b"", None), (b"\xed\xa0\x80", b""), (b"a", b"\xff"))
READ = (("a", b"1"), ("caf\udce9", b"x"), ("", None), ("\udced\udca0\udc80", b""), ("a", b"\xff"))


@pytest.fixture
def consumed() -> Iterator[list[Message]]:
    """Every other message has headers."""
    with EmbeddedBroker({TOPIC: 1}) as broker:
        produce_raw(broker.address, TOPIC, [RawRecord(b"v", None, HEADERS if n % 2 else ()) for n in range(MANY)])
        consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "any"})
        consumer.assign([TopicPartition(TOPIC, 0, 0)])
        messages: list[Message] = []
        while len(messages) < MANY:
            messages += consumer.consume(MANY, DEADLINE)
        yield messages
        consumer.close()


def test_names_of_any_bytes_keep_their_order_repeats_and_nulls(consumed: list[Message]) -> None:
    headers = MessageHeaders(consumed[1])

    assert tuple(headers) == READ
    assert (headers[1], headers[3:], len(headers)) == (READ[1], READ[3:], len(READ))
    assert ("caf\udce9", b"x") in headers
    assert list(reversed(headers)) == list(reversed(READ))


def test_a_message_without_headers_has_none(consumed: list[Message]) -> None:
    assert tuple(MessageHeaders(consumed[0])) == ()


def test_headers_keep_their_message_alive(consumed: list[Message]) -> None:
    headers = [MessageHeaders(message) for message in consumed]
    consumed.clear()
    gc.collect()

    assert [tuple(read) for read in headers] == [(), READ] * (MANY // 2)


def test_no_exception_is_left_set_for_the_garbage_collector(consumed: list[Message]) -> None:
    thresholds, stop = gc.get_threshold(), Event()
    churning = Thread(target=_collect, args=(stop,))
    churning.start()
    gc.set_threshold(1)

    read = [tuple(MessageHeaders(message)) for _ in range(20) for message in consumed]

    gc.set_threshold(*thresholds)
    stop.set()
    churning.join(DEADLINE)
    assert read == [(), READ] * (20 * MANY // 2)


def _collect(stop: Event) -> None:
    while not stop.is_set():
        gc.collect()
