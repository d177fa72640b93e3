"""Offsets that no longer exist: what came before a gap is settled, the gap is reported, nothing is skipped silently."""

import json
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, KafkaError
from prometheus_client import CollectorRegistry

from src.kafka.group_member import LAG_INTERVAL, GroupMember
from src.kafka.topic_monitor import NO_ID, REQUEST_INTERVAL, UNKNOWN_ID
from src.model.position import TopicPartition
from src.model.record import Record
from src.settings import ConsumerSettings, KafkaSettings
from src.utils.metrics import ConsumerMetrics
from tests.fake_kafka import FakeAdmin, FakeMessage
from tests.fakes import P0, P1, TOPIC
from tests.scripted_client import ScriptedClient

COMMIT_INTERVAL = 1.0
OLD, NEW = "a" * 22, "b" * 22  # ids of topics
GONE = KafkaError(KafkaError._AUTO_OFFSET_RESET, "no such offset")
GAP = "data-topic[0]: offset 5500 no longer exists; see consumer.on_offset_gap"
RECREATED = "data-topic[0]: the topic was deleted and recreated; see consumer.on_offset_gap"


class World:
    """A member of a group that has committed `committed`, on a scripted client; the test is its loop and writer."""

    def __init__(
        self,
        on_offset_gap: str,
        committed: dict[TopicPartition, tuple[int, str]],
        commit_interval: float = COMMIT_INTERVAL,
    ) -> None:
        self.now = 0.0
        self.admin = FakeAdmin(OLD)
        self.registry = CollectorRegistry()
        self.in_flight: list[Sequence[Record]] = []
        self.member = GroupMember(
            KafkaSettings(),
            ConsumerSettings(
                on_offset_gap=cast(Any, on_offset_gap), offset_commit_frequency_ms=round(commit_interval * 1000)
            ),
            ConsumerMetrics(self.registry, version="1", dead_letter_reasons=()),
            clock=lambda: self.now,
            client=self._new_client,
            admin=cast(Any, lambda _settings: self.admin),
        )
        self.assignment = self.member.assignment
        self.client.group = dict(committed)
        self.member.subscribe(before_revoke=lambda: None)

    def _new_client(self, settings: dict[str, Any]) -> Any:
        self.client = ScriptedClient(settings)
        return self.client

    def arrive(self, *steps: FakeMessage | Callable[[], None]) -> None:
        self.client.script.extend(steps)

    def poll(self) -> list[int]:
        """One poll of the loop; the offsets that are in flight from now on."""
        records = self.member.poll(1000, 0.0)
        if records:
            self.in_flight.append(records)
        return [record.offset for record in records]

    def settle(self) -> None:
        """All that is in flight is stored."""
        for records in self.in_flight:
            self.assignment.settle(records)
        self.in_flight.clear()

    def commit(self) -> dict[TopicPartition, tuple[int, str]]:
        """The group's committed offsets after everything due is committed."""
        self.now += LAG_INTERVAL
        self.member.update_lag_if_due()
        self.member.commit_if_due()
        self.poll()
        return self.client.group

    def recreate_topic(self, topic_id: str) -> None:
        """The topic is deleted and recreated, so the broker responds with a new id."""
        self.admin.topic_id = topic_id
        self.now += REQUEST_INTERVAL
        self.poll()
        self.poll()

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


def reading(on_offset_gap: str = "stop", *, topic_id: str = "", commit_interval: float = COMMIT_INTERVAL) -> World:
    """A world in the middle of partition 0."""
    world = World(on_offset_gap, {P0: (5000, topic_id)}, commit_interval)
    world.client.earliest[P0] = 0
    world.client.assign(P0)
    return world


def at_a_gap(on_offset_gap: str, *, earliest: int) -> World:
    """A world with 5000 to 5499 in flight that finds no message behind them; the earliest is at `earliest`."""
    world = reading(on_offset_gap)
    world.client.earliest[P0] = earliest
    world.arrive(*messages(5000, 5500), FakeMessage(5500, error=GONE))
    world.poll()
    world.poll()
    return world


def messages(first: int, end: int, partition: TopicPartition = P0) -> list[FakeMessage]:
    return [FakeMessage(offset, partition) for offset in range(first, end)]


# -- a position no longer exists


def test_records_before_a_gap_are_settled_and_the_gap_is_counted() -> None:
    world = reading("earliest")
    world.client.earliest[P0] = 9000
    world.arrive(*messages(5000, 5500), FakeMessage(5500, error=GONE))

    before = world.poll()
    world.poll()

    assert before == list(range(5000, 5500))
    assert world.client.starts == [5000, 9000]
    assert world.metric("consumer_skipped_offsets_total") == 3500
    assert world.assignment.due() == {P0: 5000}
    world.settle()
    assert world.commit() == {P0: (9000, OLD)}


def test_records_behind_a_gap_are_not_committed_before_those_in_front_of_it() -> None:
    world = at_a_gap("earliest", earliest=9000)
    world.arrive(*messages(9000, 9010))
    world.poll()

    before, behind = world.in_flight
    world.assignment.settle(behind)

    assert world.assignment.due() == {P0: 5000}
    assert all(world.assignment.owns(record) for record in before)


def test_records_before_the_gap_of_a_stopped_partition_are_settled_and_committed() -> None:
    world = at_a_gap("stop", earliest=9000)

    world.settle()

    assert world.assignment.gaps == {P0: GAP}
    assert world.client.paused == {P0}
    assert world.commit() == {P0: (5500, OLD)}


def test_a_gap_is_handled_only_after_the_records_fetched_with_it_are_in_flight() -> None:
    world = reading("earliest")
    world.client.earliest[P0] = 9000
    world.arrive(*messages(5000, 5500), FakeMessage(5500, error=GONE), lambda: world.client.revoke(P0))

    world.poll()
    world.poll()

    assert world.client.group == {P0: (5000, "")}


def test_a_topic_shorter_than_the_committed_offset_is_read_again_under_a_new_number() -> None:
    world = at_a_gap("earliest", earliest=0)
    world.arrive(*messages(0, 100))

    world.poll()
    before, _ = world.in_flight
    world.assignment.settle(before)

    assert world.client.starts == [5000, 0]
    assert world.assignment.due() == {P0: 0}


def test_a_gap_of_a_revoked_partition_is_ignored() -> None:
    world = reading("stop")
    world.client.revoke(P0)
    world.arrive(FakeMessage(5500, error=GONE))

    world.poll()
    world.poll()

    assert world.assignment.gaps == {}
    assert world.client.starts == [5000]


def test_a_gap_is_forgotten_with_its_partition() -> None:
    world = reading("stop")
    world.arrive(FakeMessage(5500, error=GONE), lambda: world.client.revoke(P0))

    world.poll()
    world.poll()

    assert world.assignment.gaps == {}


def test_a_gap_is_reported_though_the_watermarks_are_unknown() -> None:
    world = reading("stop")
    world.client.earliest.clear()
    world.arrive(FakeMessage(5500, error=GONE))

    world.poll()
    world.poll()

    assert world.assignment.gaps == {P0: GAP}


def test_the_policy_earliest_works_though_the_watermarks_are_unknown() -> None:
    world = reading("earliest")
    world.client.earliest.clear()
    world.arrive(FakeMessage(5500, error=GONE))

    world.poll()
    world.poll()

    assert world.client.starts == [5000, OFFSET_BEGINNING]
    assert world.assignment.gaps == {}


def test_the_lag_of_a_stopped_partition_is_not_shown() -> None:
    world = reading("stop")
    world.client.settings["stats_cb"](statistics(high=5600))
    world.commit()
    before = world.metric("consumer_lag_messages", topic=TOPIC, partition="0")
    world.arrive(FakeMessage(5500, error=GONE))
    world.poll()
    world.poll()

    world.commit()

    assert before == 600
    assert world.metric("consumer_lag_messages", topic=TOPIC, partition="0") is None


def statistics(high: int) -> str:
    ends = {"lo_offset": 0, "ls_offset": high}
    return json.dumps({"brokers": {}, "topics": {TOPIC: {"partitions": {"0": ends}}}})


# -- the topic was recreated


def test_records_fetched_before_the_topic_was_recreated_are_not_committed_for_the_new_one() -> None:
    world = reading("earliest", topic_id=OLD)
    world.admin.topic_id = NEW
    world.now += REQUEST_INTERVAL
    world.arrive(FakeMessage(5000))
    world.poll()
    world.arrive(FakeMessage(5001))

    world.poll()
    world.settle()
    world.arrive(*messages(0, 100))
    read = world.poll()

    assert read == list(range(100))
    assert world.assignment.due() == {P0: 0}
    assert world.commit() == {P0: (0, NEW)}
    world.settle()
    assert world.commit() == {P0: (100, NEW)}


def test_a_recreated_topic_is_stopped_and_records_of_the_old_one_no_longer_count() -> None:
    world = reading("stop", topic_id=OLD)
    world.arrive(*messages(5000, 5010))
    world.poll()

    world.recreate_topic(NEW)
    world.settle()

    assert world.assignment.gaps == {P0: RECREATED}
    assert world.commit() == {P0: (5000, OLD)}


def test_an_offset_that_was_deleted_with_its_topic_is_not_a_gap_in_the_new_one() -> None:
    world = reading("earliest", topic_id=OLD)
    world.admin.topic_id = NEW
    world.arrive(FakeMessage(5000, error=GONE))
    world.poll()

    world.poll()
    world.arrive(*messages(0, 10))
    world.poll()
    world.settle()

    assert world.client.starts == [5000, 0]
    assert world.commit() == {P0: (10, NEW)}
    world.recreate_topic(NEW)
    assert world.client.starts == [5000, 0]


def test_hundreds_of_partitions_of_a_recreated_topic_restart_at_the_earliest() -> None:
    partitions = [TopicPartition(TOPIC, number) for number in range(1200)]
    world = World("earliest", dict.fromkeys(partitions, (5000, OLD)))
    world.client.earliest = dict.fromkeys(partitions, 0)
    world.admin.topic_id = NEW

    world.client.assign(*partitions)
    world.poll()

    assert world.commit() == dict.fromkeys(partitions, (0, NEW))


def test_a_topic_recreated_while_unassigned_is_a_gap_though_its_committed_offsets_were_deleted() -> None:
    world = reassigned_after_recreation("stop")

    assert world.assignment.gaps == {P1: RECREATED.replace(str(P0), str(P1))}
    assert world.assignment.due() == {}


def test_with_the_policy_earliest_such_a_topic_is_read_and_its_id_is_committed() -> None:
    world = reassigned_after_recreation("earliest")
    world.arrive(*messages(0, 10, partition=P1))
    world.poll()
    world.settle()

    assert world.assignment.gaps == {}
    assert world.commit()[P1] == (10, NEW)


def reassigned_after_recreation(on_offset_gap: str) -> World:
    world = World(on_offset_gap, {})
    world.client.earliest = {P0: 0, P1: 0}
    world.admin.topic_id = OLD
    world.client.assign(P0)
    world.poll()
    world.client.revoke(P0)
    world.admin.topic_id = NEW
    world.client.assign(P1)
    world.poll()
    return world


def test_commit_metadata_of_another_program_is_not_a_topic_id() -> None:
    world = reading("stop", topic_id="metadata of another program")

    world.poll()

    assert world.assignment.gaps == {}
    world.arrive(FakeMessage(5000))
    world.poll()
    world.settle()
    assert world.commit() == {P0: (5001, OLD)}


# -- no committed offset


def test_the_start_of_a_new_partition_is_committed() -> None:
    world = World("stop", {})
    world.client.earliest[P0] = 700

    world.client.assign(P0)

    assert world.client.starts == [700]
    assert world.commit() == {P0: (700, OLD)}


def test_a_start_behind_deleted_messages_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    world = World("stop", {})
    world.client.earliest = {P0: 700, P1: 0}

    world.client.assign(P0, P1)

    line = next(line for line in caplog.records if line.message == "no committed offset, reading from the earliest")
    assert vars(line)["earliest"] == {"data-topic[0]": 700}


def test_a_partition_without_a_committed_offset_starts_at_the_earliest_though_that_is_unknown() -> None:
    world = World("stop", {})
    world.client.assign(P0)
    world.arrive(FakeMessage(None, error=GONE))

    world.poll()
    world.poll()

    assert world.client.starts == [OFFSET_BEGINNING, OFFSET_BEGINNING]
    assert world.assignment.gaps == {}


def test_without_a_response_the_client_fetches_the_committed_offsets_itself() -> None:
    world = World("stop", {P0: (5000, OLD)})
    world.client.failing = True

    world.client.assign(P0)
    world.arrive(FakeMessage(5000))

    assert world.client.starts == [OFFSET_INVALID]
    assert world.poll() == [5000]
    world.settle()
    assert world.assignment.due() == {P0: 5001}


# -- offsets without a message


def end_at(offset: int) -> FakeMessage:
    return FakeMessage(offset, error=KafkaError(KafkaError._PARTITION_EOF))


def test_offsets_without_messages_are_committed_once_nothing_is_in_flight() -> None:
    world = reading()
    world.arrive(*messages(5000, 5010), end_at(5011))
    world.poll()

    assert world.commit() == {P0: (5000, "")}
    world.settle()
    assert world.commit() == {P0: (5011, OLD)}


def test_an_end_of_partition_from_before_a_revocation_no_longer_counts() -> None:
    world = reading()
    world.arrive(*messages(5000, 5010), end_at(5011))
    world.poll()
    world.arrive(lambda: world.client.revoke(P0), lambda: world.client.assign(P0))
    world.poll()

    assert world.commit() == {P0: (5000, "")}


def test_fetched_messages_that_were_not_returned_are_not_committed_on_revocation() -> None:
    world = reading()
    world.arrive(FakeMessage(5000))
    world.poll()
    world.settle()

    world.arrive(*messages(5001, 5010), lambda: world.client.revoke(P0))
    world.poll()

    assert world.client.group == {P0: (5001, OLD)}


def test_the_lag_is_updated_though_commits_are_rare() -> None:
    world = reading(commit_interval=3600.0)
    world.client.settings["stats_cb"](statistics(high=5010))
    world.arrive(*messages(5000, 5010))
    world.poll()
    world.settle()

    world.commit()

    assert world.metric("consumer_lag_messages", topic=TOPIC, partition="0") == 0
    assert world.client.group == {P0: (5000, "")}


# -- unreadable messages


def test_an_unreadable_message_stops_its_partition_before_it() -> None:
    world = reading("earliest")
    corrupt = KafkaError(KafkaError._BAD_MSG, "MessageSet at offset 5005 failed CRC32C check")
    world.arrive(*messages(5000, 5005), FakeMessage(5005, error=corrupt), *messages(5010, 5020))

    read = world.poll()
    world.settle()

    assert read == list(range(5000, 5005))
    assert world.assignment.gaps == {
        P0: "data-topic[0]: offset 5005 cannot be read: MessageSet at offset 5005 failed CRC32C check"
    }
    assert world.commit() == {P0: (5005, OLD)}


# -- errors from Kafka


def test_the_error_of_a_partition_lasts_until_a_record_of_it_arrives() -> None:
    world = World("stop", {P0: (0, ""), P1: (0, "")})
    world.client.assign(P0, P1)
    world.client.settings["stats_cb"](json.dumps({"brokers": {"b/1": {"state": "UP", "nodeid": 1}}, "topics": {}}))
    error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "not authorized")
    world.arrive(FakeMessage(0, error=error), FakeMessage(0, partition=P1))
    world.poll()

    still = world.member.readiness_failures()
    world.arrive(FakeMessage(0))
    world.poll()

    assert still == ["topic data-topic: not authorized"]
    assert world.member.readiness_failures() == []


@pytest.mark.parametrize(
    ("metadata", "topic_id", "warned"),
    [("", OLD, True), ("console", OLD, True), (OLD, OLD, False), (UNKNOWN_ID, OLD, False), ("", NO_ID, False)],
)
def test_an_offset_that_another_program_committed_is_logged_and_counted(
    metadata: str, topic_id: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    world = World("stop", {P0: (203, metadata)})
    world.admin.topic_id = topic_id

    world.client.assign(P0)

    assert ("offset committed by another program" in caplog.messages) is warned
    assert world.metric("consumer_foreign_offset_commits_total") == warned


def test_a_partition_without_a_commit_is_not_one_of_another_program(caplog: pytest.LogCaptureFixture) -> None:
    world = World("stop", {})
    world.client.earliest[P0] = 0

    world.client.assign(P0)

    assert "offset committed by another program" not in caplog.messages
