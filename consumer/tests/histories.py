"""Messages of a few ids in a few partitions, and what consumers may do with them before all are settled."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from hypothesis import strategies as st

from src.model.record import Record
from src.settings import DocumentSettings
from src.storage import DataStorage, Store
from src.stores.document import DocumentBatch, origin

Message = dict[str, Any]
Keyed = tuple[str, int, int, Message | None]
"""Key, partition, offset and fields; None is a tombstone."""

NOON = 1_689_424_500_000
COORDINATES = st.builds(
    lambda topic, partition, offset, time: origin(Record(topic, partition, offset, None, b"", timestamp=time), NOON),
    st.sampled_from("tu"),
    st.integers(0, 1),
    st.integers(0, 2) | st.just(2**40),
    st.none() | st.integers(NOON, NOON + 2),
)


def keyed(mode: str) -> DocumentSettings:
    return DocumentSettings(id="key", write=mode, on_tombstone="delete")  # type: ignore[arg-type]


def batch_of(messages: Sequence[Keyed]) -> DocumentBatch:
    """A message is as old as its offset."""
    return DocumentBatch(
        [{"_id": key, **(fields or {})} for key, _, _, fields in messages],
        [
            Record("t", partition, offset, key.encode(), None if fields is None else b"", (), NOON + offset)
            for key, partition, offset, fields in messages
        ],
        NOON,
    )


@dataclass
class History:
    """`logs` has the key, timestamp and fields of each message of a partition; `deliveries` are batches of ranges of
    the partitions, of which each begins where a consumer had committed, or before: after a crash, or because it was
    frozen."""

    mode: str
    logs: list[list[tuple[str, int | None, Message | None]]]
    deliveries: list[list[tuple[int, int, int, bool]]]
    run: str = field(default_factory=lambda: uuid4().hex)

    def deliver_to(self, store: Store) -> None:
        storage = DataStorage({}, keyed(self.mode), store=store)
        positions = [0] * len(self.logs)
        for delivery in self.deliveries:
            records = []
            for partition, back, count, committed in delivery:
                start = max(0, positions[partition] - back)
                records += self._records(partition, start, start + count)
                if committed:
                    positions[partition] = max(positions[partition], min(start + count, len(self.logs[partition])))
            self._save(storage, records)
        for partition, position in enumerate(positions):
            self._save(storage, self._records(partition, position, len(self.logs[partition])))

    def stored_in(self, store: Store) -> dict[str, Message]:
        storage = DataStorage({}, keyed(self.mode), store=store)
        ids = [f"{self.run}-{key}" for log in self.logs for key, *_ in log]
        return {
            found.pop("_id").partition("-")[2]: {**found, "kafka": found["kafka"]["offset"]}
            for found in storage.get({"_id": {"$in": ids}})
        }

    def expected(self) -> dict[str, Message]:
        """What the messages make of an empty collection, one after the other, the oldest first."""
        documents: dict[str, Message] = {}
        messages = [
            (timestamp is not None, timestamp, partition, offset, key, fields)
            for partition, log in enumerate(self.logs)
            for offset, (key, timestamp, fields) in enumerate(log)
        ]
        for *_, offset, key, fields in sorted(messages, key=lambda each: each[:4]):
            before = documents.pop(key, {}) if self.mode == "merge" else {}
            documents.pop(key, None)
            if fields is not None:
                documents[key] = {**before, **fields, "kafka": offset}
        return documents

    def _records(self, partition: int, start: int, end: int) -> list[tuple[Record, Message]]:
        return [
            (
                Record("t", partition, offset, b"", None if fields is None else b"", (), timestamp),
                {"_id": f"{self.run}-{key}", **(fields or {})},
            )
            for offset, (key, timestamp, fields) in enumerate(self.logs[partition])
            if start <= offset < end
        ]

    def _save(self, storage: DataStorage, records: Sequence[tuple[Record, Message]]) -> None:
        batch = DocumentBatch([document for _, document in records], [record for record, _ in records], NOON)
        assert {verdict.outcome.name for verdict in storage.save_valid(batch)} <= {"STORED", "DUPLICATE"}


@st.composite
def histories(draw: st.DrawFn) -> History:
    """For `merge`, all messages of a key are in one partition. No partition's timestamps decrease."""
    mode = draw(st.sampled_from(["replace", "merge"]))
    partitions = range(draw(st.integers(1, 3)))
    fields = st.none() | st.dictionaries(st.sampled_from("abc"), st.integers(0, 9), max_size=2)
    logs = []
    for partition in partitions:
        timestamp = draw(st.none() | st.just(NOON))
        log: list[tuple[str, int | None, Message | None]] = []
        for key, later, value in draw(
            st.lists(st.tuples(st.sampled_from("xy"), st.integers(0, 2), fields), min_size=1, max_size=6)
        ):
            timestamp = None if timestamp is None else timestamp + later
            log.append((key if mode == "replace" else f"{key}{partition}", timestamp, value))
        logs.append(log)
    ranges = st.tuples(st.sampled_from(partitions), st.integers(0, 6), st.integers(1, 6), st.booleans())
    return History(mode, logs, draw(st.lists(st.lists(ranges, min_size=1, max_size=3), max_size=6)))
