"""The member of the group on the embedded broker: real TCP, real groups."""

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError
from msgspec.structs import replace

from local.broker import EmbeddedBroker
from local.raw_producer import RawRecord, produce_raw
from src.model.errors import SourceError
from src.model.position import TopicPartition
from src.model.record import Record
from src.utils.config import ConfigurationError
from tests.fake_kafka import FakeAdmin
from tests.fakes import P0, TOPIC
from tests.group_member_contract import GroupMemberContract, GroupOnServers, Member

OFFSET_COMMIT, CONSUMER_GROUP_HEARTBEAT = 8, 68  # Kafka's numbers of the requests
CLIENT: dict[str, str | int | float | bool] = {"fetch.wait.max.ms": 20}
CLASSIC: dict[str, str | int | float | bool] = {
    "session.timeout.ms": 2_000,  # the embedded broker keeps a joining member waiting for about as long
    "heartbeat.interval.ms": 200,
}
OLD, NEW = "a" * 22, "b" * 22  # ids of topics


class EmbeddedGroup(GroupOnServers):
    def __init__(self, broker: EmbeddedBroker, group_protocol: str = "classic") -> None:
        classic = CLASSIC if group_protocol == "classic" else {}
        super().__init__(broker.address, TOPIC, {**CLIENT, **classic}, group_protocol)
        self.broker = broker


@pytest.fixture
def group() -> Iterator[EmbeddedGroup]:
    with EmbeddedBroker({TOPIC: 2}) as broker:
        group = EmbeddedGroup(broker)
        yield group
        group.leave()


class TestGroupMember(GroupMemberContract):
    """On the embedded broker."""


@pytest.fixture
def new_group() -> Iterator[EmbeddedGroup]:
    """A group of the protocol `consumer`."""
    with EmbeddedBroker({TOPIC: 2}) as broker:
        group = EmbeddedGroup(broker, "consumer")
        yield group
        group.leave()


class TestGroupMemberOfTheNewProtocol(GroupMemberContract):
    @pytest.fixture
    def group(self, new_group: EmbeddedGroup) -> EmbeddedGroup:
        return new_group


def test_a_record_keeps_all_that_kafka_has_of_the_message(group: EmbeddedGroup) -> None:
    headers = [("a", None), ("a", b""), ("a", b"\xff\xfe"), ("", b"x"), ("a", b"2")]
    group.produce([b"v"], partition=1, key=b"k", headers=headers, timestamp=1_700_000_000_123)
    member = group.join()

    group.until(lambda: member.records)

    (record,) = member.records
    assert list(record.headers) == headers
    assert replace(record, headers=()) == Record(TOPIC, 1, 0, b"k", b"v", (), 1_700_000_000_123, 1)


@pytest.mark.parametrize(("magic", "codec"), [(2, 1), (2, 4), (2, 7), (3, 0)])
def test_a_batch_that_the_client_cannot_decode_stops_its_partition_before_it(
    group: EmbeddedGroup, magic: int, codec: int
) -> None:
    group.produce([b"before"])
    produce_raw(group.broker.address, TOPIC, [RawRecord(b"unreadable", magic=magic, codec=codec)])
    group.produce([b"after"])
    group.produce([b"other"], partition=1)
    member = group.join()

    group.until(lambda: member.assignment.gaps and len(member.records) == 2)

    assert member.values == {b"before", b"other"}
    assert member.assignment.gaps[P0].startswith(f"{TOPIC}[0]: offset 1 cannot be read: ")


def test_two_members_share_the_partitions(group: EmbeddedGroup) -> None:
    first = group.join()
    group.until(lambda: len(first.assignment.partitions) == 2)

    second = group.join()
    group.until(lambda: len(first.assignment.partitions) == len(second.assignment.partitions) == 1, seconds=30)
    group.produce([b"a"], partition=0)
    group.produce([b"b"], partition=1)
    group.until(lambda: len(first.records) == len(second.records) == 1)

    assert {first.records[0].value, second.records[0].value} == {b"a", b"b"}


def test_a_rejected_commit_stays_due_and_is_retried(group: EmbeddedGroup) -> None:
    group.produce([b"a"])
    member = group.join()
    group.until(lambda: member.records)
    group.broker.fail_next(OFFSET_COMMIT, KafkaError.ILLEGAL_GENERATION)

    member.settle()
    group.until(lambda: not member.assignment.due())

    assert member.metric("consumer_offset_commits_total", result="failure") == 1


@pytest.mark.parametrize(
    "error", [KafkaError.STALE_MEMBER_EPOCH, KafkaError.FENCED_MEMBER_EPOCH, KafkaError.UNKNOWN_MEMBER_ID]
)
def test_a_commit_rejected_for_its_member_epoch_stays_due_and_is_retried(new_group: EmbeddedGroup, error: int) -> None:
    new_group.produce([b"a"])
    member = new_group.join()
    new_group.until(lambda: member.records)
    new_group.broker.fail_next(OFFSET_COMMIT, error)

    member.settle()
    new_group.until(lambda: not member.assignment.due())

    assert member.metric("consumer_offset_commits_total", result="failure")


def test_a_group_that_is_not_authorized_ends_a_member_of_the_new_protocol(new_group: EmbeddedGroup) -> None:
    new_group.broker.fail_next(CONSUMER_GROUP_HEARTBEAT, KafkaError.GROUP_AUTHORIZATION_FAILED)
    new_group.join()

    with pytest.raises(SourceError, match=r"fatal error of the Kafka client: .*Group authorization failed"):
        new_group.until(lambda: False)


def test_a_rejected_commit_on_revocation_is_counted(group: EmbeddedGroup) -> None:
    group.produce([b"a"])
    member = group.join()
    group.until(lambda: member.records and not member.assignment.due())
    member.settling = True
    group.broker.fail_next(OFFSET_COMMIT, KafkaError.ILLEGAL_GENERATION)

    group.leave()

    assert member.metric("consumer_offset_commits_total", result="failure") == 1


def test_while_paused_the_lag_still_grows(group: EmbeddedGroup) -> None:
    member = group.join()
    group.produce([b"a"])
    group.until(lambda: lag(member) == 1)
    member.member.pause()

    group.produce([b"b", b"c"])

    group.until(lambda: lag(member) == 3)
    group.broker.go_down()
    for _ in range(3):
        member.poll()
    assert lag(member) == 3


def test_the_lag_of_a_partition_that_is_held_still_grows(group: EmbeddedGroup) -> None:
    member = group.join()
    group.produce([b"a"])
    group.until(lambda: lag(member) == 1)
    member.hold(0)

    group.produce([b"b", b"c"])

    group.until(lambda: lag(member) == 3)


def lag(member: Member) -> float | None:
    member.member.update_lag()
    return member.metric("consumer_lag_messages", topic=TOPIC, partition="0")


def responding(topic_id: str) -> Any:
    return lambda _settings: FakeAdmin(topic_id)


def test_a_recreated_topic_is_not_read_from_the_middle(group: EmbeddedGroup) -> None:
    group.produce([b"a", b"b", b"c"])
    group.commit(2, topic_id=OLD)
    member = group.join(admin=responding(NEW))

    group.until(lambda: member.assignment.gaps)

    assert member.assignment.gaps == {
        P0: "data-topic[0]: the topic was deleted and recreated; see consumer.on_offset_gap"
    }
    assert P0 not in member.assignment.due()
    assert member.records == []


def test_the_topic_id_is_committed_with_the_offset_and_recognized(group: EmbeddedGroup) -> None:
    group.produce([b"a", b"b"])
    group.commit(1, topic_id=OLD)
    member = group.join(admin=responding(OLD))
    group.until(lambda: member.offsets == [1])
    member.settle()
    group.until(lambda: not member.assignment.due())
    group.leave()

    member = group.join(admin=responding(NEW))

    group.until(lambda: P0 in member.assignment.gaps)


def test_a_broker_that_is_unavailable_is_a_readiness_failure_until_it_recovers(group: EmbeddedGroup) -> None:
    member = group.join()
    group.until(lambda: member.assignment.partitions and not member.member.readiness_failures())

    group.broker.go_down()
    group.until(lambda: member.member.readiness_failures())

    assert group.broker.address in member.member.readiness_failures()[0]
    group.broker.come_up()
    group.produce([b"a"])
    group.until(lambda: not member.member.readiness_failures() and member.records, seconds=30)


def test_a_client_that_cannot_join_the_group_is_replaced(group: EmbeddedGroup) -> None:
    class NeverJoins(Consumer):
        def subscribe(self, *_args: Any, **_how: Any) -> None:
            """It connects to the broker, and never joins."""

    kinds = iter((NeverJoins, Consumer))
    group.produce([b"a"])
    short = {"max.poll.interval.ms": 1000, "session.timeout.ms": 1000}

    member = group.join(client_settings=short, client=lambda settings: next(kinds)(settings))

    group.until(lambda: member.records)
    assert member.offsets == [0]
    assert not member.member.readiness_failures()


def test_a_member_that_is_not_connected_yet_is_not_ready(group: EmbeddedGroup) -> None:
    member = group.join()

    assert "not connected yet" in member.member.readiness_failures()[0]


def test_a_key_that_the_client_does_not_know_is_a_configuration_error(group: EmbeddedGroup) -> None:
    with pytest.raises(ConfigurationError, match=r"kafka\.client: .*no\.such\.key"):
        group.join(client_settings={"no.such.key": 1})


# -- several topics

OTHER = TopicPartition("other", 0)
QUICK_METADATA = {"topic.metadata.refresh.interval.ms": 100}


def test_two_topics_are_read_and_each_is_committed_as_far_as_it_is_settled(group: EmbeddedGroup) -> None:
    group.broker.create_topic("other", 1)
    group.produce([b"a", b"b"])
    group.produce([b"c"], topic="other")
    member = group.join(topics=[TOPIC, "other"])
    group.until(lambda: len(member.records) == 3)

    member.assignment.settle([record for record in member.records if record.topic == "other"])

    assert {record.topic_partition: record.value for record in member.records if record.offset == 0} == {
        P0: b"a",
        OTHER: b"c",
    }
    assert member.assignment.due()[P0] == 0
    member.member.update_lag()
    assert member.metric("consumer_lag_messages", topic="other", partition="0") == 0
    assert lag(member) == 2
    group.leave()

    member = group.join(topics=[TOPIC, "other"])
    group.until(lambda: len(member.records) == 2)
    assert {record.topic for record in member.records} == {TOPIC}


def test_a_topic_that_begins_to_match_the_pattern_is_read_and_the_dead_letter_topic_never_is(
    group: EmbeddedGroup,
) -> None:
    group.broker.create_topic(f"{TOPIC}.dlq", 1)
    group.produce([b"dead letter"], topic=f"{TOPIC}.dlq")
    group.produce([b"a"])
    member = group.join(topics=["^data-"], client_settings=QUICK_METADATA)
    group.until(lambda: member.records)

    group.broker.create_topic("data-2", 1)
    group.produce([b"b"], topic="data-2")
    group.until(lambda: len(member.records) == 2, seconds=30)

    assert member.values == {b"a", b"b"}
    assert {partition.topic for partition in member.assignment.partitions} == {TOPIC, "data-2"}


def test_that_no_topic_matches_the_pattern_is_a_failure_until_one_does(group: EmbeddedGroup) -> None:
    member = group.join(topics=["^new-"], client_settings=QUICK_METADATA)
    group.until(lambda: any("^new-" in failure for failure in member.member.readiness_failures()))

    group.broker.create_topic("new-1", 1)
    group.produce([b"a"], topic="new-1")

    group.until(lambda: member.records and not member.member.readiness_failures(), seconds=30)


def test_a_topic_that_is_missing_does_not_stop_the_others_and_is_named(group: EmbeddedGroup) -> None:
    group.produce([b"a"])
    member = group.join(topics=[TOPIC, "no-such-topic"], client_settings={"allow.auto.create.topics": False})

    group.until(lambda: member.records and member.member.readiness_failures())

    [failure] = member.member.readiness_failures()
    assert "no-such-topic" in failure
