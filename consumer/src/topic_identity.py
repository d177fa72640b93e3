"""The topic's own id, by which a topic that was deleted and made again is told from the old one."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from confluent_kafka import KafkaException, TopicCollection

NO_ID = "A" * 22  # how an id of zeros is written
ASKED_EVERY = 10.0  # seconds
FIRST_ANSWER = 2.0  # seconds that a first answer may take where it matters


class Admin(Protocol):
    """What is needed of confluent_kafka's AdminClient."""

    def describe_topics(self, topics: TopicCollection, /, *, request_timeout: float) -> dict[str, Future[Any]]: ...


class TopicIdentity:
    """Asks in the background; `known` is the last answer, None where the broker tells none."""

    def __init__(self, admin: Admin, topic: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.known: str | None = None
        self._admin = admin
        self._topic = topic
        self._clock = clock
        self._asked_at = -ASKED_EVERY
        self._answer: Future[Any] | None = None

    def refresh(self) -> None:
        """Take in an answer that has come, and ask again when it is time. Does not wait."""
        if self._answer is not None and self._answer.done():
            self._take(0.0)
        if self._answer is None and self._clock() - self._asked_at >= ASKED_EVERY:
            self._ask()

    def wait(self) -> str | None:
        """The id, where the broker tells it within moments."""
        if self.known is None:
            if self._answer is None:
                self._ask()
            self._take(FIRST_ANSWER)
        return self.known

    def _ask(self) -> None:
        self._asked_at = self._clock()
        answers = self._admin.describe_topics(TopicCollection([self._topic]), request_timeout=10)
        self._answer = answers[self._topic]

    def _take(self, timeout: float) -> None:
        answer = self._answer
        if answer is None:
            return
        try:
            topic_id = answer.result(timeout).topic_id
        except TimeoutError:
            return
        except KafkaException:
            topic_id = None
        self._answer = None
        if topic_id is not None and str(topic_id) != NO_ID:
            self.known = str(topic_id)
