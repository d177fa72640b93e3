"""Monitors the ids of topics, by which a recreated topic is recognized, and whether the topics can be read."""

import re
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, wait
from typing import Any, Protocol, TypeGuard

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation

NO_ID = "A" * 22  # how an id of zeros is written
UNKNOWN_ID = "-"  # committed while the id is unknown: still no commit of another program
REQUEST_INTERVAL = 10.0  # seconds
REQUEST_TIMEOUT = 3.0  # seconds
RENEW_TIMEOUT = 2.0  # seconds that `renew` waits for a response

UNREADABLE = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "not authorized to describe it: the user needs an ACL with Read",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "it does not exist",
    KafkaError._UNKNOWN_TOPIC: "it does not exist",
}
"""The errors that last until an administrator changes the topic or its ACLs. A client reports them once."""

_ID = re.compile(r"[A-Za-z0-9+/_-]{22}")


def is_topic_id(text: str | None) -> TypeGuard[str]:
    """Whether this is an id: other programs commit other metadata beside their offsets."""
    return text is not None and _ID.fullmatch(text) is not None


class Admin(Protocol):
    """What is needed of confluent_kafka's AdminClient."""

    def describe_topics(
        self, topics: TopicCollection, /, *, include_authorized_operations: bool, request_timeout: float
    ) -> dict[str, Future[Any]]: ...

    def set_sasl_credentials(self, username: str, password: str, /) -> None: ...


class TopicMonitor:
    """Describes the topics in the background at intervals; its answers are those of the last response.

    After a request that failed, the next one is sent by a new client: librdkafka's admin client keeps asking a
    controller that is dead, for which it uses most of a core, until the request times out.
    """

    def __init__(
        self,
        admin: Callable[[], Admin],
        topics: Callable[[], Collection[str]],
        *,
        clock: Callable[[], float] = time.monotonic,
        renew_timeout: float = RENEW_TIMEOUT,
    ) -> None:
        self.failures: Mapping[str, str] = {}
        """By topic, why it cannot be read, for as long as that lasts. Replaced as a whole: safe from any thread."""
        self.readable: Collection[str] = frozenset()
        """The topics that a response confirmed to be; none if the broker does not list authorized operations."""
        self._ids: dict[str, str] = {}
        self._new_admin = admin
        self._admin = admin()
        self._failed = False
        self._topics = topics
        self._clock = clock
        self._renew_timeout = renew_timeout
        self._last_request = -REQUEST_INTERVAL
        self._responses: dict[str, Future[Any]] = {}

    def topic_id(self, topic: str) -> str | None:
        """None while it is unknown, and where the broker has no topic ids."""
        return self._ids.get(topic)

    def refresh(self) -> None:
        """Process the responses that have arrived, and send a request when it is due. Does not wait."""
        self._receive(0.0)
        if not self._responses and self._clock() - self._last_request >= REQUEST_INTERVAL:
            self._request()

    def renew(self) -> None:
        """Forget the ids, which may be those of deleted topics, and wait briefly for new responses."""
        self._ids.clear()
        self._request()
        self._receive(self._renew_timeout)

    def invalidate(self, topic: str) -> None:
        """The client has reported that the topic cannot be read: only the response to a new request is valid."""
        self.readable = frozenset(self.readable) - {topic}
        self._request()

    def set_sasl_credentials(self, username: str, password: str, /) -> None:
        self._admin.set_sasl_credentials(username, password)

    def close(self) -> None:
        """Release the client in this thread: garbage-collected in its own thread, it would abort the process."""
        del self._admin

    def _request(self) -> None:
        """What is known of other topics, which are no longer monitored, is forgotten."""
        self._last_request = self._clock()
        topics = self._topics()
        self.failures = {topic: failure for topic, failure in self.failures.items() if topic in topics}
        if self._failed:
            self._failed, self._admin = False, self._new_admin()  # in this thread, as in `close`
        self._responses = {}
        if topics:
            self._responses = self._admin.describe_topics(
                TopicCollection(list(topics)), include_authorized_operations=True, request_timeout=REQUEST_TIMEOUT
            )

    def _receive(self, timeout: float) -> None:
        if timeout:
            wait(self._responses.values(), timeout)
        for topic in [topic for topic, response in self._responses.items() if response.done()]:
            response = self._responses.pop(topic)
            try:
                description = response.result()
            except KafkaException as error:
                self._on_error(topic, error.args[0].code())
            else:
                self._on_description(topic, description)

    def _on_description(self, topic: str, description: Any) -> None:
        if description.topic_id is not None and str(description.topic_id) != NO_ID:
            self._ids[topic] = str(description.topic_id)
        operations = description.authorized_operations or ()
        readable = AclOperation.READ in operations
        denied = operations and not readable
        self._record(topic, f"topic {topic}: not authorized to read it" if denied else None, readable=readable)

    def _on_error(self, topic: str, code: int) -> None:
        """Any other error says nothing about the topic, and what is known is kept."""
        if code in UNREADABLE:
            self._record(topic, f"topic {topic}: {UNREADABLE[code]}", readable=False)
        else:
            self._failed = True

    def _record(self, topic: str, failure: str | None, *, readable: bool) -> None:
        self.readable = frozenset(self.readable) - {topic} | ({topic} if readable else set())
        others = {name: text for name, text in self.failures.items() if name != topic}
        self.failures = others if failure is None else {**others, topic: failure}
