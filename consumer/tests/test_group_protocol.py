"""The group protocol `consumer` (KIP-848): settings, patterns, `--check`, and members on Kafka 4 and on Kafka 3."""

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from hypothesis import given
from hypothesis import strategies as st

from local.broker import EmbeddedBroker
from src.kafka.group_protocol_check import check_group_protocol
from src.kafka.member_settings import member_settings
from src.model import topic_names
from src.settings import KafkaSettings
from src.utils.config import ConfigurationError
from tests.fakes import TOPIC
from tests.group_member_contract import QUICK, GroupOnServers
from tests.kafka_containers import kafka3_servers, kafka4_servers
from tests.kafka_server import PATIENCE, Topics

__all__ = ["kafka3_servers", "kafka4_servers"]

CLASSIC_KEYS = {"session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"}


# -- settings


def test_the_keys_of_the_classic_protocol_are_not_sent_with_the_other_one() -> None:
    settings = member_settings(KafkaSettings(group_protocol="consumer"))

    assert settings["group.protocol"] == "consumer"
    assert not CLASSIC_KEYS & settings.keys()


@pytest.mark.parametrize("key", ["session.timeout.ms", "heartbeat.interval.ms"])
def test_a_key_of_the_classic_protocol_is_a_configuration_error_with_the_other_one(key: str) -> None:
    with EmbeddedBroker({TOPIC: 1}) as broker, pytest.raises(ConfigurationError, match=f"kafka.client: .*{key}"):
        GroupOnServers(broker.address, TOPIC, {}, "consumer").join(client_settings={key: 6000})


@given(
    pattern=st.lists(st.sampled_from(["a", "b", "a|b", "(a|b)", ".*", "$", "^", r"\.", "[ab]+"]), max_size=5),
    name=st.text("ab.", min_size=1, max_size=6),
)
def test_a_pattern_for_brokers_matches_as_a_whole_what_it_matches_anywhere(pattern: list[str], name: str) -> None:
    text = "^" + "".join(pattern)

    whole = re.fullmatch(topic_names.of_whole_names(text).removeprefix("^"), name)

    assert (whole is not None) == topic_names.matches(text, name)


# -- the check


class GroupConfigs:
    """An admin client that responds with this configuration of a group, or with this error."""

    def __init__(self, session_ms: int = 45_000, error: int | None = None) -> None:
        self._session_ms = session_ms
        self._error = error

    def describe_configs(self, resources: list[Any], **_: object) -> Mapping[Any, Future[Any]]:
        response: Future[Any] = Future()
        if self._error is None:
            response.set_result({"consumer.session.timeout.ms": _Entry(str(self._session_ms))})
        else:
            response.set_exception(KafkaException(KafkaError(self._error)))
        return dict.fromkeys(resources, response)


class _Entry:
    def __init__(self, value: str) -> None:
        self.value = value


@pytest.mark.parametrize(
    ("admin", "label", "text"),
    [
        (GroupConfigs(6_000), "ok", "wait for 6 s"),
        (GroupConfigs(45_000), "warn", "wait for 45 s; set group.consumer.session.timeout.ms of the brokers"),
        (GroupConfigs(error=KafkaError.INVALID_REQUEST), "FAIL", "set KAFKA_GROUP_PROTOCOL to classic"),
        (GroupConfigs(error=KafkaError.GROUP_AUTHORIZATION_FAILED), "warn", "is not available"),
    ],
)
def test_the_check_names_what_is_missing_and_does_not_need_the_permission(
    admin: GroupConfigs, label: str, text: str
) -> None:
    result = check_group_protocol(cast(AdminClient, admin), "g", 1.0)

    assert result.label == label
    assert text in result.text


# -- on brokers


@pytest.fixture
def group(kafka4_servers: str) -> Iterator[GroupOnServers]:
    topics = Topics(kafka4_servers)
    name = topics.name()
    topics.create(name, partitions=2)
    group = GroupOnServers(kafka4_servers, name, {}, "consumer", seconds=PATIENCE)
    yield group
    group.leave()


@pytest.mark.docker
def test_kafka_4_supports_it_and_kafka_3_does_not(kafka3_servers: str, kafka4_servers: str) -> None:
    on_3, on_4 = (
        check_group_protocol(AdminClient({"bootstrap.servers": servers}), "g", 10.0)
        for servers in (kafka3_servers, kafka4_servers)
    )

    assert on_3.label == "FAIL"
    assert (on_4.label, on_4.text) == ("ok", "consumer; the partitions of a killed consumer wait for 6 s")


@pytest.mark.docker
def test_a_member_on_brokers_without_the_protocol_says_so(
    kafka3_servers: str, caplog: pytest.LogCaptureFixture
) -> None:
    topics = Topics(kafka3_servers)
    topics.create(name := topics.name())
    group = GroupOnServers(kafka3_servers, name, {}, "consumer", seconds=PATIENCE)
    member = group.join(timing=QUICK._replace(joining_timeout=0.5))

    group.until(lambda: "not in the consumer group yet" in caplog.messages)

    [failure] = member.member.readiness_failures()
    assert failure == "waiting to join the consumer group; kafka.group_protocol `consumer` requires Kafka 4.0"
    group.leave()


@pytest.mark.docker
def test_a_running_group_changes_its_protocol_member_by_member(group: GroupOnServers) -> None:
    classic = group.join(group_protocol="classic")
    group.until(lambda: len(classic.assignment.partitions) == 2)

    new = group.join()
    group.until(lambda: len(new.assignment.partitions) == 1 and len(classic.assignment.partitions) == 1)
    group.produce([b"a"])
    group.produce([b"b"], partition=1)
    group.until(lambda: classic.values | new.values == {b"a", b"b"})
    group.members.remove(classic)
    classic.close()

    group.until(lambda: len(new.assignment.partitions) == 2)


@pytest.mark.docker
def test_a_pattern_may_match_within_a_name_and_never_includes_the_dead_letter_topic(group: GroupOnServers) -> None:
    topics = Topics(group.servers)
    topics.create("data-topic.dlq", 1)
    topics.create(other := f"data-{topics.name()}", 1)
    member = group.join(topics=[f"^data-|{group.topic[2:]}"])

    group.until(lambda: other in {partition.topic for partition in member.assignment.partitions})

    assert "data-topic.dlq" not in {partition.topic for partition in member.assignment.partitions}
    topics.delete("data-topic.dlq", other)


@pytest.mark.docker
def test_a_member_that_stalls_keeps_its_partitions_until_its_session_ends_and_loses_them_then(
    group: GroupOnServers,
) -> None:
    """It may commit in the meantime; when it polls again, its records no longer count."""
    short = {"max.poll.interval.ms": 3_000}
    stalled, other = group.join(client_settings=short), group.join()
    group.until(lambda: stalled.assignment.partitions and other.assignment.partitions)
    [own] = stalled.assignment.partitions
    group.produce([b"a", b"b"], partition=own.partition)
    group.until(lambda: len(stalled.records) == 2)
    group.members.remove(stalled)

    group.until(lambda: len(other.assignment.partitions) == 2 and len(other.records) == 2)
    other.settle()
    group.until(lambda: not other.assignment.due())
    group.members.append(stalled)
    stalled.settle()
    stalled.member.commit_if_due()  # before it knows that it is outside the group
    group.until(lambda: stalled.metric("consumer_rebalances_total", event="lost"))

    assert stalled.metric("consumer_offset_commits_total", result="failure") == 1
    assert not any(stalled.assignment.owns(record) for record in stalled.records)
    group.until(lambda: stalled.assignment.partitions and other.assignment.partitions)
    assert [record.offset for record in (*stalled.records, *other.records)] == [0, 1, 0, 1]
