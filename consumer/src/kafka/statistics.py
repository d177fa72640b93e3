"""What the Kafka client tells of the cluster, from its statistics and its error events. No Kafka here."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

DEFAULT_SERVERS = "kafka:9092"


class Watermarks(NamedTuple):
    """The first offset of a partition and the one after its last; None while unknown."""

    low: int | None
    high: int | None


class _Broker(msgspec.Struct):
    state: str
    nodeid: int


class _Partition(msgspec.Struct):
    lo_offset: int
    ls_offset: int


class _Topic(msgspec.Struct):
    partitions: dict[str, _Partition]


class _Group(msgspec.Struct):
    join_state: str


class _Statistics(msgspec.Struct):
    brokers: dict[str, _Broker]
    topics: dict[str, _Topic]
    cgrp: _Group | None = None


_decode = msgspec.json.Decoder(_Statistics).decode


class ClusterStatistics:
    """Kept up to date by the client's callbacks, read by the health check from another thread."""

    def __init__(self, servers: str, topic: str) -> None:
        self._servers = servers
        self._topic = topic
        self._reached = False
        self._complaint = "not connected yet"
        self._ends: Mapping[int, Watermarks] = {}
        self._told: Mapping[int, int] = {}
        self.joined = False
        self.in_group = False
        """Whether it was so in the last statistics; `joined` outlives a rebalance."""

    @property
    def trouble(self) -> str | None:
        """Why no broker can be reached; None while one is."""
        return None if self._reached else f"broker {self._servers}: {self._complaint}"

    def ends(self, partition: int) -> Watermarks:
        low, high = self._ends.get(partition, Watermarks(None, None))
        return Watermarks(low, max(high or 0, self._told[partition]) if partition in self._told else high)

    def tell_ends(self, ends: Mapping[int, int]) -> None:
        """The statistics' own stand still while nothing is fetched."""
        self._told = ends

    def fetching(self) -> None:
        self._told = {}

    def complain(self, text: str, *, unresolved: bool = False) -> str:
        """Remember why a broker could not be reached; returns it, with the mend where that is known."""
        hint = ""
        if unresolved and self._servers == DEFAULT_SERVERS:
            hint = (
                "; that is its name inside docker compose: elsewhere set KAFKA_BOOTSTRAP_SERVERS, e.g. localhost:29092"
            )
        self._complaint = text + hint
        return self._complaint

    def update(self, statistics: str | bytes) -> None:
        """Take in librdkafka's statistics, a JSON document."""
        told = _decode(statistics)
        self._reached = any(broker.state == "UP" for broker in told.brokers.values() if broker.nodeid >= 0)
        self.in_group = told.cgrp is not None and told.cgrp.join_state == "steady"
        self.joined = self.joined or self.in_group
        topic = told.topics.get(self._topic)
        if topic is not None:
            self._ends = {
                int(number): Watermarks(_known(partition.lo_offset), _known(partition.ls_offset))
                for number, partition in topic.partitions.items()
            }


def _known(offset: int) -> int | None:
    return offset if offset >= 0 else None
