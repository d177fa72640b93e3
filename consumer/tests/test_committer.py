"""What is committed, and when."""

from collections.abc import Mapping
from threading import Event

from prometheus_client import CollectorRegistry

from src.kafka.assignment import OffsetTracker
from src.kafka.committer import Settlement
from src.pipeline.batch_writer import BatchWriter, WriterOptions
from src.pipeline.writer_thread import WriterThread
from src.utils.metrics import ConsumerMetrics
from tests.fakes import TOPIC, FakeDeadLetters, FakeProcessor, FakeSource, FakeStorage, record


class SlowToAnswer(FakeSource):
    """Notes whether the partition still counts as ours while its last commit is answered."""

    def __init__(self, tracker: OffsetTracker) -> None:
        super().__init__()
        self._tracker = tracker
        self.ours_meanwhile: bool | None = None

    def commit_now(self, offsets: Mapping[int, int]) -> None:
        self.ours_meanwhile = self._tracker.owns(record(1))
        super().commit_now(offsets)


def test_while_the_last_commit_of_a_partition_is_answered_nothing_more_of_it_is_parked() -> None:
    tracker = OffsetTracker()
    source = SlowToAnswer(tracker)
    writer = BatchWriter(FakeProcessor(), FakeStorage(), FakeDeadLetters(), WriterOptions(max_retries=0), stop=Event())
    metrics = ConsumerMetrics(CollectorRegistry(), version="1", dead_letter_reasons=())
    settlement = Settlement(source, WriterThread(writer), metrics, topic=TOPIC, commit_every=1.0, tracker=tracker)
    source.subscribe(settlement)
    settlement.assigned({0: None}, 1)
    settlement.take([record(0)])
    settlement.settle([writer.write([record(0)])])

    settlement.revoking([0])

    assert source.committed == {0: 1}
    assert source.ours_meanwhile is False
