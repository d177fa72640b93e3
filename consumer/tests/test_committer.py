"""Dead-lettering stops before the last commit of a revoked partition."""

from collections.abc import Sequence
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from prometheus_client import CollectorRegistry

from src.kafka.assignment import Assignment, Start
from src.kafka.committer import OffsetCommitter
from src.utils.logging import RepeatedWarnings
from src.utils.metrics import ConsumerMetrics
from tests.fakes import P0, TOPIC, record


class SlowClient:
    """Records whether the partition is still owned during its last commit."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self.committed: list[tuple[int, int]] = []
        self.owned_meanwhile: bool | None = None

    def commit(self, offsets: Sequence[TopicPartition], *, asynchronous: bool) -> Any:
        assert not asynchronous
        self.committed += [(position.partition, position.offset) for position in offsets]
        self.owned_meanwhile = self._assignment.owns(record(1))
        return offsets


def test_nothing_more_is_dead_lettered_during_the_last_commit_of_a_partition() -> None:
    assignment = Assignment()
    client = SlowClient(assignment)
    metrics = ConsumerMetrics(CollectorRegistry(), version="1", dead_letter_reasons=())
    committer = OffsetCommitter(
        cast(Consumer, client),
        assignment,
        metrics,
        topic_id=lambda _topic: None,
        interval=1.0,
    )
    assignment.assign({P0: Start()})
    assignment.settle(assignment.track([record(0)]))

    committer.revoke([P0])

    assert client.committed == [(0, 1)]
    assert client.owned_meanwhile is False


def test_a_commit_that_is_rejected_again_and_again_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    assignment = Assignment()
    metrics = ConsumerMetrics(CollectorRegistry(), version="1", dead_letter_reasons=())
    client = cast(Consumer, SlowClient(assignment))
    committer = OffsetCommitter(client, assignment, metrics, topic_id=lambda _topic: None, interval=1.0)
    now = 0.0
    repeated = RepeatedWarnings(lambda: now)

    for now in range(90):
        committer.on_commit(KafkaError(KafkaError.REBALANCE_IN_PROGRESS), [TopicPartition(TOPIC, 0, now)])

    logged = [record for record in caplog.records if repeated.filter(record)]
    assert [record.getMessage() for record in logged] == ["commit rejected, will be retried"]
