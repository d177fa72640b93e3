"""A recreated topic is recognized by its id, and an unreadable topic by the broker's responses."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation

from src.kafka.topic_monitor import NO_ID, REQUEST_INTERVAL, TopicMonitor, is_topic_id
from tests.fakes import TOPIC


class FakeAdmin:
    """Keeps the requests; a test responds to them."""

    def __init__(self) -> None:
        self.questions: list[Future[Any]] = []
        self.at_once: str | None = None

    def describe_topics(
        self, topics: object, /, *, include_authorized_operations: bool, request_timeout: float
    ) -> dict[str, Future[Any]]:
        self.questions.append(Future())
        if self.at_once is not None:
            self.respond(self.at_once)
        return {TOPIC: self.questions[-1]}

    def set_sasl_credentials(self, username: str, password: str, /) -> None:
        """Not needed here."""

    def respond(self, topic_id: str | None) -> None:
        self.questions[-1].set_result(Description(topic_id))

    def authorize(self, *operations: AclOperation) -> None:
        self.questions[-1].set_result(Description("one", operations))

    def fail(self, code: int = KafkaError._TIMED_OUT) -> None:
        self.questions[-1].set_exception(KafkaException(KafkaError(code)))


class Description:
    def __init__(self, topic_id: str | None, operations: Sequence[AclOperation] | None = None) -> None:
        self.topic_id = topic_id
        self.authorized_operations = operations


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.admins: list[FakeAdmin] = []
        self.monitor = TopicMonitor(self._new_admin, lambda: [TOPIC], clock=lambda: self.now, renew_timeout=0.0)

    @property
    def admin(self) -> FakeAdmin:
        """The latest client."""
        return self.admins[-1]

    def _new_admin(self) -> FakeAdmin:
        self.admins.append(FakeAdmin())
        return self.admin


@pytest.fixture
def world() -> World:
    return World()


def test_the_id_is_requested_in_the_background_and_kept_when_the_response_arrives(world: World) -> None:
    world.monitor.refresh()
    before = world.monitor.topic_id(TOPIC)
    world.admin.respond("one")

    world.monitor.refresh()

    assert (before, world.monitor.topic_id(TOPIC)) == (None, "one")


def test_the_next_request_is_sent_only_after_the_interval(world: World) -> None:
    world.monitor.refresh()
    world.admin.respond("one")
    world.monitor.refresh()

    assert len(world.admin.questions) == 1

    world.now += REQUEST_INTERVAL
    world.monitor.refresh()
    world.admin.respond("two")
    world.monitor.refresh()

    assert world.monitor.topic_id(TOPIC) == "two"


def test_renew_accepts_only_the_response_to_a_new_request(world: World) -> None:
    world.monitor.refresh()
    world.admin.respond("one")
    world.admin.at_once = "two"

    world.monitor.renew()

    assert world.monitor.topic_id(TOPIC) == "two"


def test_renew_forgets_the_previous_id_until_a_response_arrives(world: World) -> None:
    world.monitor.refresh()
    world.admin.respond("one")
    world.monitor.refresh()

    world.monitor.renew()

    assert world.monitor.topic_id(TOPIC) is None
    world.admin.respond("two")
    world.monitor.refresh()
    assert world.monitor.topic_id(TOPIC) == "two"


@pytest.mark.parametrize("topic_id", [None, NO_ID])
def test_a_response_without_an_id_leaves_it_unknown(world: World, topic_id: str | None) -> None:
    world.monitor.refresh()
    world.admin.respond(topic_id)

    world.monitor.refresh()

    assert world.monitor.topic_id(TOPIC) is None


@pytest.mark.parametrize("text", ["", "metadata of a program", "D0fVE1F4Q4+FZpq1G40TZQ=", None])
def test_commit_metadata_of_other_programs_is_not_an_id(text: str | None) -> None:
    assert not is_topic_id(text)


@pytest.mark.parametrize("text", ["D0fVE1F4Q4+FZpq1G40TZQ", "D0fVE1F4Q4_FZpq1-40TZQ", "/0fVE1F4Q4+FZpq1G40TZQ"])
def test_ids_are_written_in_either_base64(text: str) -> None:
    assert is_topic_id(text)


def test_an_error_of_the_broker_keeps_the_previous_id(world: World) -> None:
    world.monitor.refresh()
    world.admin.respond("one")
    world.monitor.refresh()
    world.now += REQUEST_INTERVAL
    world.monitor.refresh()

    world.admin.fail()
    world.monitor.refresh()

    assert world.monitor.topic_id(TOPIC) == "one"


def test_after_a_request_that_failed_the_next_one_is_sent_by_a_new_client(world: World) -> None:
    world.monitor.refresh()
    world.admin.fail(KafkaError._TIMED_OUT)
    world.monitor.refresh()
    assert len(world.admins) == 1

    world.now += REQUEST_INTERVAL
    world.monitor.refresh()
    world.admin.respond("one")
    world.monitor.refresh()
    world.now += REQUEST_INTERVAL
    world.monitor.refresh()

    assert [len(admin.questions) for admin in world.admins] == [1, 2]
    assert world.monitor.topic_id(TOPIC) == "one"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "topic data-topic: not authorized to describe it"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, "topic data-topic: it does not exist"),
    ],
)
def test_a_topic_that_cannot_be_described_is_a_failure_until_it_can_be(world: World, code: int, text: str) -> None:
    world.monitor.refresh()
    world.admin.fail(code)
    world.monitor.refresh()
    assert text in (world.monitor.failures.get(TOPIC, ""))

    world.now += REQUEST_INTERVAL
    world.monitor.refresh()
    world.admin.fail(KafkaError._TIMED_OUT)
    world.monitor.refresh()
    assert text in (world.monitor.failures.get(TOPIC, ""))

    world.now += REQUEST_INTERVAL
    world.monitor.refresh()
    world.admin.authorize(AclOperation.READ, AclOperation.DESCRIBE)
    world.monitor.refresh()
    assert (world.monitor.failures, TOPIC in world.monitor.readable) == ({}, True)


def test_a_topic_that_may_be_described_but_not_read_is_a_failure(world: World) -> None:
    world.monitor.refresh()

    world.admin.authorize(AclOperation.DESCRIBE)
    world.monitor.refresh()

    assert world.monitor.failures == {TOPIC: "topic data-topic: not authorized to read it"}
    assert TOPIC not in world.monitor.readable


def test_without_a_list_of_authorized_operations_there_is_no_failure(world: World) -> None:
    world.monitor.refresh()

    world.admin.authorize()
    world.monitor.refresh()

    assert (world.monitor.failures, TOPIC in world.monitor.readable) == ({}, False)


def test_after_an_error_of_the_client_only_the_response_to_a_new_request_counts(world: World) -> None:
    world.monitor.refresh()
    old = world.admin.questions[-1]

    world.monitor.invalidate(TOPIC)
    old.set_result(Description("one", [AclOperation.READ]))
    world.monitor.refresh()

    assert TOPIC not in world.monitor.readable
    world.admin.authorize(AclOperation.READ)
    world.monitor.refresh()
    assert TOPIC in world.monitor.readable
