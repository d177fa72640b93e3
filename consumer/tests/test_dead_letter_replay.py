"""What was sent back and confirmed is noted before more is sent."""

from collections.abc import Mapping, Sequence
from threading import Event

import pytest
from confluent_kafka import KafkaError

from src.dead_letters.entries import State
from src.dead_letters.letter import REPLAYS, identity, read_note, read_replays
from src.dead_letters.replay import AT_ONCE, BYTES_AT_ONCE, Replay, ReplayError
from src.kafka.confirmed_producer import ProducerRecord
from src.model.record import Record
from tests.test_dead_letter import AGENTS
from tests.test_dead_letter_entries import parked, read

REFUSAL = KafkaError(KafkaError._MSG_TIMED_OUT)


class FakeDelivery:
    """Confirms everything but the values and the notes in `refused`."""

    def __init__(self, stop: Event) -> None:
        self.messages: list[ProducerRecord] = []
        self.notes: list[ProducerRecord] = []
        self.refused: list[bytes | None] = []
        self.stop_after = 10**9
        self._stop = stop

    def deliver(self, parcels: Sequence[ProducerRecord]) -> Mapping[int, KafkaError]:
        failures = {n: REFUSAL for n, parcel in enumerate(parcels) if parcel.value in self.refused}
        for number, parcel in enumerate(parcels):
            if number not in failures:
                (self.notes if parcel.topic == "dlq" else self.messages).append(parcel)
        if len(self.notes) >= self.stop_after:
            self._stop.set()
        return failures

    def explain(self, error: KafkaError) -> str:
        return "nobody answers"


class World:
    def __init__(self) -> None:
        self.stop = Event()
        self.delivery = FakeDelivery(self.stop)
        self.replay = Replay(self.delivery, "dlq", stop=self.stop)

    @property
    def noted(self) -> list[str | None]:
        return [read_note(Record("dlq", note.partition, 0, *note[1:4])) for note in self.delivery.notes]


@pytest.fixture
def world() -> World:
    return World()


def letters(number: int, *, size: int = 1) -> list[Record]:
    return [parked(offset, at=offset, value=b"%d" % offset + b"x" * (size - 1)) for offset in range(number)]


def test_a_message_goes_back_whole_with_one_header_more(world: World) -> None:
    letter = parked(41, headers=AGENTS, key=None, value=b"\x00\xff")

    sent = world.replay.send([letter])

    (message,) = world.delivery.messages
    assert sent == 1
    assert (message.topic, message.key, message.value, message.partition) == ("data-topic", None, b"\x00\xff", -1)
    assert message.headers[:-1] == AGENTS
    assert message.headers[-1][0] == REPLAYS
    assert read_replays(message.headers).times == 1


def test_each_message_is_noted_in_the_partition_of_its_letter(world: World) -> None:
    found = [record._replace(partition=3) for record in letters(2)]

    world.replay.send(found)

    assert world.noted == [identity(record.headers) for record in found]
    assert {note.partition for note in world.delivery.notes} == {3}


def test_what_was_sent_and_noted_waits_no_longer(world: World) -> None:
    found = letters(3)
    world.replay.send(found[:2])

    notes = [Record("dlq", 0, 100, *note[1:4]) for note in world.delivery.notes]

    assert [entry.state for entry in read(*found, *notes)] == [State.SENT_BACK, State.SENT_BACK, State.WAITING]


def test_what_was_refused_is_not_noted_and_its_neighbours_are(world: World) -> None:
    world.delivery.refused = [b"1"]

    with pytest.raises(ReplayError, match="2 sent back, the next was refused: nobody answers"):
        world.replay.send(letters(3))

    assert [message.value for message in world.delivery.messages] == [b"0", b"2"]
    assert len(world.noted) == 2


def test_a_refusal_ends_the_replay_and_counts_what_went_before(world: World) -> None:
    world.delivery.refused = [b"%d" % AT_ONCE]

    with pytest.raises(ReplayError, match=f"{2 * AT_ONCE - 1} sent back"):
        world.replay.send(letters(3 * AT_ONCE))

    assert len(world.delivery.messages) == 2 * AT_ONCE - 1


def test_where_nothing_was_confirmed_nothing_is_noted(world: World) -> None:
    world.delivery.refused = [b"0"]

    with pytest.raises(ReplayError, match="0 sent back"):
        world.replay.send(letters(1))

    assert world.delivery.notes == []


def test_a_note_that_was_refused_is_said(world: World) -> None:
    world.delivery.refused = [None]

    with pytest.raises(ReplayError, match="2 sent back, but dlq did not take the note"):
        world.replay.send(letters(2))


def test_asked_to_stop_it_ends_between_two_portions(world: World) -> None:
    world.delivery.stop_after = AT_ONCE

    sent = world.replay.send(letters(3 * AT_ONCE))

    assert sent == len(world.delivery.messages) == len(world.delivery.notes) == AT_ONCE


def test_large_messages_go_in_small_portions(world: World) -> None:
    world.delivery.stop_after = 1

    sent = world.replay.send(letters(20, size=BYTES_AT_ONCE // 4))

    assert sent == 4


def test_nothing_to_send_is_no_work(world: World) -> None:
    assert world.replay.send([]) == 0
    assert world.delivery.messages == []


def test_what_says_no_origin_can_not_be_sent(world: World) -> None:
    with pytest.raises(ValueError, match="without an origin"):
        world.replay.send([Record("dlq", 0, 0, None, b"foreign")])
