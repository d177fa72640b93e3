"""Markers: of replayed messages once they are confirmed, before more are replayed; of discarded messages."""

from collections.abc import Mapping, Sequence
from threading import Event

import pytest
from confluent_kafka import KafkaError
from msgspec.structs import replace

from src.dead_letters.dead_letter import (
    REPLAYS,
    is_discard_marker,
    message_identity,
    read_replay_marker,
    read_replays,
)
from src.dead_letters.entries import State
from src.dead_letters.replay import BATCH_BYTES, BATCH_SIZE, Discarder, DiscardError, Replayer, ReplayError
from src.kafka.confirmed_producer import ProducerRecord
from src.model.record import ORIGINAL_POSITION, Record
from tests.test_dead_letter import HEADERS
from tests.test_dead_letter_entries import dead_lettered, read

TIMED_OUT = KafkaError(KafkaError._MSG_TIMED_OUT)


class FakeProducer:
    """Confirms everything except the values in `failing`; the value of a replay marker is None."""

    def __init__(self, stop: Event) -> None:
        self.messages: list[ProducerRecord] = []
        self.markers: list[ProducerRecord] = []
        self.failing: list[bytes | None] = []
        self.stop_after = 10**9
        self._stop = stop

    def deliver(self, records: Sequence[ProducerRecord]) -> Mapping[int, KafkaError]:
        failures = {index: TIMED_OUT for index, record in enumerate(records) if record.value in self.failing}
        for index, record in enumerate(records):
            if index not in failures:
                (self.markers if record.topic == "dlq" else self.messages).append(record)
        if len(self.markers) >= self.stop_after:
            self._stop.set()
        return failures

    def explain(self, error: KafkaError) -> str:
        return "connection refused"


class World:
    def __init__(self) -> None:
        self.stop = Event()
        self.producer = FakeProducer(self.stop)
        self._replayer = Replayer(self.producer, "dlq", stop=self.stop)
        self._discarder = Discarder(self.producer, "dlq", stop=self.stop)

    def replay(self, dead_letters: list[Record]) -> int:
        return self._replayer.replay(dead_letters)

    def discard(self, dead_letters: list[Record]) -> int:
        return self._discarder.discard(read(*dead_letters))

    @property
    def marked(self) -> list[str | None]:
        return [read_replay_marker(marker_record(marker)) for marker in self.producer.markers]


@pytest.fixture
def world() -> World:
    return World()


def marker_record(marker: ProducerRecord) -> Record:
    return Record("dlq", marker.partition, 100, marker.key, marker.value, marker.headers)


def dead_letters(number: int, *, size: int = 1) -> list[Record]:
    return [dead_lettered(offset, at=offset, value=b"%d" % offset + b"x" * (size - 1)) for offset in range(number)]


def test_a_message_is_replayed_unchanged_with_two_more_headers(world: World) -> None:
    dead_letter = dead_lettered(41, headers=HEADERS, key=None, value=b"\x00\xff")

    replayed = world.replay([dead_letter])

    (message,) = world.producer.messages
    assert replayed == 1
    assert (message.topic, message.key, message.value, message.partition) == ("data-topic", None, b"\x00\xff", -1)
    assert message.headers[:-2] == HEADERS
    assert [name for name, _ in message.headers[-2:]] == [REPLAYS, ORIGINAL_POSITION]
    assert read_replays(message.headers).times == 1


def test_each_replay_marker_is_in_the_partition_of_its_dead_letter(world: World) -> None:
    selected = [replace(record, partition=3) for record in dead_letters(2)]

    world.replay(selected)

    assert world.marked == [message_identity(record.headers) for record in selected]
    assert {marker.partition for marker in world.producer.markers} == {3}


def test_a_message_with_a_replay_marker_no_longer_waits(world: World) -> None:
    selected = dead_letters(3)
    world.replay(selected[:2])

    markers = map(marker_record, world.producer.markers)

    assert [entry.state for entry in read(*selected, *markers)] == [State.REPLAYED, State.REPLAYED, State.WAITING]


def test_a_message_that_was_not_confirmed_gets_no_replay_marker_and_the_others_do(world: World) -> None:
    world.producer.failing = [b"1"]

    with pytest.raises(ReplayError, match="2 replayed, then a message was not confirmed: connection refused"):
        world.replay(dead_letters(3))

    assert [message.value for message in world.producer.messages] == [b"0", b"2"]
    assert len(world.marked) == 2


def test_an_error_ends_the_replay_and_reports_the_messages_replayed_before(world: World) -> None:
    world.producer.failing = [b"%d" % BATCH_SIZE]

    with pytest.raises(ReplayError, match=f"{2 * BATCH_SIZE - 1} replayed"):
        world.replay(dead_letters(3 * BATCH_SIZE))

    assert len(world.producer.messages) == 2 * BATCH_SIZE - 1


def test_without_a_confirmed_message_there_is_no_replay_marker(world: World) -> None:
    world.producer.failing = [b"0"]

    with pytest.raises(ReplayError, match="0 replayed"):
        world.replay(dead_letters(1))

    assert world.producer.markers == []


def test_a_missing_replay_marker_is_an_error(world: World) -> None:
    world.producer.failing = [None]

    with pytest.raises(ReplayError, match="2 replayed without a replay marker in dlq"):
        world.replay(dead_letters(2))


def test_a_stop_takes_effect_between_two_batches(world: World) -> None:
    world.producer.stop_after = BATCH_SIZE

    replayed = world.replay(dead_letters(3 * BATCH_SIZE))

    assert replayed == len(world.producer.messages) == len(world.producer.markers) == BATCH_SIZE


def test_large_messages_are_replayed_in_small_batches(world: World) -> None:
    world.producer.stop_after = 1

    replayed = world.replay(dead_letters(20, size=BATCH_BYTES // 4))

    assert replayed == 4


def test_nothing_to_replay_succeeds(world: World) -> None:
    assert world.replay([]) == 0
    assert world.producer.messages == []


def test_a_record_without_an_original_position_cannot_be_replayed(world: World) -> None:
    with pytest.raises(ValueError, match="without the position"):
        world.replay([Record("dlq", 0, 0, None, b"foreign")])


# -- discard


def test_a_discarded_message_gets_a_discard_marker_in_the_partition_of_its_dead_letter(world: World) -> None:
    selected = [replace(record, partition=3) for record in dead_letters(2)]

    assert world.discard(selected) == 2

    assert world.marked == [message_identity(record.headers) for record in selected]
    assert all(map(is_discard_marker, map(marker_record, world.producer.markers)))
    assert {marker.partition for marker in world.producer.markers} == {3}
    assert world.producer.messages == []


def test_a_discarded_message_no_longer_waits(world: World) -> None:
    records = [*dead_letters(2), Record("dlq", 0, 2, None, b"foreign")]
    world.discard([records[0], records[2]])

    markers = map(marker_record, world.producer.markers)

    assert [entry.state for entry in read(*records, *markers)] == [State.DISCARDED, State.WAITING, State.DISCARDED]


def test_a_missing_discard_marker_is_an_error(world: World) -> None:
    world.producer.failing = [None]

    with pytest.raises(DiscardError, match="0 discarded, then a discard marker was not confirmed: connection refused"):
        world.discard(dead_letters(2))


def test_a_stop_takes_effect_between_two_batches_of_markers(world: World) -> None:
    world.producer.stop_after = BATCH_SIZE

    assert world.discard(dead_letters(3 * BATCH_SIZE)) == len(world.producer.markers) == BATCH_SIZE
