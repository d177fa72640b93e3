"""Headers made of raw bytes, read from the embedded broker."""

import gc
from collections.abc import Sequence
from threading import Event, Thread

from confluent_kafka import Consumer, Message, TopicPartition

from local.broker import EmbeddedBroker
from local.raw_producer import RawRecord, produce_raw
from src.kafka.message_headers import MessageHeaders
from tests.fakes import DEADLINE, TOPIC

MANY = 100
HEADERS = ((b"a", b"1"), (b"caf\xe9", b"x"), (b"", None), (b"\xed\xa0\x80", b""), (b"a", b"\xff"))
READ = (("a", b"1"), ("caf\udce9", b"x"), ("", None), ("\udced\udca0\udc80", b""), ("a", b"\xff"))


def consumed(*headers: Sequence[tuple[bytes, bytes | None]]) -> list[Message]:
    """A message with each of these headers."""
    with EmbeddedBroker({TOPIC: 1}) as broker:
        produce_raw(broker.address, TOPIC, [RawRecord(b"v", None, each) for each in headers])
        consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "any"})
        consumer.assign([TopicPartition(TOPIC, 0, 0)])
        messages: list[Message] = []
        while len(messages) < len(headers):
            messages += consumer.consume(len(headers), DEADLINE)
        consumer.close()
        return messages


def test_names_of_any_bytes_keep_their_order_repeats_and_nulls() -> None:
    headers = MessageHeaders(consumed(HEADERS)[0])

    assert tuple(headers) == READ
    assert (headers[1], headers[3:], len(headers)) == (READ[1], READ[3:], len(READ))
    assert ("caf\udce9", b"x") in headers
    assert list(reversed(headers)) == list(reversed(READ))


def test_the_client_cuts_a_name_at_its_first_nul_and_returns_no_more_than_100_000_headers() -> None:
    nul, most, too_many = consumed([(b"a\0b", b"1"), (b"\0", None)], [(b"", None)] * 100_000, [(b"", None)] * 100_001)

    assert tuple(MessageHeaders(nul)) == (("a", b"1"), ("", None))
    assert len(MessageHeaders(most)) == 100_000
    assert len(MessageHeaders(too_many)) == 0


def test_a_message_without_headers_has_none() -> None:
    assert tuple(MessageHeaders(consumed(())[0])) == ()


def test_headers_keep_their_message_alive() -> None:
    headers = [MessageHeaders(message) for message in consumed(*[(), HEADERS] * (MANY // 2))]
    gc.collect()

    assert [tuple(read) for read in headers] == [(), READ] * (MANY // 2)


def test_no_exception_is_left_set_for_the_garbage_collector() -> None:
    messages = consumed(*[(), HEADERS] * (MANY // 2))
    thresholds, stop = gc.get_threshold(), Event()
    churning = Thread(target=_collect, args=(stop,))
    churning.start()
    gc.set_threshold(1)

    read = [tuple(MessageHeaders(message)) for _ in range(20) for message in messages]

    gc.set_threshold(*thresholds)
    stop.set()
    churning.join(DEADLINE)
    assert read == [(), READ] * (20 * MANY // 2)


def _collect(stop: Event) -> None:
    while not stop.is_set():
        gc.collect()
