"""Sends parked messages back to where they came from, and notes in the dead-letter topic that it was done."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from threading import Event
from typing import Protocol

from confluent_kafka import KafkaError

from src.dead_letters.letter import identity, note, read_origin, sent_back
from src.kafka.confirmed_producer import ProducerRecord
from src.model.errors import ConsumerError
from src.model.record import Record

AT_ONCE = 100  # messages: what a crash sends twice at most
BYTES_AT_ONCE = 8 * 1024 * 1024


class Delivery(Protocol):
    def deliver(self, parcels: Sequence[ProducerRecord]) -> Mapping[int, KafkaError]:
        """What was not confirmed, by position."""

    def explain(self, error: KafkaError) -> str: ...


class ReplayError(ConsumerError):
    """Not all could be sent back. What was noted is not sent again by the next replay."""


class Replay:
    """A message that was confirmed is noted before the next ones are sent."""

    def __init__(self, delivery: Delivery, dead_letter_topic: str, *, stop: Event) -> None:
        self._delivery = delivery
        self._dead_letter_topic = dead_letter_topic
        self._stop = stop

    def send(self, letters: Iterable[Record]) -> int:
        """How many were sent back; fewer than given only where it was asked to stop. Raises ReplayError."""
        sent = 0
        for some in _portions(letters):
            if self._stop.is_set():
                break
            sent += self._send_portion(some, sent)
        return sent

    def _send_portion(self, letters: Sequence[Record], sent: int) -> int:
        failures = self._delivery.deliver([_message(letter) for letter in letters])
        confirmed = [letter for position, letter in enumerate(letters) if position not in failures]
        self._note(confirmed)
        if failures:
            error = self._delivery.explain(next(iter(failures.values())))
            raise ReplayError(f"{sent + len(confirmed)} sent back, the next was refused: {error}")
        return len(confirmed)

    def _note(self, letters: Sequence[Record]) -> None:
        failures = self._delivery.deliver([self._noted(letter) for letter in letters]) if letters else {}
        if failures:
            error = self._delivery.explain(next(iter(failures.values())))
            raise ReplayError(
                f"{len(failures)} sent back, but {self._dead_letter_topic} did not take the note of it,"
                f" so the next replay sends them again (which the store keeps once): {error}"
            )

    def _noted(self, letter: Record) -> ProducerRecord:
        """In the letter's own partition, behind it: retention takes the letter first."""
        key, value, headers = note(identity(letter.headers) or "")
        return ProducerRecord(self._dead_letter_topic, key, value, headers, letter.partition)


def _message(letter: Record) -> ProducerRecord:
    origin = read_origin(letter.headers)
    if origin is None:
        raise ValueError("a record without an origin can't be sent back")
    return ProducerRecord(origin.topic, letter.key, letter.value, sent_back(letter.headers))


def _portions(letters: Iterable[Record]) -> Iterator[list[Record]]:
    portion: list[Record] = []
    size = 0
    for letter in letters:
        portion.append(letter)
        size += len(letter.value or b"")
        if len(portion) == AT_ONCE or size >= BYTES_AT_ONCE:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion
