"""The loop, told as stories: what arrives, what is stored and parked, and what is committed."""

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any
from urllib.error import HTTPError

import pytest
from prometheus_client import CollectorRegistry

from src.consumer import DataConsumer, main
from src.data_processor import DataProcessor
from src.model.errors import SourceError
from src.model.record import Record
from src.pipeline.batch_writer import PROBE_INTERVAL
from src.utils.config import ConfigurationError
from tests.fakes import DEADLINE, TOPIC, FakeDeadLetters, FakeSource, FakeStorage, record

CONFIG: dict[str, Any] = {
    "consumer": {"batch_size": 2, "offset_commit_frequency_ms": 10, "max_retries": 1},
    "metrics": {"port": 0},
}
LARGE_BATCHES = {**CONFIG, "consumer": {"offset_commit_frequency_ms": 10}}


class World:
    """A consumer among fakes. `until` runs its loop in a thread until a condition holds, then asks it to stop."""

    def __init__(
        self, *records: Record, config: dict[str, Any] = CONFIG, probe_interval: float = PROBE_INTERVAL
    ) -> None:
        self.hours_passed = 0
        self.source = FakeSource(records)
        self.source.rebalance("assigned", 0)
        self.storage = FakeStorage()
        self.dead_letters = FakeDeadLetters()
        self.registry = CollectorRegistry()
        self.stop = Event()
        self.error: Exception | None = None
        self.consumer = DataConsumer(
            config,
            source=self.source,
            storage=self.storage,
            dead_letters=self.dead_letters,
            registry=self.registry,
            clock=lambda: time.monotonic() + 3600 * self.hours_passed,
            probe_interval=probe_interval,
            stop=self.stop,
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.stop.set()
            thread.join(DEADLINE)
            assert not thread.is_alive()

    def until(self, condition: Callable[[], object]) -> None:
        with self.running():
            self.wait(condition)

    def wait(self, condition: Callable[[], object]) -> None:
        tick, ticks = Event(), int(DEADLINE / 0.005)
        assert any(condition() or tick.wait(0.005) for _ in range(ticks)), "it did not come to pass"

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def _run(self) -> None:
        try:
            self.consumer.run()
        except SourceError as error:
            self.error = error


def test_what_arrives_is_stored_and_then_committed() -> None:
    world = World(record(0), record(1), record(2))

    world.until(lambda: world.source.committed.get(0) == 3)

    assert list(world.storage.documents) == ["0-0", "0-1", "0-2"]
    assert world.source.closed
    assert world.metric("consumer_messages_total", result="stored") == 3
    assert (world.metric("consumer_offset_commits_total", result="success") or 0) >= 1


def test_a_broken_message_is_parked_and_its_neighbours_are_stored() -> None:
    world = World(record(0), record(1, b"{"), record(2))

    world.until(lambda: world.source.committed.get(0) == 3)

    assert list(world.storage.documents) == ["0-0", "0-2"]
    assert world.dead_letters.offsets == [1]
    assert world.metric("consumer_dead_letters_total", reason="not_json") == 1


def test_nothing_is_committed_before_it_is_stored() -> None:
    world = World(record(0))
    world.storage.gate = Event()

    with world.running():
        world.wait(lambda: world.storage.calls and world.source.polls > 3)
        assert world.source.committed == {}
        world.storage.gate.set()
        world.wait(lambda: world.source.committed == {0: 1})


def test_an_outage_of_the_store_pauses_and_polling_goes_on_until_it_is_over() -> None:
    world = World(*(record(offset) for offset in range(10)))

    with world.running():
        world.wait(lambda: world.storage.indexed)
        world.storage.outages = 10**9
        world.source.feed(*(record(offset) for offset in range(10, 20)))
        world.wait(lambda: len(world.storage.calls) > 5)
        world.hours_passed += 1
        world.wait(lambda: world.source.paused and world.consumer.readiness_failures())
        polls = world.source.polls
        world.wait(lambda: world.source.polls > polls)
        assert world.metric("consumer_paused", reason="storage") == 1
        world.storage.outages = 0
        world.wait(lambda: world.source.committed.get(0) == 20)

    assert world.dead_letters.rejections == []
    assert len(world.storage.documents) == 20
    assert world.metric("consumer_paused", reason="storage") == 0
    assert not world.source.paused


def test_a_dead_letter_topic_that_does_not_answer_is_waited_out_and_nothing_is_committed_past_it() -> None:
    world = World(record(0, b"{"), record(1, b"{"))
    world.dead_letters.outages = 2

    world.until(lambda: world.source.committed.get(0) == 2)

    assert world.dead_letters.offsets == [0, 1]
    assert len(world.storage.documents) == 0


def test_a_dead_letter_storm_pauses_is_not_ready_and_says_why() -> None:
    world = World(*broken(3000), config=LARGE_BATCHES)

    with world.running():
        world.wait(lambda: world.consumer.readiness_failures() and world.source.committed.get(0) == 999)
        world.hours_passed += 1
        world.wait(lambda: world.source.paused)
        polls = world.source.polls
        world.wait(lambda: world.source.polls > polls)

        assert world.consumer.readiness_failures() == [
            "dead_letter_storm: 1,000 of the last 1,000 messages would be dead-lettered, currently mostly for not_json"
            " (80 % is allowed); set consumer.dead_letter_storm_percent to 100 to let them through"
        ]
        assert world.metric("consumer_paused", reason="dead_letter_storm") == 1
        assert world.metric("consumer_paused", reason="dead_letters") == 0
        assert world.metric("consumer_healthy") == 0

    assert world.dead_letters.offsets == list(range(999))
    assert world.source.committed == {0: 999}


def test_what_was_parked_in_a_storm_is_committed_when_the_partition_goes_and_no_more_of_it_is_parked() -> None:
    world = World(*broken(3000), config=LARGE_BATCHES, probe_interval=0.05)

    with world.running():
        world.wait(lambda: len(world.dead_letters.rejections) > 1000)
        world.source.rebalance("revoked", 0)
        world.wait(
            lambda: world.metric("consumer_assigned_partitions") == 0 and not world.consumer.readiness_failures()
        )

    assert world.source.committed == {0: len(world.dead_letters.rejections)}
    assert len(world.dead_letters.rejections) < 2000


def test_with_a_limit_of_100_any_share_is_parked() -> None:
    world = World(*broken(3000), config={**LARGE_BATCHES, "consumer": {"dead_letter_storm_percent": 100}})

    world.until(lambda: len(world.dead_letters.rejections) == 3000)

    assert world.metric("consumer_retries_total", cause="dead_letter_storm") is None


def test_a_refused_commit_is_tried_again() -> None:
    world = World(record(0))
    world.source.refusals = 2

    world.until(lambda: world.source.committed == {0: 1})

    assert world.metric("consumer_offset_commits_total", result="failure") == 2


def test_what_is_settled_is_committed_when_the_partition_goes() -> None:
    slow = {**CONFIG, "consumer": {**CONFIG["consumer"], "offset_commit_frequency_ms": 3_600_000}}
    world = World(record(0), record(1), config=slow)

    with world.running():
        world.wait(lambda: world.metric("consumer_messages_total", result="stored") == 2)
        world.source.rebalance("revoked", 0)
        world.wait(lambda: world.source.committed == {0: 2})

    assert world.metric("consumer_assigned_partitions") == 0
    assert (world.metric("consumer_rebalances_total", event="revoked") or 0) >= 1


def test_a_batch_in_hand_is_settled_and_committed_before_its_partition_goes() -> None:
    world = World(record(0))
    world.storage.gate = Event()

    with world.running():
        world.wait(lambda: world.storage.calls)
        world.source.rebalance("revoked", 0)
        world.storage.gate.set()
        world.wait(lambda: world.source.committed == {0: 1})


def test_nothing_is_committed_for_a_partition_that_was_lost() -> None:
    world = World(record(0))
    world.storage.gate = Event()

    with world.running():
        world.wait(lambda: world.storage.calls)
        world.source.rebalance("lost", 0)
        world.wait(lambda: world.metric("consumer_rebalances_total", event="lost") == 1)
        world.storage.gate.set()
        world.wait(lambda: world.metric("consumer_messages_total", result="stored") == 1)

    assert world.source.committed == {}


def test_records_of_an_assignment_that_is_over_are_neither_stored_nor_committed() -> None:
    world = World(record(0, assignment=7))
    world.source.feed(record(0, assignment=1))

    world.until(lambda: world.source.committed == {0: 1})

    assert world.storage.calls == [["0-0"]]


def test_the_lag_is_shown_while_the_partition_is_ours_and_goes_with_it() -> None:
    world = World(record(0))

    with world.running():
        world.wait(lambda: world.metric("consumer_lag_messages", topic=TOPIC, partition="0") == 99)
        world.source.rebalance("revoked", 0)
        world.wait(lambda: world.metric("consumer_lag_messages", topic=TOPIC, partition="0") is None)


def test_the_end_of_a_transaction_is_committed_and_no_message_before_it_forgotten() -> None:
    world = World(record(0))
    world.storage.gate = Event()

    with world.running():
        world.wait(lambda: world.storage.calls)
        world.source.read = {0: 2}
        world.hours_passed += 1
        assert world.source.committed == {}
        world.storage.gate.set()
        world.wait(lambda: world.metric("consumer_messages_total", result="stored") == 1)
        world.hours_passed += 1
        world.wait(lambda: world.source.committed == {0: 2})


def test_the_end_of_a_transaction_is_committed_at_a_stop_as_well() -> None:
    world = World(record(0))

    with world.running():
        world.wait(lambda: world.source.committed == {0: 1})
        world.source.read = {0: 2}

    assert world.source.committed == {0: 2}


def test_what_comes_while_the_writer_is_full_is_written_in_its_turn() -> None:
    world = World(*(record(offset) for offset in range(4)))
    world.storage.gate = Event()

    with world.running():
        world.wait(lambda: world.storage.calls)
        world.hours_passed += 1
        world.wait(lambda: world.source.paused)
        world.source.paused = False
        world.source.feed(record(4), record(5))
        polls = world.source.polls
        world.wait(lambda: world.source.polls > polls + 2)
        assert world.source.committed == {}
        world.storage.gate.set()
        world.wait(lambda: world.source.committed == {0: 6})

    assert list(world.storage.documents) == [f"0-{offset}" for offset in range(6)]


def test_a_kafka_client_that_can_not_go_on_ends_the_run() -> None:
    world = World()
    world.source.fail(SourceError("fenced"))

    with world.running():
        world.wait(lambda: world.error is not None)

    assert str(world.error) == "fenced"
    assert world.source.closed


def test_a_stop_in_an_outage_leaves_the_batch_to_the_next_consumer() -> None:
    world = World(record(0))
    world.storage.outages = 10**9

    world.until(lambda: world.consumer.readiness_failures())

    assert world.source.committed == {}
    assert world.dead_letters.rejections == []


def test_ready_says_why_not_and_live_stays_while_the_loop_turns(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    world = World()
    world.source.trouble = ["broker nowhere:9092: not connected yet"]

    with world.running():
        world.wait(lambda: "serving metrics and health" in caplog.messages)
        port = next(vars(line)["port"] for line in caplog.records if line.message == "serving metrics and health")

        assert get(port, "/live") == (200, {"ok": True, "reasons": []})
        assert get(port, "/ready") == (503, {"ok": False, "reasons": ["broker nowhere:9092: not connected yet"]})
        world.source.trouble = []
        assert get(port, "/ready") == (200, {"ok": True, "reasons": []})
        assert world.metric("consumer_healthy") == 1


def test_live_fails_when_the_loop_has_not_turned_for_a_while() -> None:
    world = World()

    world.hours_passed += 1

    assert world.consumer.liveness_failures() == ["the main loop has stalled for 3600 s"]


def test_a_partition_whose_offset_is_gone_shows_as_paused() -> None:
    world = World()
    world.source.gaps = ["data-topic[0]: offset 5 is gone"]

    world.until(lambda: world.metric("consumer_paused", reason="offset_gap") == 1)


def test_what_is_skipped_is_counted_and_committed_so_that_it_is_said_once() -> None:
    world = World()

    with world.running():
        world.wait(lambda: world.metric("consumer_assigned_partitions") == 1)
        world.source.rebalance("skipped", 0)
        world.wait(lambda: world.source.committed == {0: 9})

    assert world.metric("consumer_skipped_offsets_total") == 4


def test_process_message_stores_a_valid_message_and_refuses_an_invalid_one() -> None:
    world = World()

    assert world.consumer.process_message({"id": "a", "name": "item_00000001"}) is True
    assert world.consumer.process_message({"name": "no id"}) is False
    assert list(world.storage.documents) == ["a"]


def test_persist_data_says_whether_the_store_has_it() -> None:
    world = World()

    assert world.consumer.persist_data(DataProcessor().check({"id": "a"})) is True


def test_an_idle_store_is_looked_after() -> None:
    world = World()

    with world.running():
        world.wait(lambda: world.storage.indexed)
        world.storage.outages = 1
        world.hours_passed += 1
        world.wait(lambda: world.consumer.readiness_failures() == ["unreachable: nobody answers"])
        world.hours_passed += 1
        world.wait(lambda: not world.consumer.readiness_failures())


def test_the_store_and_the_dead_letters_are_let_go_in_the_end() -> None:
    world = World()

    with world.consumer:
        pass

    assert world.storage.closed
    assert world.dead_letters.closed


def test_a_wrong_configuration_is_an_error_that_names_the_place() -> None:
    with pytest.raises(ConfigurationError, match=r"consumer.batch_size: .* found 0"):
        DataConsumer({"consumer": {"batch_size": 0}})


def test_a_wrong_setting_ends_the_program_with_2_and_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSUMER_BATCH_SIZE", "-1")

    assert main([]) == 2

    assert capsys.readouterr().err == (
        "consumer: environment variable CONSUMER_BATCH_SIZE: Expected `int` >= 1, found '-1'\n"
    )


def broken(count: int) -> list[Record]:
    return [record(offset, b"{") for offset in range(count)]


def get(port: int, path: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=DEADLINE) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)
