"""A topic that was made again is told from the old one by its id."""

from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from src.kafka.topic_identity import NO_ID, REQUEST_INTERVAL, TopicIdentity, is_topic_id
from tests.fakes import TOPIC


class FakeAdmin:
    """Keeps the questions that it was asked; a test answers them."""

    def __init__(self) -> None:
        self.questions: list[Future[Any]] = []
        self.at_once: str | None = None

    def describe_topics(self, topics: object, /, *, request_timeout: float) -> dict[str, Future[Any]]:
        self.questions.append(Future())
        if self.at_once is not None:
            self.answer(self.at_once)
        return {TOPIC: self.questions[-1]}

    def answer(self, topic_id: str | None) -> None:
        self.questions[-1].set_result(Description(topic_id))

    def refuse(self) -> None:
        self.questions[-1].set_exception(KafkaException(KafkaError(KafkaError._TIMED_OUT)))


class Description:
    def __init__(self, topic_id: str | None) -> None:
        self.topic_id = topic_id


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.admin = FakeAdmin()
        self.identity = TopicIdentity(self.admin, TOPIC, clock=lambda: self.now, renew_timeout=0.0)


@pytest.fixture
def world() -> World:
    return World()


def test_it_is_asked_in_the_background_and_taken_in_when_it_comes(world: World) -> None:
    world.identity.refresh()
    before = world.identity.known
    world.admin.answer("one")

    world.identity.refresh()

    assert (before, world.identity.known) == (None, "one")


def test_it_is_asked_again_only_after_a_while(world: World) -> None:
    world.identity.refresh()
    world.admin.answer("one")
    world.identity.refresh()

    assert len(world.admin.questions) == 1

    world.now += REQUEST_INTERVAL
    world.identity.refresh()
    world.admin.answer("two")
    world.identity.refresh()

    assert world.identity.known == "two"


def test_where_it_matters_only_an_answer_to_a_new_question_counts(world: World) -> None:
    world.identity.refresh()
    world.admin.answer("one")
    world.admin.at_once = "two"

    world.identity.renew()

    assert world.identity.known == "two"


def test_what_was_known_is_forgotten_while_a_new_answer_is_to_come(world: World) -> None:
    world.identity.refresh()
    world.admin.answer("one")
    world.identity.refresh()

    world.identity.renew()

    assert world.identity.known is None
    world.admin.answer("two")
    world.identity.refresh()
    assert world.identity.known == "two"


@pytest.mark.parametrize("told", [None, NO_ID])
def test_a_broker_that_tells_no_id_leaves_it_unknown(world: World, told: str | None) -> None:
    world.identity.refresh()
    world.admin.answer(told)

    world.identity.refresh()

    assert world.identity.known is None


@pytest.mark.parametrize("text", ["", "group metadata of ours", "D0fVE1F4Q4+FZpq1G40TZQ=", None])
def test_what_other_programs_commit_beside_their_offsets_is_no_id(text: str | None) -> None:
    assert not is_topic_id(text)


@pytest.mark.parametrize("text", ["D0fVE1F4Q4+FZpq1G40TZQ", "D0fVE1F4Q4_FZpq1-40TZQ", "/0fVE1F4Q4+FZpq1G40TZQ"])
def test_ids_are_written_in_either_base64(text: str) -> None:
    assert is_topic_id(text)


def test_a_broker_that_can_not_tell_leaves_what_was_known(world: World) -> None:
    world.identity.refresh()
    world.admin.answer("one")
    world.identity.refresh()
    world.now += REQUEST_INTERVAL
    world.identity.refresh()

    world.admin.refuse()
    world.identity.refresh()

    assert world.identity.known == "one"
