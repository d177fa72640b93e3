"""Topics on a real Kafka, for tests."""

from collections.abc import Mapping
from concurrent.futures import Future, wait
from threading import Event
from time import monotonic
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

PATIENCE = 60.0  # seconds to wait for a broker


class Topics:
    """Creates topics, and changes them as an administrator would."""

    def __init__(self, servers: str, group_protocol: str = "classic") -> None:
        self.servers = servers
        self.group_protocol = group_protocol
        self._admin = AdminClient({"bootstrap.servers": servers})

    def create(self, name: str, partitions: int = 4, **config: str) -> None:
        """Retries, because the deletion of a topic of that name may still be in progress."""
        tick, deadline = Event(), monotonic() + PATIENCE
        while not self._created(NewTopic(name, partitions, 1, config=config)):
            assert monotonic() < deadline, f"cannot create {name}"
            tick.wait(0.1)

    def delete(self, *names: str) -> None:
        self._done(self._admin.delete_topics(list(names), operation_timeout=PATIENCE))

    def add_partitions(self, name: str, partitions: int) -> None:
        self._done(self._admin.create_partitions([NewPartitions(name, partitions)]))

    def name(self) -> str:
        return f"test-{uuid4().hex[:12]}"

    def _created(self, topic: NewTopic) -> bool:
        try:
            self._done(self._admin.create_topics([topic]))
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
            return False
        return True

    def _done(self, results: Mapping[str, Future[None]]) -> None:
        futures = list(results.values())
        wait(futures, PATIENCE)
        for future in futures:
            future.result()


@pytest.fixture
def topics(kafka_servers: str) -> Topics:
    return Topics(kafka_servers)
