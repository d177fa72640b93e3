"""Undelivered messages: the folder returns them byte for byte, and recognizes damaged lines."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fuzz.strategies import KafkaMessage, damaged, kafka_messages, texts
from src.model.delivery_failure import DeliveryFailure, Fault
from src.model.message import ProducerRecord
from src.undelivered.folder import UndeliveredFolder
from src.undelivered.record import from_line, to_line
from src.undelivered.segments import segment_paths

TOPIC = "data-topic"


def _failure(message: KafkaMessage, fault: Fault, reason: str) -> DeliveryFailure:
    return DeliveryFailure(ProducerRecord(message.key, message.value, list(message.headers)), fault, reason)


failures = st.builds(_failure, kafka_messages, st.sampled_from(Fault), texts)


@given(st.lists(failures, max_size=10))
def test_undelivered_messages_come_back_from_their_folder(failures: Sequence[DeliveryFailure]) -> None:
    with tempfile.TemporaryDirectory(prefix="fuzz_") as folder:
        UndeliveredFolder(Path(folder), TOPIC).append(failures)

        lines = [line for path in segment_paths(Path(folder)) for line in path.read_bytes().splitlines(keepends=True)]

    records = [record for record in map(from_line, lines) if record is not None]
    assert [(each.producer_record, each.topic, each.reason) for each in records] == [
        (failure.record, TOPIC, failure.reason) for failure in failures
    ]


@given(failures, st.data())
def test_a_torn_or_damaged_line_raises_nothing(failure: DeliveryFailure, data: st.DataObject) -> None:
    line = to_line(failure, TOPIC, "2023-07-15T12:34:56.789Z")

    from_line(data.draw(damaged(st.just(line))))

    for torn in (line[:-1], line[: len(line) // 2], line[:1], b""):
        assert from_line(torn) is None
