"""The fake Kafka passes the contract of the real one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from src.model.position import TopicPartition
from src.settings import KafkaSettings
from tests.fake_kafka import FakeAdmin, FakeBroker, FakeConsumer
from tests.fakes import P0, P1, TOPIC
from tests.group_member_contract import Group, GroupMemberContract, Member


class FakeGroup(Group):
    """A group whose only member is assigned all partitions when it joins."""

    def __init__(self) -> None:
        super().__init__()
        self._broker = FakeBroker({P0: [], P1: []})

    def produce(self, values: Sequence[bytes], partition: int = 0) -> None:
        self._broker.logs[TopicPartition(TOPIC, partition)] += values

    def commit(self, offset: int, partition: int = 0, topic_id: str = "") -> None:
        self._broker.committed[TopicPartition(TOPIC, partition)] = (offset, topic_id)

    def new_member(self, **options: Any) -> Member:
        clients: list[FakeConsumer] = []

        def new_client(settings: Mapping[str, Any]) -> FakeConsumer:
            clients.append(FakeConsumer(self._broker, settings))
            return clients[0]

        member = Member(KafkaSettings(), client=new_client, admin=lambda _settings: FakeAdmin(), **options)
        clients[0].report_statistics()
        clients[0].assign(*self._broker.logs)
        return member


class TestFakeKafka(GroupMemberContract):
    @pytest.fixture
    def group(self) -> Iterator[Group]:
        group = FakeGroup()
        yield group
        group.leave()
