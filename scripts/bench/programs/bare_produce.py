"""Produces messages with one delivery callback for all: what Kafka's client alone costs.

With BENCH_GENERATE=1 each message is generated and encoded, as cheaply as possible; otherwise a few thousand prepared
messages are sent again and again.
"""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import cycle, islice
from random import random

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from bench.programs.common import Stopwatch, setting

PREPARED = 5_000
POLL_EVERY = 500  # messages
QUEUE_SIZE = 100_000

_encode = msgspec.json.Encoder().encode

Record = tuple[bytes, bytes, list[tuple[str, bytes]]]


def generated() -> Iterator[Record]:
    """As the producer's: a UUID as key and id, and the time in value and header."""
    metadata = {"source": "system-a", "version": "1.0.0"}
    while True:
        created_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        headers = [("content-type", b"application/json"), ("created_at", created_at.encode())]
        digits = os.urandom(16 * POLL_EVERY).hex()
        for start in range(0, len(digits), 32):
            text = digits[start : start + 32]
            key = f"{text[:8]}-{text[8:12]}-4{text[13:16]}-8{text[17:20]}-{text[20:]}"
            name = f"item_{int(random() * 1e8):08d}"
            value = _encode({"id": key, "name": name, "created_at": created_at, "metadata": metadata})
            yield key.encode(), value, headers


def send(
    records: Iterator[Record], producer: Producer, on_delivery: Callable[[KafkaError | None, Message], None]
) -> int:
    topic, sent = setting("TOPIC"), 0
    for key, value, headers in records:
        while len(producer) >= QUEUE_SIZE - POLL_EVERY:
            producer.poll(0.01)
        producer.produce(topic, value, key, headers=headers, on_delivery=on_delivery)  # type: ignore[arg-type]
        sent += 1
        if sent % POLL_EVERY == 0:
            producer.poll(0)
    return sent


def main() -> None:
    expected, delivered = int(setting("MESSAGES")), 0

    def count(error: KafkaError | None, _message: Message) -> None:
        nonlocal delivered
        delivered += error is None

    settings = {"linger.ms": 5, "acks": "all", "enable.idempotence": True, "compression.type": "snappy"}
    producer = Producer({"bootstrap.servers": setting("BOOTSTRAP"), **settings})
    source = generated() if setting("GENERATE") == "1" else cycle(list(islice(generated(), PREPARED)))
    stopwatch = Stopwatch()
    send(islice(source, expected), producer, count)
    producer.flush()
    stopwatch.report(delivered)


if __name__ == "__main__":
    main()
