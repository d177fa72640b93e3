"""Monitors the topic's id, by which a recreated topic is recognized, and whether the topic can be read."""

import re
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeGuard

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation

NO_ID = "A" * 22  # how an id of zeros is written
UNKNOWN_ID = "-"  # committed while the id is unknown: still no commit of another program
REQUEST_INTERVAL = 10.0  # seconds
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
    """Describes the topic in the background at intervals; the attributes are those of the last response."""

    def __init__(
        self,
        admin: Admin,
        topic: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        renew_timeout: float = RENEW_TIMEOUT,
    ) -> None:
        self.topic_id: str | None = None
        """None where the broker has no topic ids."""
        self.failure: str | None = None
        """Why the topic cannot be read, for as long as that lasts."""
        self.readable = False
        """Whether a response confirmed it; False also if the broker does not list authorized operations."""
        self._admin = admin
        self._topic = topic
        self._clock = clock
        self._renew_timeout = renew_timeout
        self._last_request = -REQUEST_INTERVAL
        self._response: Future[Any] | None = None

    def refresh(self) -> None:
        """Process a response that has arrived, and send a request when it is due. Does not wait."""
        if self._response is not None and self._response.done():
            self._receive(0.0)
        if self._response is None and self._clock() - self._last_request >= REQUEST_INTERVAL:
            self._request()

    def renew(self) -> None:
        """Forget the id, which may be that of a deleted topic, and wait briefly for a new response."""
        self.topic_id = None
        self._request()
        self._receive(self._renew_timeout)

    def invalidate(self) -> None:
        """The client has reported that the topic cannot be read: only the response to a new request is valid."""
        self.readable = False
        self._request()

    def set_sasl_credentials(self, username: str, password: str, /) -> None:
        self._admin.set_sasl_credentials(username, password)

    def close(self) -> None:
        """Release the client in this thread: garbage-collected in its own thread, it would abort the process."""
        del self._admin

    def _request(self) -> None:
        self._last_request = self._clock()
        responses = self._admin.describe_topics(
            TopicCollection([self._topic]), include_authorized_operations=True, request_timeout=10
        )
        self._response = responses[self._topic]

    def _receive(self, timeout: float) -> None:
        if self._response is None:
            return
        try:
            description = self._response.result(timeout)
        except TimeoutError:
            return
        except KafkaException as error:
            self._on_error(error.args[0].code())
        else:
            self._on_description(description)
        self._response = None

    def _on_description(self, description: Any) -> None:
        if description.topic_id is not None and str(description.topic_id) != NO_ID:
            self.topic_id = str(description.topic_id)
        operations = description.authorized_operations or ()
        self.readable = AclOperation.READ in operations
        denied = operations and not self.readable
        self.failure = f"topic {self._topic}: not authorized to read it" if denied else None

    def _on_error(self, code: int) -> None:
        """Any other error says nothing about the topic, and the attributes are kept."""
        if code in UNREADABLE:
            self.readable = False
            self.failure = f"topic {self._topic}: {UNREADABLE[code]}"
