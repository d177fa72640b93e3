"""How a GroupMember handles errors of its client, which follows a script."""

import json
from pathlib import Path
from threading import Event
from typing import Any, cast
from weakref import ReferenceType, ref

import pytest
from confluent_kafka import KafkaError
from confluent_kafka.admin import AclOperation

from src.kafka.group_member import Timing
from src.kafka.topic_monitor import NO_ID, REQUEST_INTERVAL, UNKNOWN_ID
from src.model.errors import SourceError
from src.model.position import TopicPartition
from src.settings import KafkaSettings
from src.utils.secret import ClientSettings, Secret
from tests.fake_kafka import FakeAdmin, FakeMessage
from tests.fakes import DEADLINE, P0, P1
from tests.group_member_contract import Member
from tests.scripted_client import ScriptedClient


class World:
    """A member, and the clients that it has created so far."""

    def __init__(
        self, kind: type[ScriptedClient] = ScriptedClient, kafka: KafkaSettings | None = None, **options: Any
    ) -> None:
        self.now = 0.0
        self.clients: list[ScriptedClient] = []
        self.admin = FakeAdmin()
        self._kind = kind
        member = Member(
            kafka or KafkaSettings(),
            client=self._new_client,
            admin=lambda _settings: self.admin,
            clock=lambda: self.now,
            **options,
        )
        self.assignment, self.member, self.metric = member.assignment, member.member, member.metric

    @property
    def client(self) -> ScriptedClient:
        return self.clients[-1]

    def poll(self) -> None:
        self.member.poll(1, 0.0)

    def report(self, join_state: str = "steady") -> None:
        brokers = {"b:9092/1": {"state": "UP", "nodeid": 1}}
        statistics = {"brokers": brokers, "topics": {}, "cgrp": {"join_state": join_state}}
        self.client.settings["stats_cb"](json.dumps(statistics))

    def _new_client(self, settings: dict[str, Any]) -> ScriptedClient:
        self.clients.append(self._kind(settings))
        return self.client


def test_a_fatal_error_in_place_of_a_message_ends_the_run() -> None:
    world = World()
    world.client.script.append(FakeMessage(None, error=KafkaError(KafkaError._FENCED, "fenced by another", fatal=True)))

    with pytest.raises(SourceError, match="fenced by another"):
        world.poll()


def test_a_fatal_error_of_the_client_ends_the_run() -> None:
    world = World()

    world.client.settings["error_cb"](KafkaError(KafkaError._FATAL, "producer fenced", fatal=True))

    with pytest.raises(SourceError, match="producer fenced"):
        world.poll()


def test_a_commit_that_the_client_itself_rejects_stays_due() -> None:
    world = World()
    world.client.earliest[P0] = 5
    world.client.assign(P0)
    world.client.failing = True

    world.now = 1.0
    world.member.commit_if_due()

    assert world.assignment.due() == {P0: 5}
    world.client.failing = False
    world.now = 2.0
    world.member.commit_if_due()
    world.poll()
    assert world.assignment.due() == {}


def test_there_is_one_commit_at_a_time() -> None:
    world = World()
    world.client.earliest = {P0: 5, P1: 7}
    world.client.assign(P0)
    world.now = 1.0
    world.member.commit_if_due()
    answer = world.client.script.popleft()
    world.client.assign(P1)

    world.now = 2.0
    world.member.commit_if_due()

    assert world.client.group == {P0: (5, UNKNOWN_ID)}
    world.client.script.append(answer)
    world.poll()
    world.now = 3.0
    world.member.commit_if_due()
    assert world.client.group == {P0: (5, UNKNOWN_ID), P1: (7, UNKNOWN_ID)}


def test_a_topic_that_does_not_exist_is_a_readiness_failure_and_not_fatal() -> None:
    world = World()
    world.client.script.append(FakeMessage(None, error=KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, "no such topic")))
    world.report()

    world.poll()

    assert world.member.readiness_failures() == ["topic data-topic: no such topic"]


def unauthorized(partition: TopicPartition = P0) -> FakeMessage:
    return FakeMessage(None, partition, error=KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "not authorized"))


def test_a_revoked_permission_is_named_until_it_is_granted_again() -> None:
    world = World()
    world.client.assign(P0, P1)
    world.report()
    world.admin.error = KafkaError.TOPIC_AUTHORIZATION_FAILED
    world.client.script.extend([unauthorized(P0), unauthorized(P1)])
    world.poll()
    world.poll()

    world.client.revoke(P0, P1)  # the group assigns nothing of a topic that this user cannot see
    world.client.assign()
    world.now += REQUEST_INTERVAL
    world.poll()
    world.poll()
    [failure] = world.member.readiness_failures()
    assert "topic data-topic: not authorized to describe it" in failure

    world.admin.error, world.admin.operations = None, [AclOperation.READ]
    world.now += REQUEST_INTERVAL
    world.poll()
    world.poll()
    assert world.member.readiness_failures() == []


def test_an_idle_topic_is_ready_again_once_it_may_be_read() -> None:
    world = World()
    world.client.assign(P0)
    world.report()
    world.admin.operations = [AclOperation.DESCRIBE]
    world.client.script.append(unauthorized())
    world.poll()
    world.poll()
    assert world.member.readiness_failures() == ["topic data-topic: not authorized to read it"]

    world.admin.operations = [AclOperation.DESCRIBE, AclOperation.READ]
    world.now += REQUEST_INTERVAL
    world.poll()
    world.poll()

    assert world.member.readiness_failures() == []


def test_the_end_of_a_partition_ends_its_error_where_the_broker_lists_no_operations() -> None:
    world = World()
    world.client.assign(P0)
    world.report()
    world.client.script.append(unauthorized())
    world.poll()
    assert world.member.readiness_failures() == ["topic data-topic: not authorized"]

    world.client.script.append(FakeMessage(7, error=KafkaError(KafkaError._PARTITION_EOF)))
    world.poll()

    assert world.member.readiness_failures() == []


def test_a_missing_permission_on_the_group_is_named() -> None:
    world = World()
    error = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED, "JoinGroup failed: not authorized")
    world.client.script.append(FakeMessage(None, TopicPartition("", -1), error=error))
    world.report()

    world.poll()

    assert world.member.readiness_failures() == ["group data-consumer-group: JoinGroup failed: not authorized"]


def test_the_admin_client_is_released_on_close() -> None:
    admins: list[ReferenceType[FakeAdmin]] = []

    def new_admin(_settings: dict[str, Any]) -> Any:
        admin = FakeAdmin(NO_ID)
        admins.append(ref(admin))
        return admin

    member = Member(KafkaSettings(), client=cast(Any, ScriptedClient), admin=new_admin)

    member.close()

    assert admins[0]() is None


def test_the_default_host_name_that_cannot_be_resolved_comes_with_advice(caplog: pytest.LogCaptureFixture) -> None:
    world = World()

    world.client.settings["error_cb"](KafkaError(KafkaError._RESOLVE, "kafka:9092: Failed to resolve"))

    assert "set KAFKA_BOOTSTRAP_SERVERS, e.g. localhost:29092" in world.member.readiness_failures()[0]
    assert "broker unreachable" in caplog.messages


def test_all_brokers_down_does_not_replace_the_reason() -> None:
    world = World()

    world.client.settings["error_cb"](KafkaError(KafkaError._TRANSPORT, "kafka:9092: Connection refused"))
    world.client.settings["error_cb"](KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))

    assert world.member.readiness_failures() == ["broker kafka:9092: kafka:9092: Connection refused"]


def test_any_other_error_of_the_client_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    world = World()

    world.client.settings["error_cb"](KafkaError(KafkaError._AUTHENTICATION, "wrong password"))

    assert "Kafka client error" in caplog.messages
    assert "wrong password" in world.member.readiness_failures()[0]


def test_after_a_failed_login_the_renewed_password_is_used_by_the_member_and_its_admin_client(tmp_path: Path) -> None:
    file = tmp_path / "password"
    client = ClientSettings({"sasl.username": "user", "sasl.password": Secret("first").in_file(file)})
    world = World(kafka=KafkaSettings(client=client))
    file.write_text("second")

    world.client.settings["error_cb"](KafkaError(KafkaError._AUTHENTICATION, "wrong password"))
    assert world.client.credentials is None  # in a callback the client must not be called
    world.poll()

    assert world.client.credentials == world.admin.credentials == ("user", "second")


def test_a_member_that_waits_for_its_group_is_not_ready() -> None:
    world = World()

    world.report(join_state="wait-join")

    assert world.member.readiness_failures() == ["waiting to join the consumer group"]


def test_a_client_that_has_lost_its_membership_is_replaced() -> None:
    world = World()
    lost = world.client
    lost.assign(P0, P1)
    world.now = 1.0
    world.member.commit_if_due()
    lost.script.clear()  # no response arrives
    world.report(join_state="init")
    for moment in (1.0, 120.0):  # not yet twice max.poll.interval.ms
        world.now = moment
        world.poll()
    assert (len(world.clients), sorted(world.assignment.partitions)) == (1, [P0, P1])

    world.now = 121.0
    world.poll()

    assert (len(world.clients), world.assignment.partitions) == (2, ())
    assert world.metric("consumer_rebalances_total", event="lost") == 1
    assert world.metric("consumer_assigned_partitions") == 0
    lost.assign(P0)  # it rejoins its group after all, and is ignored
    lost.settings["error_cb"](KafkaError(KafkaError._FATAL, "producer fenced", fatal=True))
    world.poll()
    assert world.assignment.partitions == ()
    world.client.earliest[P0] = 0
    world.client.assign(P0)
    world.now = 130.0
    world.member.commit_if_due()
    assert world.assignment[P0].number == 2
    assert world.client.group == {P0: (0, UNKNOWN_ID)}


class BlockedClient(ScriptedClient):
    """Its close blocks until `release` is set."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self.release, self.closed = Event(), Event()

    def close(self) -> None:
        self.release.wait(DEADLINE)
        self.closed.set()


def test_a_stop_does_not_wait_for_a_client_outside_its_group(caplog: pytest.LogCaptureFixture) -> None:
    world = World(BlockedClient, timing=Timing(close_timeout=0.01))
    client = cast(BlockedClient, world.client)

    world.member.close()

    assert not client.closed.is_set()
    assert "close timed out, client abandoned" in caplog.messages
    client.release.set()
    assert client.closed.wait(DEADLINE)


def test_the_number_of_abandoned_clients_is_limited() -> None:
    world = World(BlockedClient)

    def expire() -> None:
        world.report(join_state="init")
        world.poll()
        world.now += 120.0
        world.poll()

    for _ in range(3):
        expire()

    with pytest.raises(SourceError, match="group membership lost, and 3 previous clients have not closed"):
        expire()
    assert len(world.clients) == 4
    for client in world.clients:
        cast(BlockedClient, client).release.set()
