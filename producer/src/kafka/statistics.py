"""What the Kafka client tells of the cluster, from its statistics and its error events. No Kafka here."""

import msgspec

DEFAULT_SERVERS = "kafka:9092"
NOT_CONNECTED_YET = "not connected yet"

_ELSEWHERE = "; that is its name inside docker compose: elsewhere set KAFKA_BOOTSTRAP_SERVERS, e.g. localhost:29092"


class _Broker(msgspec.Struct):
    state: str
    nodeid: int


class _Statistics(msgspec.Struct):
    brokers: dict[str, _Broker]


_decode = msgspec.json.Decoder(_Statistics).decode


class ClusterStatistics:
    """UndeliveredRecord up to date by the client's callbacks, read by the health check from another thread."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._complaint: str | None = NOT_CONNECTED_YET
        self._up = False  # a broker was, in the last statistics

    @property
    def trouble(self) -> str | None:
        """Why no broker can be reached; None while one is, though others may be away."""
        complaint = None if self._up else self._complaint
        return complaint and f"broker {self._servers}: {complaint}"

    def answered(self) -> None:
        """A broker has confirmed something, which may be before the first statistics."""
        if self._complaint == NOT_CONNECTED_YET:
            self._complaint = None

    def complain(self, text: str, *, unresolved: bool = False) -> str:
        """Remember why one of the brokers could not be reached; returns it, with the mend where that is known."""
        complaint = text + (_ELSEWHERE if unresolved and self._servers == DEFAULT_SERVERS else "")
        self._complaint = complaint
        return complaint

    def all_are_away(self) -> None:
        """The client has found it out before the next statistics."""
        self._up = False

    def update(self, statistics: str | bytes) -> None:
        """Take in librdkafka's statistics, a JSON document.

        A client connects to the brokers behind the bootstrap address only when it has something to send, so to know
        them is enough until the first complaint; from then on a connection is asked for.
        """
        states = {broker.state for broker in _decode(statistics).brokers.values() if broker.nodeid >= 0}
        self._up = "UP" in states
        if self._up or (states and self._complaint == NOT_CONNECTED_YET):
            self._complaint = None
