"""The topic's own id, by which a topic that was deleted and made again is told from the old one."""

import re
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeGuard

from confluent_kafka import KafkaException, TopicCollection

NO_ID = "A" * 22  # how an id of zeros is written
ASKED_EVERY = 10.0  # seconds
FRESH_ANSWER = 2.0  # seconds that an answer may take where it matters

_ID = re.compile(r"[A-Za-z0-9+/_-]{22}")


def is_topic_id(text: str | None) -> TypeGuard[str]:
    """Whether this is an id; other programs commit other things beside their offsets."""
    return text is not None and _ID.fullmatch(text) is not None


class Admin(Protocol):
    """What is needed of confluent_kafka's AdminClient."""

    def describe_topics(self, topics: TopicCollection, /, *, request_timeout: float) -> dict[str, Future[Any]]: ...


class TopicIdentity:
    """Asks in the background; `known` is the last answer, None where the broker tells none."""

    def __init__(
        self,
        admin: Admin,
        topic: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        patience: float = FRESH_ANSWER,
    ) -> None:
        self.known: str | None = None
        self._admin = admin
        self._topic = topic
        self._clock = clock
        self._patience = patience
        self._asked_at = -ASKED_EVERY
        self._answer: Future[Any] | None = None

    def refresh(self) -> None:
        """Take in an answer that has come, and ask again when it is time. Does not wait."""
        if self._answer is not None and self._answer.done():
            self._take(0.0)
        if self._answer is None and self._clock() - self._asked_at >= ASKED_EVERY:
            self._ask()

    def renew(self) -> None:
        """Forget what is known, which may be of a topic that is no more, and give a new answer moments to come."""
        self.known = None
        self._ask()
        self._take(self._patience)

    def close(self) -> None:
        """Let go of the client, in this thread: garbage collection in one of its own would abort the process."""
        del self._admin

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
