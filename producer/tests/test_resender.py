"""A running producer empties the undelivered folder by itself; only what Kafka has confirmed leaves it."""

from collections import deque
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from src.delivery import MAX_MESSAGES, TURN, Delivery, RetryPolicy
from src.kafka.produce_request import Failure, Fault
from src.model.message import Encoded
from src.undelivered.resender import (
    AFTER_FAILURE,
    AFTER_TROUBLE,
    AT_ONCE,
    AT_ONCE_BYTES,
    LOOK_AGAIN,
    PACE,
    BackgroundResender,
)
from src.undelivered.segments import Undelivered, from_line, segments, taken
from src.utils.metrics import ProducerMetrics
from tests.fakes import FakeClock, FakePublisher, encoded

TOPIC = "data-topic"


def leave(folder: Path, *messages: Encoded | str, topic: str = TOPIC, fault: Fault = Fault.WORLD) -> Path:
    """The segment of a process that is gone."""
    process = Undelivered(folder, topic, host="dead")
    process.keep([Failure(encoded(m) if isinstance(m, str) else m, fault, "no leader") for m in messages])
    return process.own[0]


def keys_in(folder: Path) -> list[str]:
    lines = [line for path in segments(folder) for line in path.read_bytes().splitlines(keepends=True)]
    return [(kept.message.key or b"").decode() for line in lines if (kept := from_line(line))]


class World:
    """A producer's delivery and its trickle among fakes, on a real folder."""

    def __init__(self, folder: Path, *, max_retries: int = 0) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.publisher = FakePublisher(self.clock)
        self.stop = Event()
        self.undelivered = Undelivered(folder, TOPIC, host="alive")
        self.delivery = Delivery(
            self.publisher,
            self.undelivered,
            RetryPolicy(max_retries, 1.0),
            ProducerMetrics(CollectorRegistry(), version="1"),
            clock=self.clock,
            stop=self.stop,
        )
        self.trickle = BackgroundResender(self.undelivered, self.delivery, stop=self.stop, clock=self.clock)

    @property
    def sent(self) -> list[str]:
        return [(message.key or b"").decode() for message in self.publisher.delivered]

    def pass_time(self, seconds: float) -> None:
        """The loop turns, with nothing new to send."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.trickle.turn()
            self.delivery.turn(TURN)
            self.clock.advance(TURN)

    def close(self) -> None:
        with self.trickle:
            self.delivery.finish()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_what_dead_processes_and_this_one_left_is_sent_and_the_folder_is_empty(world: World) -> None:
    leave(world.folder, "a", "b")
    leave(world.folder, "c")
    world.undelivered.keep([Failure(encoded("d"), Fault.WORLD, "away")])

    world.pass_time(20)

    assert sorted(world.sent) == ["a", "b", "c", "d"]
    assert list(world.folder.iterdir()) == []
    assert (world.undelivered.count(), world.undelivered.left()) == (0, 0)


def test_what_is_given_up_later_is_sent_later(world: World) -> None:
    world.pass_time(1)
    world.publisher.refuse("a", "away")
    world.delivery.deliver([encoded("a")])
    kept = keys_in(world.folder)

    world.pass_time(2 * LOOK_AGAIN)

    assert (kept, world.sent, keys_in(world.folder)) == (["a"], ["a"], [])


def test_the_pace_is_moderate(world: World) -> None:
    leave(world.folder, *map(str, range(5 * AT_ONCE)))

    world.pass_time(2.5 * PACE)

    assert world.publisher.sizes == [AT_ONCE] * 3


def test_as_long_as_no_broker_has_answered_it_is_tried_with_one_message(world: World) -> None:
    leave(world.folder, *map(str, range(10)))
    world.publisher.trouble = "not connected yet"

    world.pass_time(PACE / 2)

    assert world.publisher.sizes == [1]


def test_long_messages_travel_a_few_at_a_time(world: World) -> None:
    leave(world.folder, *(encoded(str(number), size=AT_ONCE_BYTES // 4) for number in range(20)))

    world.pass_time(20)

    assert len(world.sent) == 20
    assert max(world.publisher.sizes) == 4


def test_in_an_outage_one_message_tries_it_now_and_then_and_nothing_leaves_the_folder(world: World) -> None:
    names = [str(number) for number in range(100)]
    leave(world.folder, *names)
    for name in names:
        world.publisher.answers[name.encode()] = deque([(Fault.WORLD, "away")] * 100)

    world.pass_time(10 * AFTER_FAILURE)
    in_the_outage = world.publisher.sizes[1:]
    kept = keys_in(world.folder)
    world.publisher.answers.clear()
    world.pass_time(10 * AFTER_FAILURE)

    assert set(in_the_outage) == {1}
    assert len(in_the_outage) <= 10
    assert sorted(kept) == sorted(names)
    assert sorted(world.sent) == sorted(names)
    assert keys_in(world.folder) == []


def test_a_message_that_was_refused_stays_for_the_operator_and_its_neighbours_are_sent(world: World) -> None:
    leave(world.folder, "a", "b")
    leave(world.folder, "large", fault=Fault.MESSAGE)
    world.publisher.refuse("b", *["too large"] * 1000, fault=Fault.MESSAGE)

    world.pass_time(10 * LOOK_AGAIN)

    assert world.sent == ["a"]
    assert sorted(keys_in(world.folder)) == ["b", "large"]
    assert len(world.publisher.answers[b"b"]) == 999


def test_messages_of_another_topic_stay(world: World) -> None:
    leave(world.folder, "a", topic="other")

    world.pass_time(10 * LOOK_AGAIN)

    assert (world.sent, keys_in(world.folder)) == ([], ["a"])


def test_a_segment_that_somebody_else_sends_is_left_alone_until_they_are_gone(world: World) -> None:
    path = leave(world.folder, "a")
    with taken(path):
        world.pass_time(3 * LOOK_AGAIN)
        meanwhile = list(world.sent)

    world.pass_time(2 * LOOK_AGAIN)

    assert (meanwhile, world.sent) == ([], ["a"])


def test_two_producers_on_one_folder_send_each_message_once(tmp_path: Path) -> None:
    one, two = World(tmp_path), World(tmp_path)
    for number in range(10):
        leave(tmp_path, f"{number}a", f"{number}b")

    for _ in range(100):
        one.pass_time(1)
        two.pass_time(1)

    assert len(one.sent) + len(two.sent) == len({*one.sent, *two.sent}) == 20


def test_broken_lines_are_put_aside(world: World) -> None:
    path = leave(world.folder, "a")
    path.write_bytes(path.read_bytes() + b"torn")

    world.pass_time(10)

    assert world.sent == ["a"]
    assert [found.read_bytes() for found in world.folder.iterdir()] == [b"torn\n"]


def test_an_empty_segment_of_a_full_disk_is_cleared_away(world: World) -> None:
    (world.folder / "dead.jsonl").touch()

    world.pass_time(1)

    assert list(world.folder.iterdir()) == []


def test_a_stop_in_the_middle_leaves_what_is_not_confirmed_and_only_that(world: World) -> None:
    leave(world.folder, *map(str, range(5000)))
    world.pass_time(1.5 * PACE)
    world.publisher.silent = True
    world.pass_time(1.5 * PACE)

    world.close()

    assert len(world.sent) + len(keys_in(world.folder)) == 5000
    assert sorted(world.sent + keys_in(world.folder), key=int) == [str(number) for number in range(5000)]
    assert [path.suffix for path in world.folder.iterdir()] == [".jsonl"]


def test_a_crash_in_the_middle_leaves_the_segment_as_it_was(world: World) -> None:
    path = leave(world.folder, *map(str, range(5000)))
    before = path.read_bytes()

    world.pass_time(2 * PACE)

    assert world.sent
    assert path.read_bytes() == before


def test_new_messages_come_first(world: World) -> None:
    leave(world.folder, "old")
    world.publisher.silent = True
    world.delivery.dispatch([encoded("new")] * MAX_MESSAGES)

    world.pass_time(20)

    assert world.publisher.sizes == [MAX_MESSAGES]


def test_a_full_folder_is_emptied_although_nothing_more_can_be_kept_there(world: World, tmp_path: Path) -> None:
    leave(world.folder, "old")
    world.publisher.refuse("large", "too large", fault=Fault.MESSAGE)
    world.undelivered.folder = tmp_path / "no such folder"
    world.delivery.dispatch([encoded("large")])
    world.delivery.turn(0)

    world.pass_time(10)

    assert not world.delivery.has_room
    assert world.sent == ["old"]


def test_a_segment_that_cannot_be_rewritten_is_said_and_does_not_hold_up_the_others(world: World) -> None:
    path = leave(world.folder, "a")
    path.with_name(f".{path.name}.new").mkdir()
    leave(world.folder, "b")

    world.pass_time(2 * LOOK_AGAIN)
    said = world.trickle.trouble
    path.with_name(f".{path.name}.new").rmdir()
    world.pass_time(AFTER_TROUBLE + 2 * LOOK_AGAIN)

    assert said is not None
    assert path.name in said
    assert world.trickle.trouble is None
    assert world.sent == ["b", "a"]


def test_a_segment_that_cannot_be_looked_at_is_said_and_does_not_hold_up_the_others(world: World) -> None:
    unreadable = world.folder / "a.jsonl"
    unreadable.symlink_to(unreadable)
    leave(world.folder, "b")

    world.pass_time(2 * LOOK_AGAIN)
    said = world.trickle.trouble
    unreadable.unlink()
    world.pass_time(AFTER_TROUBLE + 2 * LOOK_AGAIN)

    assert world.sent == ["b"]
    assert unreadable.name in (said or "")
    assert world.trickle.trouble is None


def test_a_folder_that_cannot_be_read_for_a_time_holds_up_nothing_but_itself(world: World) -> None:
    world.undelivered.keep([Failure(encoded("a"), Fault.WORLD, "away")])
    before = (world.undelivered.count(), world.undelivered.left())
    elsewhere = world.folder.rename(world.folder.with_name("elsewhere"))
    world.folder.touch()

    world.pass_time(2 * LOOK_AGAIN)
    said, meanwhile = world.trickle.trouble, (world.undelivered.count(), world.undelivered.left())
    waits = world.trickle.unfinished
    world.folder.unlink()
    elsewhere.rename(world.folder)
    world.pass_time(AFTER_TROUBLE + 2 * LOOK_AGAIN)

    assert before == meanwhile == (1, 1)
    assert (str(world.folder) in (said or ""), waits) == (True, False)
    assert (world.sent, world.trickle.trouble, world.undelivered.count()) == (["a"], None, 0)


def test_what_cannot_be_sent_is_not_waited_for_while_the_others_are_sent(world: World) -> None:
    world.undelivered.keep([Failure(encoded("a"), Fault.WORLD, "away")])
    (own,) = world.undelivered.own
    own.with_name(f".{own.name}.new").mkdir()
    leave(world.folder, *map(str, range(5 * AT_ONCE)))

    world.pass_time(1.5 * PACE)

    assert not world.trickle.unfinished
    assert world.publisher.sizes == [AT_ONCE] * 2


def test_what_this_process_keeps_is_sent_before_more_of_what_others_have_left(world: World) -> None:
    for number in range(5):
        leave(world.folder, f"theirs {number}")
    world.undelivered.keep([Failure(encoded("own"), Fault.WORLD, "away")])

    world.pass_time(1.5 * PACE)
    world.undelivered.keep([Failure(encoded("own, later"), Fault.WORLD, "away")])
    world.pass_time(2 * PACE)

    assert world.sent[:4] == ["own", "theirs 0", "own, later", "theirs 1"]


@settings(max_examples=settings().max_examples // 2)  # each on a disk
@given(
    st.lists(st.lists(st.sampled_from([Fault.WORLD, Fault.MESSAGE, Fault.COMPANY]), max_size=4), max_size=15),
    st.integers(0, 2),
    st.integers(0, 300),
)
def test_whatever_fails_and_whenever_it_stops_each_message_is_delivered_or_in_the_folder(
    tmp_path_factory: pytest.TempPathFactory, faults: list[list[Fault]], max_retries: int, turns: int
) -> None:
    world = World(tmp_path_factory.mktemp("folder"), max_retries=max_retries)
    names = [str(number) for number in range(len(faults))]
    half = len(names) // 2
    if half:
        leave(world.folder, *names[:half])
    for name, own in zip(names, faults, strict=True):
        world.publisher.answers[name.encode()] = deque((fault, "no") for fault in own)

    if names[half:]:
        world.delivery.dispatch([encoded(name) for name in names[half:]])
    world.pass_time(turns * TURN)
    world.close()

    assert sorted(world.sent + keys_in(world.folder)) == sorted(names)
