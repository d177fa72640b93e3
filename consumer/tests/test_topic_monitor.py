"""A recreated topic is recognised by its id, and a topic that cannot be read by the broker's answers."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation

from src.kafka.topic_monitor import NO_ID, REQUEST_INTERVAL, TopicMonitor, is_topic_id
from tests.fakes import TOPIC


class FakeAdmin:
    """Keeps the questions that it was asked; a test answers them."""

    def __init__(self) -> None:
        self.questions: list[Future[Any]] = []
        self.at_once: str | None = None

    def describe_topics(
        self, topics: object, /, *, include_authorized_operations: bool, request_timeout: float
    ) -> dict[str, Future[Any]]:
        self.questions.append(Future())
        if self.at_once is not None:
            self.answer(self.at_once)
        return {TOPIC: self.questions[-1]}

    def set_sasl_credentials(self, username: str, password: str, /) -> None:
        """Not needed here."""

    def answer(self, topic_id: str | None) -> None:
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
        self.admin = FakeAdmin()
        self.monitor = TopicMonitor(self.admin, TOPIC, clock=lambda: self.now, renew_timeout=0.0)


@pytest.fixture
def world() -> World:
    return World()


def test_it_is_asked_in_the_background_and_taken_in_when_it_comes(world: World) -> None:
    world.monitor.refresh()
    before = world.monitor.topic_id
    world.admin.answer("one")

    world.monitor.refresh()

    assert (before, world.monitor.topic_id) == (None, "one")


def test_it_is_asked_again_only_after_a_while(world: World) -> None:
    world.monitor.refresh()
    world.admin.answer("one")
    world.monitor.refresh()

    assert len(world.admin.questions) == 1

    world.now += REQUEST_INTERVAL
    world.monitor.refresh()
    world.admin.answer("two")
    world.monitor.refresh()

    assert world.monitor.topic_id == "two"


def test_where_it_matters_only_an_answer_to_a_new_question_counts(world: World) -> None:
    world.monitor.refresh()
    world.admin.answer("one")
    world.admin.at_once = "two"

    world.monitor.renew()

    assert world.monitor.topic_id == "two"


def test_what_was_known_is_forgotten_while_a_new_answer_is_to_come(world: World) -> None:
    world.monitor.refresh()
    world.admin.answer("one")
    world.monitor.refresh()

    world.monitor.renew()

    assert world.monitor.topic_id is None
    world.admin.answer("two")
    world.monitor.refresh()
    assert world.monitor.topic_id == "two"


@pytest.mark.parametrize("told", [None, NO_ID])
def test_a_broker_that_tells_no_id_leaves_it_unknown(world: World, told: str | None) -> None:
    world.monitor.refresh()
    world.admin.answer(told)

    world.monitor.refresh()

    assert world.monitor.topic_id is None


@pytest.mark.parametrize("text", ["", "group metadata of ours", "D0fVE1F4Q4+FZpq1G40TZQ=", None])
def test_what_other_programs_commit_beside_their_offsets_is_no_id(text: str | None) -> None:
    assert not is_topic_id(text)


@pytest.mark.parametrize("text", ["D0fVE1F4Q4+FZpq1G40TZQ", "D0fVE1F4Q4_FZpq1-40TZQ", "/0fVE1F4Q4+FZpq1G40TZQ"])
def test_ids_are_written_in_either_base64(text: str) -> None:
    assert is_topic_id(text)


def test_a_broker_that_can_not_tell_leaves_what_was_known(world: World) -> None:
    world.monitor.refresh()
    world.admin.answer("one")
    world.monitor.refresh()
    world.now += REQUEST_INTERVAL
    world.monitor.refresh()

    world.admin.fail()
    world.monitor.refresh()

    assert world.monitor.topic_id == "one"


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
    assert text in (world.monitor.failure or "")

    world.now += REQUEST_INTERVAL
    world.monitor.refresh()
    world.admin.fail(KafkaError._TIMED_OUT)
    world.monitor.refresh()
    assert text in (world.monitor.failure or "")

    world.now += REQUEST_INTERVAL
    world.monitor.refresh()
    world.admin.authorize(AclOperation.READ, AclOperation.DESCRIBE)
    world.monitor.refresh()
    assert (world.monitor.failure, world.monitor.readable) == (None, True)


def test_a_topic_that_may_be_described_but_not_read_is_a_failure(world: World) -> None:
    world.monitor.refresh()

    world.admin.authorize(AclOperation.DESCRIBE)
    world.monitor.refresh()

    assert world.monitor.failure == "topic data-topic: not authorized to read it"
    assert not world.monitor.readable


def test_a_broker_that_lists_no_operations_says_nothing_of_them(world: World) -> None:
    world.monitor.refresh()

    world.admin.authorize()
    world.monitor.refresh()

    assert (world.monitor.failure, world.monitor.readable) == (None, False)


def test_after_an_error_of_the_client_only_an_answer_to_a_new_request_counts(world: World) -> None:
    world.monitor.refresh()
    old = world.admin.questions[-1]

    world.monitor.invalidate()
    old.set_result(Description("one", [AclOperation.READ]))
    world.monitor.refresh()

    assert not world.monitor.readable
    world.admin.authorize(AclOperation.READ)
    world.monitor.refresh()
    assert world.monitor.readable
