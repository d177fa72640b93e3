"""A running producer resends the messages in the undelivered folder; only acknowledged ones are removed."""

from collections import deque
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from src.delivery.delivery import POLL_TIMEOUT, Delivery
from src.delivery.ledger import MAX_MESSAGES
from src.delivery.retry_policy import RetryPolicy
from src.delivery.undelivered_buffer import UndeliveredStore
from src.model.delivery_failure import DeliveryFailure, Fault
from src.model.message import ProducerRecord
from src.undelivered.background_resender import (
    BATCH_INTERVAL,
    RETRY_INTERVAL,
    SCAN_INTERVAL,
    SCAN_INTERVAL_AFTER_ERROR,
    BackgroundResender,
)
from src.undelivered.folder import UndeliveredFolder
from src.undelivered.resender import BATCH_BYTES, BATCH_SIZE
from src.undelivered.segments import locked_segment
from src.utils.metrics import ProducerMetrics
from tests.fakes import UNLIMITED, FakeClock, FakePublisher, FakeUndeliveredStore, key, record, undelivered_keys

TOPIC = "data-topic"


def leave(folder: Path, *messages: ProducerRecord | str, topic: str = TOPIC, fault: Fault = Fault.TRANSIENT) -> Path:
    """The segment of a dead process."""
    process = UndeliveredFolder(folder, topic, host="dead")
    process.append([DeliveryFailure(record(m) if isinstance(m, str) else m, fault, "no leader") for m in messages])
    return process.own[0]


class World:
    """Delivery and the resender with a fake Kafka, on a real folder."""

    def __init__(self, folder: Path, *, max_retries: int = 0, store: UndeliveredStore | None = None) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.publisher = FakePublisher(self.clock)
        self.stop = Event()
        self.undelivered = UndeliveredFolder(folder, TOPIC, host="alive")
        self.delivery = Delivery(
            self.publisher,
            store or self.undelivered,
            RetryPolicy(max_retries, 1.0),
            ProducerMetrics(CollectorRegistry(), version="1"),
            clock=self.clock,
            stop=self.stop,
        )
        self.resender = BackgroundResender(self.undelivered, self.delivery, stop=self.stop, clock=self.clock)

    @property
    def sent(self) -> list[str]:
        return list(map(key, self.publisher.delivered))

    def pass_time(self, seconds: float) -> None:
        """The main loop, with nothing new to send."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.resender.poll_once()
            self.delivery.poll_once(POLL_TIMEOUT)
            self.clock.advance(POLL_TIMEOUT)

    def close(self) -> None:
        with self.resender:
            self.delivery.finish()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_segments_of_dead_processes_and_of_this_one_are_resent_and_removed(world: World) -> None:
    leave(world.folder, "a", "b")
    leave(world.folder, "c")
    world.undelivered.append([DeliveryFailure(record("d"), Fault.TRANSIENT, "broker down")])

    world.pass_time(20)

    assert sorted(world.sent) == ["a", "b", "c", "d"]
    assert list(world.folder.iterdir()) == []
    assert (world.undelivered.count(), world.undelivered.count_own()) == (0, 0)


def test_a_message_that_fails_later_is_resent_later(world: World) -> None:
    world.pass_time(1)
    world.publisher.fail("a", "broker down")
    world.delivery.send_and_wait([record("a")])
    stored = undelivered_keys(world.folder)

    world.pass_time(2 * SCAN_INTERVAL)

    assert (stored, world.sent, undelivered_keys(world.folder)) == (["a"], ["a"], [])


def test_one_batch_is_resent_per_interval(world: World) -> None:
    leave(world.folder, *map(str, range(5 * BATCH_SIZE)))

    world.pass_time(2.5 * BATCH_INTERVAL)

    assert world.publisher.sizes == [BATCH_SIZE] * 3


def test_before_a_broker_is_connected_a_single_message_is_sent(world: World) -> None:
    leave(world.folder, *map(str, range(10)))
    world.publisher.unavailable_reason = "not connected yet"

    world.pass_time(BATCH_INTERVAL / 2)

    assert world.publisher.sizes == [1]


def test_batches_are_bounded_in_bytes(world: World) -> None:
    leave(world.folder, *(record(str(number), size=BATCH_BYTES // 4) for number in range(20)))

    world.pass_time(20)

    assert len(world.sent) == 20
    assert max(world.publisher.sizes) == 4


def test_in_an_outage_a_single_message_probes_kafka_and_the_folder_is_unchanged(world: World) -> None:
    names = [str(number) for number in range(100)]
    leave(world.folder, *names)
    for name in names:
        world.publisher.failures[name.encode()] = deque([(Fault.TRANSIENT, "broker down")] * 100)

    world.pass_time(10 * RETRY_INTERVAL)
    probes = world.publisher.sizes[1:]
    stored = undelivered_keys(world.folder)
    world.publisher.failures.clear()
    world.pass_time(10 * RETRY_INTERVAL)

    assert set(probes) == {1}
    assert len(probes) <= 10
    assert sorted(stored) == sorted(names)
    assert sorted(world.sent) == sorted(names)
    assert undelivered_keys(world.folder) == []


def test_a_rejected_message_stays_in_the_folder_and_the_others_are_resent(world: World) -> None:
    leave(world.folder, "a", "b")
    leave(world.folder, "large", fault=Fault.PERMANENT)
    world.publisher.fail("b", *["too large"] * 1000, fault=Fault.PERMANENT)

    world.pass_time(10 * SCAN_INTERVAL)

    assert world.sent == ["a"]
    assert sorted(undelivered_keys(world.folder)) == ["b", "large"]
    assert len(world.publisher.failures[b"b"]) == 999


def test_messages_of_another_topic_stay_in_the_folder(world: World) -> None:
    leave(world.folder, "a", topic="other")

    world.pass_time(10 * SCAN_INTERVAL)

    assert (world.sent, undelivered_keys(world.folder)) == ([], ["a"])


def test_a_segment_locked_by_another_process_is_skipped_until_it_is_free(world: World) -> None:
    path = leave(world.folder, "a")
    with locked_segment(path):
        world.pass_time(3 * SCAN_INTERVAL)
        meanwhile = list(world.sent)

    world.pass_time(2 * SCAN_INTERVAL)

    assert (meanwhile, world.sent) == ([], ["a"])


def test_two_producers_sharing_a_folder_resend_each_message_once(tmp_path: Path) -> None:
    one, two = World(tmp_path), World(tmp_path)
    for number in range(10):
        leave(tmp_path, f"{number}a", f"{number}b")

    for _ in range(100):
        one.pass_time(1)
        two.pass_time(1)

    assert len(one.sent) + len(two.sent) == len({*one.sent, *two.sent}) == 20


def test_corrupt_lines_are_moved_aside_unchanged(world: World) -> None:
    path = leave(world.folder, "a", "b")
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b"\xff{\n" + second + second[:-30])

    world.pass_time(10)

    assert world.sent == ["a", "b"]
    assert [found.read_bytes() for found in world.folder.iterdir()] == [b"\xff{\n" + second[:-30] + b"\n"]


def test_an_empty_segment_is_deleted(world: World) -> None:
    (world.folder / "dead.jsonl").touch()

    world.pass_time(1)

    assert list(world.folder.iterdir()) == []


def test_a_stop_leaves_exactly_the_unacknowledged_messages_in_the_folder(world: World) -> None:
    leave(world.folder, *map(str, range(5000)))
    world.pass_time(1.5 * BATCH_INTERVAL)
    world.publisher.silent = True
    world.pass_time(1.5 * BATCH_INTERVAL)

    world.close()

    assert len(world.sent) + len(undelivered_keys(world.folder)) == 5000
    assert sorted(world.sent + undelivered_keys(world.folder), key=int) == [str(number) for number in range(5000)]
    assert [path.suffix for path in world.folder.iterdir()] == [".jsonl"]


def test_a_crash_leaves_the_segment_unchanged(world: World) -> None:
    path = leave(world.folder, *map(str, range(5000)))
    before = path.read_bytes()

    world.pass_time(2 * BATCH_INTERVAL)

    assert world.sent
    assert path.read_bytes() == before


def test_new_messages_take_precedence(world: World) -> None:
    leave(world.folder, "old")
    world.publisher.silent = True
    world.delivery.send([record("new")] * MAX_MESSAGES)

    world.pass_time(20)

    assert world.publisher.sizes == [MAX_MESSAGES]


def test_a_folder_that_cannot_be_written_is_still_emptied(tmp_path: Path) -> None:
    world = World(tmp_path, store=FakeUndeliveredStore(full=UNLIMITED))
    leave(world.folder, "old")
    world.publisher.fail("large", "too large", fault=Fault.PERMANENT)
    world.delivery.send([record("large")])
    world.delivery.poll_once(0)

    world.pass_time(10)

    assert not world.delivery.has_capacity
    assert world.sent == ["old"]


def test_a_segment_that_cannot_be_rewritten_is_reported_and_the_others_are_resent(world: World) -> None:
    path = leave(world.folder, "a")
    path.with_name(f".{path.name}.new").mkdir()
    leave(world.folder, "b")

    world.pass_time(2 * SCAN_INTERVAL)
    error = world.resender.error
    path.with_name(f".{path.name}.new").rmdir()
    world.pass_time(SCAN_INTERVAL_AFTER_ERROR + 2 * SCAN_INTERVAL)

    assert error is not None
    assert path.name in error
    assert world.resender.error is None
    assert world.sent == ["b", "a"]


def test_a_segment_that_cannot_be_read_is_reported_and_the_others_are_resent(world: World) -> None:
    unreadable = world.folder / "a.jsonl"
    unreadable.symlink_to(unreadable)
    leave(world.folder, "b")

    world.pass_time(2 * SCAN_INTERVAL)
    error = world.resender.error
    unreadable.unlink()
    world.pass_time(SCAN_INTERVAL_AFTER_ERROR + 2 * SCAN_INTERVAL)

    assert world.sent == ["b"]
    assert unreadable.name in (error or "")
    assert world.resender.error is None


def test_a_folder_that_is_temporarily_unreadable_is_resent_afterwards(world: World) -> None:
    world.undelivered.append([DeliveryFailure(record("a"), Fault.TRANSIENT, "broker down")])
    before = (world.undelivered.count(), world.undelivered.count_own())
    elsewhere = world.folder.rename(world.folder.with_name("elsewhere"))
    world.folder.touch()

    world.pass_time(2 * SCAN_INTERVAL)
    error, meanwhile = world.resender.error, (world.undelivered.count(), world.undelivered.count_own())
    has_own_messages = world.resender.has_own_messages
    world.folder.unlink()
    elsewhere.rename(world.folder)
    world.pass_time(SCAN_INTERVAL_AFTER_ERROR + 2 * SCAN_INTERVAL)

    assert before == meanwhile == (1, 1)
    assert (str(world.folder) in (error or ""), has_own_messages) == (True, False)
    assert (world.sent, world.resender.error, world.undelivered.count()) == (["a"], None, 0)


def test_an_own_segment_that_cannot_be_rewritten_is_not_waited_for(world: World) -> None:
    world.undelivered.append([DeliveryFailure(record("a"), Fault.TRANSIENT, "broker down")])
    (own,) = world.undelivered.own
    own.with_name(f".{own.name}.new").mkdir()
    leave(world.folder, *map(str, range(5 * BATCH_SIZE)))

    world.pass_time(1.5 * BATCH_INTERVAL)

    assert not world.resender.has_own_messages
    assert world.publisher.sizes == [BATCH_SIZE] * 2


def test_own_segments_are_resent_before_the_next_one_of_another_process(world: World) -> None:
    for number in range(5):
        leave(world.folder, f"theirs {number}")
    world.undelivered.append([DeliveryFailure(record("own"), Fault.TRANSIENT, "broker down")])

    world.pass_time(1.5 * BATCH_INTERVAL)
    world.undelivered.append([DeliveryFailure(record("own, later"), Fault.TRANSIENT, "broker down")])
    world.pass_time(2 * BATCH_INTERVAL)

    assert world.sent[:4] == ["own", "theirs 0", "own, later", "theirs 1"]


@settings(max_examples=settings().max_examples // 2)  # each writes to disk
@given(
    st.lists(st.lists(st.sampled_from([Fault.TRANSIENT, Fault.PERMANENT, Fault.BATCH]), max_size=4), max_size=15),
    st.integers(0, 2),
    st.integers(0, 300),
)
def test_every_message_is_delivered_or_in_the_folder_whatever_fails_and_whenever_it_stops(
    tmp_path_factory: pytest.TempPathFactory, faults: list[list[Fault]], max_retries: int, polls: int
) -> None:
    world = World(tmp_path_factory.mktemp("folder"), max_retries=max_retries)
    names = [str(number) for number in range(len(faults))]
    half = len(names) // 2
    if half:
        leave(world.folder, *names[:half])
    for name, own in zip(names, faults, strict=True):
        world.publisher.failures[name.encode()] = deque((fault, "no") for fault in own)

    if names[half:]:
        world.delivery.send([record(name) for name in names[half:]])
    world.pass_time(polls * POLL_TIMEOUT)
    world.close()

    assert sorted(world.sent + undelivered_keys(world.folder)) == sorted(names)
