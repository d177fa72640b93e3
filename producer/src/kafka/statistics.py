"""Whether a broker is reachable and the topic exists, from librdkafka's statistics and error events. No client here."""

import json

import msgspec

DEFAULT_SERVERS = "kafka:9092"
NOT_CONNECTED_YET = "not connected yet"

_COMPOSE_HINT = (
    "; this name resolves only inside Docker Compose; elsewhere set KAFKA_BOOTSTRAP_SERVERS, e.g. localhost:29092"
)


class _Topic(msgspec.Struct):
    partitions: dict[str, msgspec.Raw]


class _Statistics(msgspec.Struct):
    brokers: msgspec.Raw
    topics: dict[str, _Topic] = {}


_decode = msgspec.json.Decoder(_Statistics).decode


class ClusterStatistics:
    """Updated by the client's callbacks, read by the health check from another thread."""

    def __init__(self, servers: str, topic: str) -> None:
        self._servers = servers
        self._topic = topic
        self._topic_missing: bool | None = None  # None until the client has a message to send
        self._last_error: str | None = NOT_CONNECTED_YET
        self._up = False  # at least one broker, in the latest statistics

    @property
    def unavailable_reason(self) -> str | None:
        """Why no broker is reachable; None while at least one is."""
        error = None if self._up else self._last_error
        return error and f"broker {self._servers}: {error}"

    @property
    def topic_failure(self) -> str | None:
        """Why messages wait, although a broker is reachable: the topic has not been found since the start."""
        return f"topic {self._topic}: not found yet" if self._topic_missing else None

    def record_delivery(self) -> None:
        """A broker has acknowledged a message, possibly before the first statistics."""
        self._topic_missing = False
        if self._last_error == NOT_CONNECTED_YET:
            self._last_error = None

    def record_error(self, text: str, *, unresolved: bool = False) -> str:
        """Remember why a broker is unreachable; returns it, with the remedy where that is known."""
        error = text + (_COMPOSE_HINT if unresolved and self._servers == DEFAULT_SERVERS else "")
        self._last_error = error
        return error

    def record_all_brokers_down(self) -> None:
        """The client reports this before the next statistics."""
        self._up = False

    def update(self, statistics: str | bytes) -> None:
        """Process librdkafka's statistics, a JSON document.

        A client connects to the brokers behind the bootstrap address only when it has something to send. Knowing their
        addresses is therefore enough until the first error; after that, one of them must be connected.
        """
        decoded = _decode(statistics)
        states = _broker_states(decoded.brokers)
        self._up = "UP" in states
        if self._up or (states and self._last_error == NOT_CONNECTED_YET):
            self._last_error = None
        if self._topic_missing is not False and self._topic in decoded.topics:
            self._topic_missing = "0" not in decoded.topics[self._topic].partitions


def _broker_states(brokers: msgspec.Raw) -> set[str]:
    """The states of the brokers with an id.

    After an outage librdkafka may list a broker twice under the same name, once connected and once not. A dictionary
    would keep the last one only.
    """
    listed = (dict(fields) for _, fields in json.loads(bytes(brokers), object_pairs_hook=list))
    return {broker["state"] for broker in listed if broker["nodeid"] >= 0}
