"""The member of the group, on the embedded broker: real TCP, real groups."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from threading import Event
from time import monotonic
from typing import Any, cast
from weakref import ReferenceType, ref

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from local.broker import EmbeddedBroker
from local.raw_producer import RawRecord, produce_raw
from src.kafka.group_member import GroupMember
from src.kafka.topic_identity import NO_ID
from src.model.errors import SourceError
from src.model.record import Record
from src.settings import KafkaSettings
from src.utils.config import ConfigurationError
from src.utils.secret import ClientSettings
from tests.fakes import DEADLINE, TOPIC
from tests.scripted_client import Arrival, ScriptedClient, Telling

OFFSET_COMMIT = 8  # Kafka's number of the request
CLIENT: dict[str, str | int | float | bool] = {
    "session.timeout.ms": 2_000,  # the embedded broker keeps a joining member waiting for about as long
    "heartbeat.interval.ms": 200,
    "fetch.wait.max.ms": 20,
}


class Diary:
    """A listener that writes down what it is told, and commits on revoke what it was given to commit."""

    def __init__(self) -> None:
        self.source: GroupMember | None = None
        self.owned: dict[int, int | None] = {}
        self.numbers: list[int] = []
        self.due: dict[int, int] = {}
        self.confirmed: dict[int, int] = {}
        self.refusals: list[Mapping[int, int]] = []
        self.begins: dict[int, int] = {}
        self.replacements: list[int] = []
        self.skips: list[tuple[int, int, int]] = []
        self.losses: list[Collection[int]] = []

    def assigned(self, committed: Mapping[int, int | None], assignment: int) -> None:
        self.owned.update(committed)
        self.numbers.append(assignment)

    def revoking(self, partitions: Collection[int]) -> None:
        due = {partition: self.due[partition] for partition in partitions if partition in self.due}
        if self.source is not None and due:
            self.source.commit_now(due)
        self._forget(partitions)

    def lost(self, partitions: Collection[int]) -> None:
        self.losses.append(partitions)
        self._forget(partitions)

    def begun(self, positions: Mapping[int, int]) -> None:
        self.begins.update(positions)

    def replaced(self, partitions: Collection[int]) -> None:
        self.replacements += partitions
        self._forget(partitions)

    def skipped(self, partition: int, offsets: int, position: int) -> None:
        self.skips.append((partition, offsets, position))

    def committed(self, offsets: Mapping[int, int]) -> None:
        self.confirmed.update(offsets)

    def refused(self, offsets: Mapping[int, int]) -> None:
        self.refusals.append(offsets)

    def _forget(self, partitions: Collection[int]) -> None:
        for partition in partitions:
            self.owned.pop(partition, None)


class Member:
    """A source in a group, and what it has been given so far."""

    def __init__(self, source: GroupMember) -> None:
        self.diary = Diary()
        self.diary.source = source
        self.source = source.subscribe(self.diary)
        self.records: list[Record] = []

    def poll(self) -> None:
        self.records += self.source.poll(500, 0.05)

    @property
    def offsets(self) -> list[int]:
        return [record.offset for record in self.records]


class World:
    def __init__(self, broker: EmbeddedBroker) -> None:
        self.broker = broker
        self.members: list[Member] = []

    def produce(self, values: Sequence[bytes], partition: int = 0, **more: Any) -> None:
        producer = Producer({"bootstrap.servers": self.broker.address})
        for value in values:
            producer.produce(TOPIC, value, partition=partition, **more)
        assert producer.flush(DEADLINE) == 0

    def commit(self, offset: int, partition: int = 0, topic_id: str = "") -> None:
        """As somebody else would: an administrator, or a consumer of long ago."""
        consumer = Consumer({"bootstrap.servers": self.broker.address, "group.id": "group"})
        consumer.commit(offsets=[TopicPartition(TOPIC, partition, offset, topic_id)], asynchronous=False)
        consumer.close()

    def join(self, client: Mapping[str, Any] | None = None, **policy: Any) -> Member:
        settings = KafkaSettings(
            bootstrap_servers=self.broker.address,
            topic=TOPIC,
            group_id="group",
            client=ClientSettings({**CLIENT, **(client or {})}),
        )
        member = Member(GroupMember(settings, statistics_every=0.1, **policy))
        self.members.append(member)
        return member

    def until(self, condition: Callable[[], object], seconds: float = DEADLINE) -> None:
        """Let every member poll until the condition holds."""
        deadline = monotonic() + seconds
        while not condition():
            assert monotonic() < deadline, "it did not come to pass"
            for member in self.members:
                member.poll()

    def leave(self) -> None:
        while self.members:
            self.members.pop().source.close()


@pytest.fixture
def world() -> Iterator[World]:
    with EmbeddedBroker({TOPIC: 2}) as broker:
        world = World(broker)
        yield world
        world.leave()


def test_a_new_group_reads_from_the_beginning(world: World) -> None:
    world.produce([b"a", b"b"])
    member = world.join()

    world.until(lambda: len(member.records) == 2)

    assert [record.value for record in member.records] == [b"a", b"b"]
    assert member.diary.owned == {0: None, 1: None}
    assert member.diary.begins == {0: 0, 1: 0}
    assert {record.assignment for record in member.records} == set(member.diary.numbers)


def test_a_record_keeps_all_that_kafka_has_of_the_message(world: World) -> None:
    headers = [("a", None), ("a", b""), ("a", b"\xff\xfe"), ("", b"x"), ("a", b"2")]
    world.produce([b"v"], partition=1, key=b"k", headers=headers, timestamp=1_700_000_000_123)
    member = world.join()

    world.until(lambda: member.records)

    (record,) = member.records
    assert list(record.headers) == headers
    assert record._replace(headers=()) == Record(TOPIC, 1, 0, b"k", b"v", (), 1_700_000_000_123, 1)


@pytest.mark.parametrize(("magic", "codec"), [(2, 1), (2, 4), (2, 7), (3, 0)])
def test_a_batch_that_the_client_cannot_decode_stops_its_partition_before_it(
    world: World, magic: int, codec: int
) -> None:
    world.produce([b"before"])
    produce_raw(world.broker.address, TOPIC, [RawRecord(b"unreadable", magic=magic, codec=codec)])
    world.produce([b"after"])
    world.produce([b"other"], partition=1)
    member = world.join()

    world.until(lambda: member.source.gaps and len(member.records) == 2)

    assert {record.value for record in member.records} == {b"before", b"other"}
    (gap,) = member.source.gaps
    assert gap.startswith(f"{TOPIC}[0]: offset 1 can't be read: ")


def test_a_group_goes_on_where_it_committed(world: World) -> None:
    world.produce([b"a", b"b", b"c"])
    member = world.join()
    world.until(lambda: len(member.records) == 3)

    member.source.commit({0: 2})
    world.until(lambda: member.diary.confirmed == {0: 2})
    world.leave()
    member = world.join()
    world.until(lambda: member.records)

    assert member.offsets == [2]
    assert member.diary.owned[0] == 2


def test_what_is_due_is_committed_on_leaving(world: World) -> None:
    world.produce([b"a", b"b"])
    member = world.join()
    world.until(lambda: len(member.records) == 2)

    member.diary.due = {0: 1}
    world.leave()

    assert member.diary.confirmed == {0: 1}
    assert member.diary.owned == {}


def test_two_members_share_the_partitions(world: World) -> None:
    first = world.join()
    world.until(lambda: len(first.diary.owned) == 2)

    second = world.join()
    world.until(lambda: len(first.diary.owned) == len(second.diary.owned) == 1, seconds=30)
    world.produce([b"a"], partition=0)
    world.produce([b"b"], partition=1)
    world.until(lambda: len(first.records) == len(second.records) == 1)

    assert {first.records[0].value, second.records[0].value} == {b"a", b"b"}


def test_a_refused_commit_is_told(world: World) -> None:
    member = world.join()
    world.until(lambda: member.diary.owned)
    world.broker.fail_next(OFFSET_COMMIT, KafkaError.ILLEGAL_GENERATION)

    member.source.commit({0: 0})
    world.until(lambda: member.diary.refusals)

    assert member.diary.refusals == [{0: 0}]
    assert not member.source.committing


def test_a_commit_that_is_waited_for_and_refused_is_told(world: World) -> None:
    member = world.join()
    world.until(lambda: member.diary.owned)
    world.broker.fail_next(OFFSET_COMMIT, KafkaError.ILLEGAL_GENERATION)

    member.source.commit_now({0: 0})

    assert member.diary.refusals == [{0: 0}]


def test_while_paused_nothing_is_read_and_nothing_is_lost(world: World) -> None:
    member = world.join()
    world.until(lambda: member.diary.owned)
    member.source.pause()
    world.produce([b"a", b"b"])
    for _ in range(10):
        member.poll()

    assert member.records == []

    member.source.resume()
    world.until(lambda: len(member.records) == 2)


def test_while_paused_the_ends_of_the_partitions_still_move(world: World) -> None:
    member = world.join(ends_every=0.1)
    world.produce([b"a"])
    world.until(lambda: member.source.ends(0) == (0, 1))
    member.source.pause()

    world.produce([b"b", b"c"])

    world.until(lambda: member.source.ends(0) == (0, 3))
    world.broker.go_down()
    for _ in range(3):
        member.poll()
    assert member.source.ends(0) == (0, 3)


def test_partitions_that_come_during_a_pause_are_paused_as_well(world: World) -> None:
    world.produce([b"a"])
    member = world.join()
    member.source.pause()
    world.until(lambda: member.diary.owned)
    for _ in range(10):
        member.poll()

    assert member.records == []

    member.source.resume()
    world.until(lambda: member.offsets == [0])


def test_a_committed_offset_that_is_gone_stops_its_partition_alone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.produce([b"a"])
    world.produce([b"b"], partition=1)
    world.commit(1000)
    member = world.join()

    world.until(lambda: member.source.gaps and member.records)

    assert [record.value for record in member.records] == [b"b"]
    assert member.source.gaps == ("data-topic[0]: offset 1000 is gone; see consumer.on_offset_gap",)
    assert member.source.gaps[0] in member.source.readiness_failures()
    line = next(line for line in caplog.records if line.message == "committed offset gone")
    assert vars(line)["missing_offset"] == 1000


def test_with_the_policy_earliest_a_partition_goes_on_at_its_oldest_message(world: World) -> None:
    world.produce([b"a"])
    world.commit(1000)
    member = world.join(on_offset_gap="earliest")

    world.until(lambda: member.records)

    assert member.offsets == [0]
    assert member.diary.begins == {0: 0, 1: 0}
    assert member.source.gaps == ()
    assert member.records[0].assignment == member.diary.numbers[-1]


OLD, NEW = "a" * 22, "b" * 22  # ids of topics


def telling(topic_id: str) -> Any:
    return lambda _settings: Telling(topic_id)


def test_a_topic_that_was_deleted_and_made_again_is_not_read_from_the_middle(world: World) -> None:
    world.produce([b"a", b"b", b"c"])
    world.commit(2, topic_id=OLD)
    member = world.join(admin=telling(NEW))

    world.until(lambda: member.diary.replacements)

    assert member.source.gaps == ("data-topic[0]: the topic was deleted and made again; see consumer.on_offset_gap",)
    assert member.diary.owned == {1: None}
    assert member.records == []


def test_the_topic_that_is_still_the_same_is_read_on_and_its_id_goes_into_the_commits(world: World) -> None:
    world.produce([b"a", b"b"])
    world.commit(1, topic_id=OLD)
    member = world.join(admin=telling(OLD))

    world.until(lambda: member.offsets == [1])
    member.source.commit({0: 2})
    world.until(lambda: member.diary.confirmed == {0: 2})
    world.leave()
    member = world.join(admin=telling(NEW))

    world.until(lambda: member.diary.replacements == [0])


def test_the_ends_of_the_partitions_are_known_without_asking(world: World) -> None:
    world.produce([b"a", b"b"])
    member = world.join()

    world.until(lambda: member.source.ends(0) == (0, 2))

    assert member.source.ends(17) == (None, None)


def test_the_end_of_a_partition_is_no_error(world: World) -> None:
    world.produce([b"a"])
    member = world.join()

    world.until(lambda: member.source.ends_met.get(0) == 1)

    assert member.offsets == [0]
    assert member.source.readiness_failures() == []


def test_a_broker_that_is_unavailable_is_a_readiness_failure_until_it_recovers(world: World) -> None:
    member = world.join()
    world.until(lambda: member.diary.owned and not member.source.readiness_failures())

    world.broker.go_down()
    world.until(lambda: member.source.readiness_failures())

    assert world.broker.address in member.source.readiness_failures()[0]
    world.broker.come_up()
    world.produce([b"a"])
    world.until(lambda: not member.source.readiness_failures() and member.records, seconds=30)


def test_a_client_that_finds_no_group_is_let_go_and_another_reads_on(world: World) -> None:
    class Astray(Consumer):
        def subscribe(self, *_args: Any, **_how: Any) -> None:
            """A broker answers it, and it never joins."""

    kinds = iter((Astray, Consumer))
    world.produce([b"a"])
    short = {"max.poll.interval.ms": 1000, "session.timeout.ms": 1000}

    member = world.join(short, consumer=lambda settings: next(kinds)(settings))

    world.until(lambda: member.records)
    assert member.offsets == [0]
    assert not member.source.readiness_failures()


def test_a_member_that_has_not_joined_yet_says_so(world: World) -> None:
    member = world.join()

    assert "not connected yet" in member.source.readiness_failures()[0]


def test_a_key_that_the_client_does_not_know_is_a_wrong_setting(world: World) -> None:
    with pytest.raises(ConfigurationError, match=r"kafka\.client: .*no\.such\.key"):
        world.join({"no.such.key": 1})


def scripted(*events: KafkaError) -> tuple[GroupMember, ScriptedClient]:
    made: list[ScriptedClient] = []

    def make(settings: dict[str, Any]) -> Any:
        made.append(ScriptedClient(settings))
        return made[0]

    source = GroupMember(KafkaSettings(), consumer=make, admin=telling(NO_ID)).subscribe(Diary())
    made[0].script.extend(Arrival(None, error=error) for error in events)
    return source, made[0]


def test_a_fatal_error_in_place_of_a_message_ends_the_run() -> None:
    source, _ = scripted(KafkaError(KafkaError._FENCED, "fenced by another", fatal=True))

    with pytest.raises(SourceError, match="fenced by another"):
        source.poll(1, 0.0)


def test_a_commit_that_the_client_itself_refuses_stays_due() -> None:
    source, client = scripted()
    client.refusing = True

    source.commit({0: 5})

    assert not source.committing


def test_a_fatal_error_of_the_client_ends_the_run() -> None:
    source, client = scripted()

    client.settings["error_cb"](KafkaError(KafkaError._FATAL, "beyond repair", fatal=True))

    with pytest.raises(SourceError, match="beyond repair"):
        source.poll(1, 0.0)


def test_a_topic_that_does_not_exist_is_a_readiness_failure_and_not_fatal() -> None:
    source, client = scripted(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, "no such topic"))
    client.settings["stats_cb"](statistics())

    assert source.poll(1, 0.0) == []

    assert source.readiness_failures() == ["topic data-topic: no such topic"]


def test_the_administrators_client_of_a_closed_source_is_gone() -> None:
    made: list[ReferenceType[Telling]] = []

    def make(_settings: dict[str, Any]) -> Any:
        admin = Telling(NO_ID)
        made.append(ref(admin))
        return admin

    source = GroupMember(KafkaSettings(), consumer=cast(Any, ScriptedClient), admin=make)

    source.close()

    assert made[0]() is None


def test_the_default_name_that_can_not_be_resolved_comes_with_the_mend(caplog: pytest.LogCaptureFixture) -> None:
    source, client = scripted()

    client.settings["error_cb"](KafkaError(KafkaError._RESOLVE, "kafka:9092: Failed to resolve"))

    assert "set KAFKA_BOOTSTRAP_SERVERS, e.g. localhost:29092" in source.readiness_failures()[0]
    assert "broker unreachable" in caplog.messages


def test_the_reason_why_no_broker_is_reached_is_not_lost_behind_the_fact() -> None:
    source, client = scripted()

    client.settings["error_cb"](KafkaError(KafkaError._TRANSPORT, "kafka:9092: Connection refused"))
    client.settings["error_cb"](KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))

    assert source.readiness_failures() == ["broker kafka:9092: kafka:9092: Connection refused"]


def test_any_other_trouble_of_the_client_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    source, client = scripted()

    client.settings["error_cb"](KafkaError(KafkaError._AUTHENTICATION, "wrong password"))

    assert "Kafka client in trouble" in caplog.messages
    assert "wrong password" in source.readiness_failures()[0]


def test_a_member_that_waits_for_its_group_is_not_ready() -> None:
    source, client = scripted()

    client.settings["stats_cb"](statistics(join_state="wait-join"))

    assert source.readiness_failures() == ["waiting to join the consumer group"]


def test_a_client_that_has_lost_its_group_makes_place_for_another() -> None:
    made: list[ScriptedClient] = []
    now = [0.0]
    diary = Diary()

    def make(settings: dict[str, Any]) -> Any:
        made.append(ScriptedClient(settings))
        return made[-1]

    source = GroupMember(KafkaSettings(), consumer=make, admin=telling(NO_ID), clock=lambda: now[0]).subscribe(diary)
    lost = made[0]
    lost.assign(0, 1)
    source.commit({0: 5})
    lost.script.clear()  # the answer does not come any more
    lost.settings["stats_cb"](statistics(join_state="init"))
    for moment in (1.0, 120.0):  # twice max.poll.interval.ms is not over
        now[0] = moment
        source.poll(1, 0.0)
    assert (len(made), sorted(diary.owned)) == (1, [0, 1])

    now[0] = 121.0
    source.poll(1, 0.0)

    assert (len(made), diary.losses, source.committing) == (2, [(0, 1)], False)
    lost.assign(0)  # it comes back after all
    lost.settings["error_cb"](KafkaError(KafkaError._FATAL, "beyond repair", fatal=True))
    source.poll(1, 0.0)
    assert diary.owned == {}
    made[1].assign(0)
    assert (sorted(diary.owned), diary.numbers) == ([0], [1, 2])


def test_a_stop_does_not_wait_for_a_client_without_a_group(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("src.kafka.group_member.CLOSED_WITHIN", 0.01)
    told, closed = Event(), Event()

    class Stuck(ScriptedClient):
        def close(self) -> None:
            told.wait(DEADLINE)
            closed.set()

    source = GroupMember(KafkaSettings(), consumer=cast(Any, Stuck), admin=telling(NO_ID)).subscribe(Diary())

    source.close()

    assert not closed.is_set()
    assert "the Kafka client is not closed in time and is left behind" in caplog.messages
    told.set()
    assert closed.wait(DEADLINE)


def test_clients_that_neither_find_a_group_nor_close_are_not_piled_up() -> None:
    told = Event()
    now = [0.0]
    made: list[ScriptedClient] = []

    class Stuck(ScriptedClient):
        def close(self) -> None:
            told.wait(DEADLINE)

    def make(settings: dict[str, Any]) -> Any:
        made.append(Stuck(settings))
        return made[-1]

    source = GroupMember(KafkaSettings(), consumer=make, admin=telling(NO_ID), clock=lambda: now[0]).subscribe(Diary())

    def wait_in_vain() -> None:
        made[-1].settings["stats_cb"](statistics(join_state="init"))
        source.poll(1, 0.0)
        now[0] += 120.0
        source.poll(1, 0.0)

    for _ in range(3):
        wait_in_vain()

    with pytest.raises(SourceError, match="finds no group, and the 3 before it do not close"):
        wait_in_vain()
    assert len(made) == 4
    told.set()


def statistics(join_state: str = "steady") -> str:
    brokers = {"b:9092/1": {"state": "UP", "nodeid": 1}}
    return json.dumps({"brokers": brokers, "topics": {}, "cgrp": {"join_state": join_state}})
