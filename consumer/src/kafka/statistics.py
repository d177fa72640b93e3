"""The state of the cluster and the group, from librdkafka's statistics and error events. No Kafka here."""

import json
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from src.model.position import TopicPartition

DEFAULT_SERVERS = "kafka:9092"


class Watermarks(NamedTuple):
    """The offset of a partition's oldest message, and the one after its newest; None while unknown."""

    low: int | None
    high: int | None


class _Partition(msgspec.Struct):
    lo_offset: int
    ls_offset: int


class _Topic(msgspec.Struct):
    partitions: dict[str, _Partition]


class _Group(msgspec.Struct):
    join_state: str


class _Statistics(msgspec.Struct):
    brokers: msgspec.Raw
    topics: dict[str, _Topic]
    cgrp: _Group | None = None


_decode = msgspec.json.Decoder(_Statistics).decode


class ClusterStatistics:
    """Updated by the client's callbacks; safe to read from any thread."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._connected = False
        self._last_error = "not connected yet"
        self._watermarks: Mapping[TopicPartition, Watermarks] = {}
        self._latest: Mapping[TopicPartition, int] = {}
        self.joined = False
        self.in_group = False
        """As of the last statistics; `joined` stays true during a rebalance."""

    @property
    def unreachable(self) -> str | None:
        """Why no broker can be reached; None while one is connected."""
        return None if self._connected else f"broker {self._servers}: {self._last_error}"

    def watermarks(self, partition: TopicPartition) -> Watermarks:
        low, high = self._watermarks.get(partition, Watermarks(None, None))
        return Watermarks(low, max(high or 0, self._latest[partition]) if partition in self._latest else high)

    def set_latest(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Set looked-up high watermarks: those of the statistics do not change while nothing is fetched."""
        self._latest = offsets

    def clear_latest(self) -> None:
        """Use the high watermarks of the statistics again."""
        self._latest = {}

    def record_error(self, text: str, *, unresolved: bool = False) -> str:
        """Keep the reason why a broker is unreachable; returns it, with advice if there is any."""
        advice = ""
        if unresolved and self._servers == DEFAULT_SERVERS:
            advice = (
                "; this name exists inside docker compose only: elsewhere set KAFKA_BOOTSTRAP_SERVERS,"
                " e.g. localhost:29092"
            )
        self._last_error = text + advice
        return self._last_error

    def update(self, document: str | bytes) -> None:
        """Read librdkafka's statistics, a JSON document."""
        statistics = _decode(document)
        self._connected = "UP" in _broker_states(statistics.brokers)
        self.in_group = statistics.cgrp is not None and statistics.cgrp.join_state == "steady"
        self.joined = self.joined or self.in_group
        self._watermarks = {
            TopicPartition(name, int(number)): Watermarks(_known(partition.lo_offset), _known(partition.ls_offset))
            for name, topic in statistics.topics.items()
            for number, partition in topic.partitions.items()
        }


def _broker_states(brokers: msgspec.Raw) -> set[str]:
    """The states of the brokers with an id.

    After an outage librdkafka may list a broker twice under the same name, once connected and once not. A dictionary
    would keep the last one only.
    """
    listed = (dict(fields) for _, fields in json.loads(bytes(brokers), object_pairs_hook=list))
    return {broker["state"] for broker in listed if broker["nodeid"] >= 0}


def _known(offset: int) -> int | None:
    return offset if offset >= 0 else None
