"""What a GroupMember does on any Kafka: run on the fake client, on the embedded broker and on real brokers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, cast

from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as PartitionOffset
from prometheus_client import CollectorRegistry

from src.kafka.group_member import GroupMember, Timing
from src.kafka.retriable import retrying
from src.model.position import TopicPartition
from src.model.record import Record
from src.settings import ConsumerSettings, KafkaSettings
from src.utils.metrics import ConsumerMetrics
from src.utils.secret import ClientSettings
from tests.fakes import DEADLINE

QUICK = Timing(statistics_interval=0.1, lookup_interval=0.1)


class Member:
    """A member of the group and the records it has received. With `settling`, they are settled on revocation."""

    def __init__(self, settings: KafkaSettings, on_offset_gap: str = "stop", **collaborators: Any) -> None:
        self.registry = CollectorRegistry()
        self.records: list[Record] = []
        self.settling = False
        self.closed = False
        self._topic = settings.topic
        self.member = GroupMember(
            settings,
            ConsumerSettings(on_offset_gap=cast(Any, on_offset_gap), offset_commit_frequency_ms=10),
            ConsumerMetrics(self.registry, version="1", dead_letter_reasons=()),
            **{"timing": QUICK, **collaborators},
        )
        self.assignment = self.member.assignment
        self.member.subscribe(self._before_revoke)

    @property
    def offsets(self) -> list[int]:
        return [record.offset for record in self.records]

    @property
    def values(self) -> set[bytes | None]:
        return {record.value for record in self.records}

    def poll(self) -> None:
        self.records += self.member.poll(500, 0.05)

    def settle(self) -> None:
        self.assignment.settle(self.records)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.member.close()

    def at(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)

    def hold(self, *partitions: int) -> None:
        self.member.hold(frozenset(map(self.at, partitions)))

    def _before_revoke(self) -> None:
        if self.settling:
            self.settle()


class Group(ABC):
    """A topic of two partitions and the group that reads it."""

    def __init__(self) -> None:
        self.members: list[Member] = []

    @abstractmethod
    def produce(self, values: Sequence[bytes], partition: int = 0) -> None: ...

    @abstractmethod
    def commit(self, offset: int, partition: int = 0, topic_id: str = "") -> None:
        """As another program would."""

    @abstractmethod
    def new_member(self, **options: Any) -> Member: ...

    def join(self, **options: Any) -> Member:
        member = self.new_member(**options)
        self.members.append(member)
        return member

    def until(self, condition: Callable[[], object], seconds: float = DEADLINE) -> None:
        """Let every member poll, and commit, until the condition holds."""
        deadline = monotonic() + seconds
        while not condition():
            assert monotonic() < deadline, "the condition did not come to hold"
            for member in self.members:
                member.poll()
                member.member.commit_if_due()

    def leave(self) -> None:
        while self.members:
            self.members.pop().close()


class GroupOnServers(Group):
    """On a broker, embedded or real."""

    def __init__(
        self,
        servers: str,
        topic: str,
        client: Mapping[str, Any],
        group_protocol: str = "classic",
        *,
        seconds: float = DEADLINE,
    ) -> None:
        super().__init__()
        self.group_protocol = group_protocol
        self.servers = servers
        self.topic = topic
        self._client = client
        self._seconds = seconds

    def produce(self, values: Sequence[bytes], partition: int = 0, *, topic: str = "", **message: Any) -> None:
        producer = Producer({"bootstrap.servers": self.servers})
        for value in values:
            producer.produce(topic or self.topic, value, partition=partition, **message)
        assert producer.flush(self._seconds) == 0

    def commit(self, offset: int, partition: int = 0, topic_id: str = "") -> None:
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": self.topic})
        offsets = [PartitionOffset(self.topic, partition, offset, topic_id)]
        retrying()(lambda: consumer.commit(offsets=offsets, asynchronous=False))
        consumer.close()

    def new_member(
        self,
        client_settings: Mapping[str, Any] | None = None,
        topics: Sequence[str] = (),
        group_protocol: str = "",
        **options: Any,
    ) -> Member:
        settings = KafkaSettings(
            bootstrap_servers=self.servers,
            topic=self.topic,
            topics=tuple(topics),
            group_id=self.topic,
            group_protocol=cast(Any, group_protocol or self.group_protocol),
            client=ClientSettings({**self._client, **(client_settings or {})}),
        )
        return Member(settings, **options)

    def until(self, condition: Callable[[], object], seconds: float = 0.0) -> None:
        super().until(condition, seconds or self._seconds)


class GroupMemberContract:
    """Subclasses give a fixture `group`."""

    def test_a_new_group_reads_from_the_oldest_message(self, group: Group) -> None:
        group.produce([b"a", b"b"])
        member = group.join()

        group.until(lambda: len(member.records) == 2)

        assert member.offsets == [0, 1]
        assert [record.value for record in member.records] == [b"a", b"b"]
        assert sorted(member.assignment.partitions) == [member.at(0), member.at(1)]
        assert all(member.assignment.owns(record) for record in member.records)

    def test_the_group_continues_where_it_committed(self, group: Group) -> None:
        group.produce([b"a", b"b", b"c"])
        member = group.join()
        group.until(lambda: len(member.records) == 3)
        member.assignment.settle(member.records)
        group.until(lambda: not member.assignment.due())
        group.leave()
        group.produce([b"d"])

        member = group.join()
        group.until(lambda: member.records)

        assert member.offsets == [3]

    def test_unsettled_records_are_read_again_by_the_next_member(self, group: Group) -> None:
        group.produce([b"a", b"b"])
        member = group.join()
        group.until(lambda: len(member.records) == 2)
        group.leave()

        member = group.join()
        group.until(lambda: len(member.records) == 2)

        assert member.offsets == [0, 1]

    def test_records_settled_before_a_revocation_are_committed_with_it(self, group: Group) -> None:
        group.produce([b"a", b"b"])
        member = group.join()
        group.until(lambda: len(member.records) == 2)
        member.settling = True
        group.leave()
        group.produce([b"c"])

        member = group.join()
        group.until(lambda: member.records)

        assert member.offsets == [2]

    def test_while_paused_nothing_is_read_and_nothing_is_lost(self, group: Group) -> None:
        member = group.join()
        group.until(lambda: member.assignment.partitions)
        member.member.pause()
        group.produce([b"a", b"b"])
        for _ in range(10):
            member.poll()

        assert member.records == []

        member.member.resume()
        group.until(lambda: len(member.records) == 2)

    def test_partitions_that_are_assigned_during_a_pause_are_paused(self, group: Group) -> None:
        group.produce([b"a"])
        member = group.join()
        member.member.pause()
        group.until(lambda: member.assignment.partitions)
        for _ in range(10):
            member.poll()

        assert member.records == []

        member.member.resume()
        group.until(lambda: member.offsets == [0])

    def test_of_a_partition_that_is_held_nothing_is_read_and_the_others_are_not_affected(self, group: Group) -> None:
        member = group.join()
        group.until(lambda: member.assignment.partitions)
        member.hold(0)
        group.produce([b"a"])
        group.produce([b"b"], partition=1)
        group.until(lambda: member.values == {b"b"})
        member.member.pause()
        member.member.resume()
        for _ in range(10):
            member.poll()

        assert member.values == {b"b"}

        member.hold()
        group.until(lambda: member.values == {b"a", b"b"})

    def test_a_pause_continues_for_a_partition_that_is_no_longer_held(self, group: Group) -> None:
        member = group.join()
        group.until(lambda: member.assignment.partitions)
        member.hold(0)
        member.member.pause()
        member.hold()
        group.produce([b"a"])
        for _ in range(10):
            member.poll()

        assert member.records == []

        member.member.resume()
        group.until(lambda: member.offsets == [0])

    def test_the_end_of_a_partition_is_recorded_and_is_not_an_error(self, group: Group) -> None:
        group.produce([b"a"])
        member = group.join()

        group.until(lambda: member.assignment.partitions and member.assignment[member.at(0)].eof_offset == 1)

        assert member.offsets == [0]
        assert member.assignment.errors == {}

    def test_a_committed_offset_that_no_longer_exists_stops_only_its_partition(self, group: Group) -> None:
        group.produce([b"a"])
        group.produce([b"b"], partition=1)
        group.commit(1000)
        member = group.join()

        group.until(lambda: member.assignment.gaps and member.records)

        assert member.values == {b"b"}
        assert list(member.assignment.gaps) == [member.at(0)]
        assert "offset 1000 no longer exists; see consumer.on_offset_gap" in member.assignment.gaps[member.at(0)]
        assert member.assignment.gaps[member.at(0)] in member.member.readiness_failures()

    def test_with_the_policy_earliest_a_partition_is_read_from_its_oldest_message(self, group: Group) -> None:
        group.produce([b"a"])
        group.commit(1000)
        member = group.join(on_offset_gap="earliest")

        group.until(lambda: member.records)

        assert member.offsets == [0]
        assert member.assignment.gaps == {}
        assert member.assignment.owns(member.records[0])
