"""Replays messages, that is, produces them to their original topics, or discards them, and writes a marker for each."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import Event
from typing import Protocol, TypeVar

from confluent_kafka import KafkaError

from src.dead_letters.dead_letter import (
    DeadLetter,
    discard_marker,
    message_identity,
    original_position,
    replay_headers,
    replay_marker,
)
from src.dead_letters.entries import Entry
from src.kafka.confirmed_producer import ProducerRecord
from src.model.errors import ConsumerError
from src.model.record import Record

BATCH_SIZE = 100  # messages: at most this many are replayed twice if the process is killed
BATCH_BYTES = 8 * 1024 * 1024

Item = TypeVar("Item")


class Producer(Protocol):
    def deliver(self, records: Sequence[ProducerRecord]) -> Mapping[int, KafkaError]:
        """Returns the errors of what was not confirmed, by index."""

    def explain(self, error: KafkaError) -> str: ...


class ReplayError(ConsumerError):
    """Not all messages were replayed. Those with a replay marker are not replayed again."""


class DiscardError(ConsumerError):
    """Not all messages were discarded. Those that were not can be discarded again."""


class Replayer:
    """Writes the replay markers of each batch before it produces the next one."""

    def __init__(self, producer: Producer, dead_letter_topic: str, *, stop: Event) -> None:
        self._producer = producer
        self._dead_letter_topic = dead_letter_topic
        self._stop = stop

    def replay(self, dead_letters: Iterable[Record]) -> int:
        """The number of messages replayed: fewer than given only after a stop. Raises ReplayError."""
        replayed = 0
        for batch in _batches(dead_letters, lambda dead_letter: len(dead_letter.value or b"")):
            if self._stop.is_set():
                break
            replayed += self._replay_batch(batch, replayed)
        return replayed

    def _replay_batch(self, batch: Sequence[Record], replayed_before: int) -> int:
        failures = self._producer.deliver([_original_message(dead_letter) for dead_letter in batch])
        confirmed = [dead_letter for index, dead_letter in enumerate(batch) if index not in failures]
        self._write_markers(confirmed)
        if failures:
            error = self._producer.explain(next(iter(failures.values())))
            raise ReplayError(f"{replayed_before + len(confirmed)} replayed, then a message was not confirmed: {error}")
        return len(confirmed)

    def _write_markers(self, dead_letters: Sequence[Record]) -> None:
        failures = self._producer.deliver([self._marker(each) for each in dead_letters]) if dead_letters else {}
        if failures:
            error = self._producer.explain(next(iter(failures.values())))
            raise ReplayError(
                f"{len(failures)} replayed without a replay marker in {self._dead_letter_topic}: the next replay"
                f" produces them again, and the store keeps one copy each: {error}"
            )

    def _marker(self, dead_letter: Record) -> ProducerRecord:
        marker = replay_marker(message_identity(dead_letter.headers) or "")
        return _marker_record(self._dead_letter_topic, marker, dead_letter.partition)


class Discarder:
    """Writes discard markers. The dead letters stay in the topic."""

    def __init__(self, producer: Producer, dead_letter_topic: str, *, stop: Event) -> None:
        self._producer = producer
        self._dead_letter_topic = dead_letter_topic
        self._stop = stop

    def discard(self, entries: Iterable[Entry]) -> int:
        """The number of messages discarded: fewer than given only after a stop. Raises DiscardError."""
        discarded = 0
        for batch in _batches(entries, lambda _: 0):
            if self._stop.is_set():
                break
            discarded += self._discard_batch(batch, discarded)
        return discarded

    def _discard_batch(self, batch: Sequence[Entry], discarded_before: int) -> int:
        failures = self._producer.deliver([self._marker(entry) for entry in batch])
        if failures:
            discarded = discarded_before + len(batch) - len(failures)
            error = self._producer.explain(next(iter(failures.values())))
            raise DiscardError(f"{discarded} discarded, then a discard marker was not confirmed: {error}")
        return len(batch)

    def _marker(self, entry: Entry) -> ProducerRecord:
        return _marker_record(self._dead_letter_topic, discard_marker(entry.identity), entry.dead_letter.partition)


def _marker_record(dead_letter_topic: str, marker: DeadLetter, partition: int) -> ProducerRecord:
    """In the partition of the dead letter, after it: retention deletes the dead letter first."""
    return ProducerRecord(dead_letter_topic, *marker, partition)


def _original_message(dead_letter: Record) -> ProducerRecord:
    position = original_position(dead_letter.headers)
    if position is None:
        raise ValueError("cannot replay a record without the position of its original message")
    return ProducerRecord(position.topic, dead_letter.key, dead_letter.value, replay_headers(dead_letter.headers))


def _batches(items: Iterable[Item], bytes_of: Callable[[Item], int]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += bytes_of(item)
        if len(batch) == BATCH_SIZE or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
