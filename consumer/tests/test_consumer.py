"""The loop: which messages are received, stored, dead-lettered and committed."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread
from typing import Any, cast
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import pytest
from confluent_kafka import KafkaError
from prometheus_client import CollectorRegistry

from src.consumer import MAX_BATCH_BYTES, DataConsumer, main
from src.data_processor import DataProcessor
from src.kafka.group_member import GroupMember
from src.model.errors import SourceError
from src.model.position import TopicPartition
from src.pipeline.batch_writer import PROBE_INTERVAL
from src.pipeline.storm_guard import MAX_HELD_BYTES
from src.storage import DataStorage
from src.utils.config import ConfigurationError
from tests.fake_kafka import FakeAdmin, FakeBroker, FakeConsumer
from tests.fake_storage import FakeStore
from tests.fakes import DEADLINE, P0, P1, TOPIC, FakeDeadLetters

CONFIG: dict[str, Any] = {
    "consumer": {"batch_size": 2, "offset_commit_frequency_ms": 10, "max_retries": 1},
    "metrics": {"port": 0},
}
LARGE_BATCHES = {**CONFIG, "consumer": {"offset_commit_frequency_ms": 10, "batch_size": 500}}


class World:
    """A consumer among fakes. `until` runs its loop in a thread until a condition holds, then asks it to stop."""

    def __init__(
        self,
        *values: bytes,
        config: dict[str, Any] = CONFIG,
        store: FakeStore | None = None,
        probe_interval: float = PROBE_INTERVAL,
    ) -> None:
        self.hours_passed = 0
        self.broker = FakeBroker({P0: list(values)}, committed={P0: (0, "")})
        self.store = store or FakeStore()
        self.dead_letters = FakeDeadLetters()
        self.registry = CollectorRegistry()
        self.stop = Event()
        self.error: Exception | None = None
        self.consumer = DataConsumer(
            config,
            group_member=partial(GroupMember, client=self._new_client, admin=cast(Any, lambda _settings: FakeAdmin())),
            storage=DataStorage({}, store=self.store),
            dead_letters=self.dead_letters,
            registry=self.registry,
            clock=lambda: time.monotonic() + 3600 * self.hours_passed,
            probe_interval=probe_interval,
            stop=self.stop,
        )
        self.client.report_statistics()
        self.client.assign(P0)

    @property
    def committed(self) -> int:
        """The group's offset."""
        return self.broker.offsets[P0]

    def produce(self, *values: bytes | None) -> None:
        self.broker.logs[P0] += values

    def add_partition(self, partition: TopicPartition, *values: bytes) -> None:
        self.broker.logs[partition] = list(values)
        self.broker.committed[partition] = (0, "")
        self.client.assign(partition)

    def partition_paused(self, partition: TopicPartition, reason: str) -> float | None:
        topic, number = partition
        return self.metric("consumer_partition_paused", topic=topic, partition=str(number), reason=reason)

    def _new_client(self, settings: dict[str, Any]) -> Any:
        self.client = FakeConsumer(self.broker, settings)
        return self.client

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
        assert any(condition() or tick.wait(0.005) for _ in range(ticks)), "the condition did not come to hold"

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def _run(self) -> None:
        try:
            self.consumer.run()
        except SourceError as error:
            self.error = error


def test_messages_are_stored_and_then_committed() -> None:
    world = World(message(0), message(1), message(2))

    world.until(lambda: world.committed == 3)

    assert list(world.store.documents) == ["0-0", "0-1", "0-2"]
    assert world.client.closed
    assert world.metric("consumer_messages_total", result="stored") == 3
    assert (world.metric("consumer_offset_commits_total", result="success") or 0) >= 1


def test_an_invalid_message_is_dead_lettered_and_its_neighbors_are_stored() -> None:
    world = World(message(0), b"{", message(2))

    world.until(lambda: world.committed == 3)

    assert list(world.store.documents) == ["0-0", "0-2"]
    assert world.dead_letters.offsets == [1]
    assert world.metric("consumer_dead_letters_total", reason="not_json") == 1


def test_nothing_is_committed_before_it_is_stored() -> None:
    world = World(message(0))
    world.store.gate = Event()

    with world.running():
        world.wait(lambda: world.store.inserts and world.client.polls > 3)
        assert world.committed == 0
        world.store.gate.set()
        world.wait(lambda: world.committed == 1)


def test_an_outage_of_the_store_pauses_fetching_and_polling_continues_until_it_recovers() -> None:
    world = World(*messages(10))

    with world.running():
        world.wait(lambda: world.store.has_indexes)
        world.store.outages = 10**9
        world.produce(*messages(20)[10:])
        world.wait(lambda: len(world.store.inserts) > 5)
        world.hours_passed += 1
        world.wait(lambda: world.client.paused and world.consumer.readiness_failures())
        polls = world.client.polls
        world.wait(lambda: world.client.polls > polls)
        assert world.metric("consumer_paused", reason="storage") == 1
        world.store.outages = 0
        world.wait(lambda: world.committed == 20)

    assert world.dead_letters.rejections == []
    assert len(world.store.documents) == 20
    assert world.metric("consumer_paused", reason="storage") == 0
    assert not world.client.paused


def test_an_unavailable_dead_letter_topic_is_retried_and_nothing_is_committed_past_it() -> None:
    world = World(b"{", b"{")
    world.dead_letters.outages = 2

    world.until(lambda: world.committed == 2)

    assert world.dead_letters.offsets == [0, 1]
    assert len(world.store.documents) == 0


def test_in_a_dead_letter_storm_one_partition_is_paused_and_the_service_says_which() -> None:
    world = World(*broken(3000), config=LARGE_BATCHES)
    world.add_partition(P1, *messages(10))

    with world.running():
        world.wait(lambda: world.client.paused == {P0} and world.broker.offsets == {P0: 199, P1: 10})
        world.broker.logs[P1] += messages(20)[10:]
        world.wait(lambda: world.broker.offsets == {P0: 199, P1: 20})

        assert world.consumer.readiness_failures() == [
            "dead_letter_storm: 200 of the last 200 messages of data-topic[0] would be dead-lettered, currently"
            " mostly for not_json (80 % is allowed); set consumer.dead_letter_storm_percent to 100 to let them through"
        ]
        assert world.metric("consumer_paused", reason="dead_letter_storm") == 1
        assert world.metric("consumer_paused", reason="dead_letters") == 0
        assert world.partition_paused(P0, "dead_letter_storm") == 1
        assert world.partition_paused(P1, "dead_letter_storm") is None
        assert world.metric("consumer_healthy") == 0

    assert world.dead_letters.offsets == list(range(199))
    assert world.committed == 199


def test_after_a_dead_letter_storm_the_partition_is_read_on() -> None:
    world = World(*broken(205), *messages(1000)[205:], config=LARGE_BATCHES, probe_interval=0.01)

    with world.running():
        world.wait(lambda: world.committed == 1000)
        world.wait(lambda: not world.client.paused and not world.consumer.readiness_failures())
        world.wait(lambda: world.metric("consumer_paused", reason="dead_letter_storm") == 0)
        assert world.partition_paused(P0, "dead_letter_storm") is None

    assert world.dead_letters.offsets == list(range(205))
    assert world.metric("consumer_messages_total", result="duplicate") == 0


def test_when_too_much_is_held_back_all_partitions_are_paused() -> None:
    world = World(*broken(200), b"{" * MAX_HELD_BYTES, config=LARGE_BATCHES)
    world.add_partition(P1)

    with world.running():
        world.wait(lambda: world.client.paused == {P0, P1})
        assert world.metric("consumer_paused", reason="dead_letter_storm") == 1
        assert world.metric("consumer_paused", reason="backpressure") == 0


def test_what_was_dead_lettered_in_a_storm_is_committed_on_revocation_and_no_more_is_dead_lettered() -> None:
    world = World(*broken(3000), config=LARGE_BATCHES, probe_interval=0.05)

    with world.running():
        world.wait(lambda: len(world.dead_letters.rejections) > 200)
        world.client.revoke(P0)
        world.wait(
            lambda: world.metric("consumer_assigned_partitions") == 0 and not world.consumer.readiness_failures()
        )

    assert world.committed == len(world.dead_letters.rejections)
    assert len(world.dead_letters.rejections) < 2000


def test_batches_of_large_messages_have_fewer_of_them() -> None:
    large = [json.dumps({"id": str(number), "text": "x" * (MAX_BATCH_BYTES // 4)}).encode() for number in range(12)]
    world = World(*large[:6], config=LARGE_BATCHES)

    with world.running():
        world.wait(lambda: world.committed == 6)
        world.produce(*large[6:])
        world.wait(lambda: world.committed == 12)

    assert [len(ids) for ids in world.store.inserts] == [6, 3, 3]


def test_with_a_limit_of_100_any_share_is_dead_lettered() -> None:
    world = World(*broken(3000), config={**LARGE_BATCHES, "consumer": {"dead_letter_storm_percent": 100}})

    world.until(lambda: len(world.dead_letters.rejections) == 3000)

    assert world.metric("consumer_retries_total", cause="dead_letter_storm") is None


def test_dead_letters_are_committed_without_waiting_for_the_interval() -> None:
    rare = {**CONFIG, "consumer": {**CONFIG["consumer"], "offset_commit_frequency_ms": 3_600_000}}
    world = World(message(0), b"{", config=rare)

    with world.running():
        world.wait(lambda: world.committed == 2)


def test_a_rejected_commit_is_retried() -> None:
    world = World(message(0))
    world.client.rejections = 2

    world.until(lambda: world.committed == 1)

    assert world.metric("consumer_offset_commits_total", result="failure") == 2


def test_settled_messages_are_committed_on_revocation() -> None:
    slow = {**CONFIG, "consumer": {**CONFIG["consumer"], "offset_commit_frequency_ms": 3_600_000}}
    world = World(message(0), message(1), config=slow)

    with world.running():
        world.wait(lambda: world.metric("consumer_messages_total", result="stored") == 2)
        world.client.revoke(P0)
        world.wait(lambda: world.committed == 2)

    assert world.metric("consumer_assigned_partitions") == 0
    assert (world.metric("consumer_rebalances_total", event="revoked") or 0) >= 1


def test_a_batch_in_flight_is_settled_and_committed_before_its_partition_is_revoked() -> None:
    world = World(message(0))
    world.store.gate = Event()

    with world.running():
        world.wait(lambda: world.store.inserts)
        world.client.revoke(P0)
        world.store.gate.set()
        world.wait(lambda: world.committed == 1)


def test_nothing_is_committed_for_a_partition_that_was_lost() -> None:
    world = World(message(0))
    world.store.gate = Event()

    with world.running():
        world.wait(lambda: world.store.inserts)
        world.client.lose(P0)
        world.wait(lambda: world.metric("consumer_rebalances_total", event="lost") == 1)
        world.store.gate.set()
        world.wait(lambda: world.metric("consumer_messages_total", result="stored") == 1)

    assert world.committed == 0


def test_the_lag_is_shown_while_the_partition_is_assigned() -> None:
    world = World(*messages(3))
    world.store.gate = Event()

    with world.running():
        world.wait(lambda: world.metric("consumer_lag_messages", topic=TOPIC, partition="0") == 3)
        world.store.gate.set()
        world.client.revoke(P0)
        world.wait(lambda: world.metric("consumer_lag_messages", topic=TOPIC, partition="0") is None)


def test_the_end_of_a_transaction_is_committed_once_the_messages_before_it_are_settled() -> None:
    world = World(message(0))
    world.store.gate = Event()

    with world.running():
        world.wait(lambda: world.store.inserts)
        world.produce(None)
        world.hours_passed += 1
        assert world.committed == 0
        world.store.gate.set()
        world.wait(lambda: world.metric("consumer_messages_total", result="stored") == 1)
        world.hours_passed += 1
        world.wait(lambda: world.committed == 2)


def test_the_end_of_a_transaction_is_committed_on_a_stop() -> None:
    world = World(message(0))

    with world.running():
        world.wait(lambda: world.committed == 1)
        world.produce(None)
        polls = world.client.polls
        world.wait(lambda: world.client.polls > polls + 1)

    assert world.committed == 2


def test_messages_received_while_the_writer_is_full_are_written_in_order() -> None:
    world = World(*messages(4))
    world.store.gate = Event()

    with world.running():
        world.wait(lambda: world.store.inserts)
        world.hours_passed += 1
        world.wait(lambda: world.client.paused)
        world.client.paused.clear()
        world.produce(message(4), message(5))
        polls = world.client.polls
        world.wait(lambda: world.client.polls > polls + 2)
        assert world.committed == 0
        world.store.gate.set()
        world.wait(lambda: world.committed == 6)

    assert list(world.store.documents) == [f"0-{offset}" for offset in range(6)]


def test_a_fatal_error_of_the_kafka_client_ends_the_run() -> None:
    world = World()
    world.client.error = KafkaError(KafkaError._FENCED, "fenced", fatal=True)

    with world.running():
        world.wait(lambda: world.error is not None)

    assert str(world.error) == "fatal error of the Kafka client: fenced"
    assert world.client.closed


def test_a_stop_in_an_outage_leaves_the_batch_to_the_next_consumer() -> None:
    world = World(message(0))
    world.store.outages = 10**9

    world.until(lambda: "unreachable: connection refused" in world.consumer.readiness_failures())

    assert world.committed == 0
    assert world.dead_letters.rejections == []


class Unresponsive(FakeStore):
    """Does not respond before `responds` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.responds = Event()

    def ping(self) -> None:
        assert self.responds.wait(DEADLINE)
        super().ping()


def test_ready_fails_until_kafka_the_store_and_the_dead_letter_topic_have_responded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    store = Unresponsive()
    world = World(store=store)
    world.client.report_statistics(connected=False)
    world.dead_letters.exists = False
    broker, dead_letters = "broker kafka:9092: not connected yet", "dead-letter topic: not checked yet"
    database = "store mongodb://mongodb:27017: not reached yet"

    with world.running():
        world.wait(lambda: "serving metrics and health" in caplog.messages)
        port = next(vars(line)["port"] for line in caplog.records if line.message == "serving metrics and health")

        assert get(port, "/live") == (200, {"ok": True, "reasons": []})
        assert get(port, "/ready") == (503, {"ok": False, "reasons": [broker, database, dead_letters]})
        assert world.metric("consumer_healthy") == 0
        world.client.report_statistics()
        assert get(port, "/ready") == (503, {"ok": False, "reasons": [database, dead_letters]})
        store.responds.set()
        world.wait(lambda: world.store.has_indexes)
        assert get(port, "/ready") == (503, {"ok": False, "reasons": [dead_letters]})
        world.dead_letters.exists = True
        world.wait(lambda: get(port, "/ready") == (200, {"ok": True, "reasons": []}))
        assert world.metric("consumer_healthy") == 1


def test_messages_are_stored_while_the_dead_letter_topic_has_not_been_found() -> None:
    world = World(message(0))
    world.dead_letters.exists = False

    world.until(lambda: world.committed == 1)

    assert world.consumer.readiness_failures() == ["dead-letter topic: not checked yet"]


def test_live_fails_when_the_loop_has_stalled() -> None:
    world = World()

    world.hours_passed += 1

    assert world.consumer.liveness_failures() == ["the main loop has stalled for 3600 s"]


def test_a_partition_whose_offset_no_longer_exists_is_shown_as_paused() -> None:
    world = World()
    world.broker.committed[P0] = (5, "")

    world.until(lambda: world.metric("consumer_paused", reason="offset_gap") == 1)


def test_skipped_offsets_are_counted_and_the_position_behind_them_is_committed() -> None:
    world = World(*messages(9), config={**CONFIG, "consumer": {**CONFIG["consumer"], "on_offset_gap": "earliest"}})
    world.broker.committed[P0] = (5, "")
    world.broker.earliest[P0] = 9

    world.until(lambda: world.committed == 9)

    assert world.metric("consumer_skipped_offsets_total") == 4
    assert world.store.inserts == []


def test_process_message_stores_a_valid_message_and_rejects_an_invalid_one() -> None:
    world = World()

    assert world.consumer.process_message({"id": "a", "name": "item_00000001"}) is True
    assert world.consumer.process_message({"name": "no id"}) is False
    assert list(world.store.documents) == ["a"]


def test_persist_data_says_whether_the_store_has_it() -> None:
    world = World()

    assert world.consumer.persist_data(DataProcessor().check({"id": "a"}) or {}) is True


def test_an_idle_store_is_pinged() -> None:
    world = World()

    with world.running():
        world.wait(lambda: world.store.has_indexes)
        world.store.outages = 1
        world.hours_passed += 1
        world.wait(lambda: world.consumer.readiness_failures() == ["unreachable: connection refused"])
        world.hours_passed += 1
        world.wait(lambda: not world.consumer.readiness_failures())


def test_the_store_and_the_dead_letter_producer_are_closed() -> None:
    world = World()

    with world.consumer:
        pass

    assert world.store.closed
    assert world.dead_letters.closed


def test_a_configuration_error_names_the_setting() -> None:
    with pytest.raises(ConfigurationError, match=r"consumer.batch_size: .* found 0"):
        DataConsumer({"consumer": {"batch_size": 0}})


def test_a_wrong_setting_exits_with_2_and_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSUMER_BATCH_SIZE", "-1")

    assert main([]) == 2

    assert capsys.readouterr().err == (
        "consumer: environment variable CONSUMER_BATCH_SIZE: Expected `int` >= 1, found '-1'\n"
    )


def message(number: int) -> bytes:
    return json.dumps({"id": f"0-{number}"}).encode()


def messages(count: int) -> list[bytes]:
    return [message(number) for number in range(count)]


def broken(count: int) -> list[bytes]:
    return [b"{"] * count


def get(port: int, path: str) -> tuple[int, Any]:
    try:
        with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}{path}", timeout=DEADLINE) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)
