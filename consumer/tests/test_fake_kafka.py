"""The fake Kafka passes the contract of the real one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from src.settings import KafkaSettings
from tests.fake_kafka import FakeAdmin, FakeConsumer, FakeTopic
from tests.group_member_contract import Group, GroupMemberContract, Member


class FakeGroup(Group):
    """A group whose only member is assigned all partitions when it joins."""

    def __init__(self) -> None:
        super().__init__()
        self._topic = FakeTopic({0: [], 1: []})

    def produce(self, values: Sequence[bytes], partition: int = 0) -> None:
        self._topic.logs[partition] += values

    def commit(self, offset: int, partition: int = 0, topic_id: str = "") -> None:
        self._topic.committed[partition] = (offset, topic_id)

    def new_member(self, **options: Any) -> Member:
        clients: list[FakeConsumer] = []

        def new_client(settings: Mapping[str, Any]) -> FakeConsumer:
            clients.append(FakeConsumer(self._topic, settings))
            return clients[0]

        member = Member(KafkaSettings(), client=new_client, admin=lambda _settings: FakeAdmin(), **options)
        clients[0].report_statistics()
        clients[0].assign(*self._topic.logs)
        return member


class TestFakeKafka(GroupMemberContract):
    @pytest.fixture
    def group(self) -> Iterator[Group]:
        group = FakeGroup()
        yield group
        group.leave()
