"""The topic's id, by which a recreated topic is told from the deleted one of the same name."""

import re
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeGuard

from confluent_kafka import KafkaException, TopicCollection

NO_ID = "A" * 22  # how an id of zeros is written
REQUEST_INTERVAL = 10.0  # seconds
RENEW_TIMEOUT = 2.0  # seconds to wait for an answer where it matters

_ID = re.compile(r"[A-Za-z0-9+/_-]{22}")


def is_topic_id(text: str | None) -> TypeGuard[str]:
    """Whether this is an id: other programs commit other metadata beside their offsets."""
    return text is not None and _ID.fullmatch(text) is not None


class Admin(Protocol):
    """What is needed of confluent_kafka's AdminClient."""

    def describe_topics(self, topics: TopicCollection, /, *, request_timeout: float) -> dict[str, Future[Any]]: ...


class TopicIdentity:
    """Asks in the background; `known` is the last answer, None where the broker has no topic ids."""

    def __init__(
        self,
        admin: Admin,
        topic: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        renew_timeout: float = RENEW_TIMEOUT,
    ) -> None:
        self.known: str | None = None
        self._admin = admin
        self._topic = topic
        self._clock = clock
        self._renew_timeout = renew_timeout
        self._last_request = -REQUEST_INTERVAL
        self._answer: Future[Any] | None = None

    def refresh(self) -> None:
        """Take an answer that has arrived, and ask again when it is time. Does not wait."""
        if self._answer is not None and self._answer.done():
            self._receive(0.0)
        if self._answer is None and self._clock() - self._last_request >= REQUEST_INTERVAL:
            self._request()

    def renew(self) -> None:
        """Forget what is known, which may be a deleted topic's, and wait a moment for a new answer."""
        self.known = None
        self._request()
        self._receive(self._renew_timeout)

    def close(self) -> None:
        """Release the client in this thread: collected in a thread of its own, it would abort the process."""
        del self._admin

    def _request(self) -> None:
        self._last_request = self._clock()
        answers = self._admin.describe_topics(TopicCollection([self._topic]), request_timeout=10)
        self._answer = answers[self._topic]

    def _receive(self, timeout: float) -> None:
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
