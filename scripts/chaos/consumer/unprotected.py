"""The consumer's parts, each without one protection: a scenario must fail with it. Not part of the service."""

import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from threading import Event
from typing import Any, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    TopicCollection,
)
from confluent_kafka import TopicPartition as PartitionOffset
from confluent_kafka.admin import AdminClient
from msgspec.structs import replace

from src.data_processor import DataProcessor
from src.dead_letters.topic import DeadLetterTopic
from src.kafka.assignment import Assignment, Start
from src.kafka.group_member import GroupMember
from src.kafka.messages import partition_of
from src.model.errors import DeadLetterError, InvalidMessage, StorageUnavailable
from src.model.position import TopicPartition
from src.model.record import Record, Rejection
from src.model.verdict import Outcome, Verdict
from src.pipeline.batch_writer import BatchWriter
from src.pipeline.storm_guard import StormGuard
from src.settings import DocumentSettings, KafkaSettings, MongoSettings, Settings, StoreUri
from src.storage import DataStorage
from src.storage_router import StorageRouter, open_storage
from src.stores.document import DocumentBatch, Schema
from src.stores.mongo.errors import WriteResponse
from src.stores.mongo.store import MongoStore
from src.stores.mongo.upserts import Upsert

DELAY = 2.0  # seconds

Kind = TypeVar("Kind")


# -- the store


class WithoutDeduplication(DataStorage):
    """Stores a duplicate again, as it would be with random ids."""

    def save_valid(self, batch: DocumentBatch) -> list[Verdict]:
        verdicts = super().save_valid(batch)
        duplicates = [batch.fields(i) for i, verdict in enumerate(verdicts) if verdict.outcome is Outcome.DUPLICATE]
        if duplicates:
            super().save_many([{**document, "id": str(uuid.uuid4())} for document in duplicates])
        return verdicts


class WithoutRetry(DataStorage):
    """Rejects documents while the store is unavailable."""

    def save_valid(self, batch: DocumentBatch) -> list[Verdict]:
        try:
            verdicts = super().save_valid(batch)
        except StorageUnavailable as error:
            return [Verdict(Outcome.REJECTED, "write_error", error)] * len(batch.documents)
        deferred = Outcome.DEFERRED
        return [each._replace(outcome=Outcome.REJECTED) if each.outcome is deferred else each for each in verdicts]


class WithoutMajority(DataStorage):
    """Is content with the acknowledgement of the primary."""

    def __init__(self, config: MongoSettings, document: DocumentSettings) -> None:
        super().__init__(replace(config, uri=StoreUri(f"{config.uri.reveal()}&w=1")), document)


class UnconfirmedStore(MongoStore):
    """Ignores the errors of the write concern."""

    def _send(self, documents: Sequence[Mapping[str, Any]]) -> WriteResponse:
        return super()._send(documents)._replace(write_concern_errors=())

    def _bulk_write(self, writes: Sequence[Upsert]) -> WriteResponse:
        return super()._bulk_write(writes)._replace(write_concern_errors=())


class WithoutConfirmedWrites(DataStorage):
    def __init__(self, config: MongoSettings, document: DocumentSettings) -> None:
        super().__init__(config, document, store=UnconfirmedStore(config, Schema(document)))


class WithoutRouting(StorageRouter):
    """Stores a batch in the collection of its first message."""

    def save_valid(self, batch: DocumentBatch) -> list[Verdict]:
        [first, *_] = batch.records
        return self.of(first.topic if first else "").save_valid(batch)


class WithoutOrder(DataStorage):
    """Takes every message for the newest."""

    def save_valid(self, batch: DocumentBatch) -> list[Verdict]:
        newest = time.time_ns()
        records = [record and replace(record, offset=newest + index) for index, record in enumerate(batch.records)]
        return super().save_valid(batch._replace(records=records))


# -- the dead letters


class WithoutConfirmation(DeadLetterTopic):
    """Dead letters are sent later, and not confirmed."""

    def __init__(self, settings: KafkaSettings) -> None:
        super().__init__(settings)
        self._sender = ThreadPoolExecutor(max_workers=1)

    def send(self, rejections: Sequence[Rejection]) -> None:
        self._sender.submit(self._send_late, rejections)

    def _send_late(self, rejections: Sequence[Rejection]) -> None:
        Event().wait(DELAY)
        super().send(rejections)

    def close(self) -> None:
        self._sender.shutdown(wait=False, cancel_futures=True)


class WithoutDeadLettering(DeadLetterTopic):
    """Drops what cannot be stored."""

    def send(self, rejections: Sequence[Rejection]) -> None:
        """Nothing is sent."""


class WithoutDeadLetterRetry(DeadLetterTopic):
    """Does not send a dead letter again after an error."""

    def send(self, rejections: Sequence[Rejection]) -> None:
        try:
            super().send(rejections)
        except DeadLetterError:
            return


# -- the processing


class WithoutUnknownFields(DataProcessor):
    """A field that is not in the specification makes a message invalid."""

    def check(self, message: Mapping[str, Any]) -> dict[str, Any] | None:
        if message.keys() - {"id", "name", "created_at", "metadata"}:
            raise InvalidMessage("unknown_field", "a field is not known")
        return super().check(message)


# -- the dead-letter storms


class CountingTogether(StormGuard):
    """Treats all partitions as one."""

    def _partition(self, record: Record) -> TopicPartition:
        return TopicPartition(record.topic, 0)


class WithoutPartitions(BatchWriter):
    guard = CountingTogether


# -- the group member


class WithoutCommitOnRevoke(GroupMember):
    """Does not commit before a partition is revoked."""

    def _on_revoke(self, client: Consumer, positions: list[PartitionOffset]) -> None:
        self._on_lost(client, positions)


class CommittingFirst(WithoutCommitOnRevoke):
    """Commits what was read before it is stored."""

    def poll(self, limit: int, timeout: float) -> Sequence[Record]:
        records = super().poll(limit, timeout)
        if records:
            ends = {record.topic_partition: record.offset + 1 for record in records}
            positions = [PartitionOffset(*partition, offset) for partition, offset in ends.items()]
            with suppress(KafkaException):
                self._client.commit(offsets=positions, asynchronous=False)
        return records

    def commit_if_due(self) -> None:
        """Already committed."""


class IgnoringNumbers(Assignment):
    """Treats a partition that was assigned again as one that was never lost."""

    def assign(self, starts: Mapping[TopicPartition, Start]) -> None:
        super().assign({partition: start for partition, start in starts.items() if partition not in self})

    def owns(self, record: Record) -> bool:
        return record.topic_partition in self

    def settle(self, records: Iterable[Record]) -> None:
        super().settle(
            replace(record, assignment=self[record.topic_partition].number)
            for record in records
            if record.topic_partition in self
        )


class WithoutAssignmentNumbers(GroupMember):
    """Keeps the state of lost partitions."""

    def __init__(self, *settings: Any, **collaborators: Any) -> None:
        super().__init__(*settings, **collaborators, assignment=IgnoringNumbers())

    def _on_lost(self, client: Consumer, positions: list[PartitionOffset]) -> None:
        client.incremental_unassign(positions)
        self._report("lost", [partition_of(position) for position in positions])


class StartingAtLatest(Consumer):
    """Reads a partition without a committed offset from the latest offset."""

    def offsets_for_times(self, partitions: list[PartitionOffset], timeout: float = -1.0) -> list[PartitionOffset]:
        """Returns the latest offset in place of the earliest."""
        for partition in partitions:
            if partition.offset == OFFSET_BEGINNING:
                partition.offset = OFFSET_END
        return super().offsets_for_times(partitions, timeout)


class WithoutTopicIds:
    """An admin client that gets no topic ids."""

    def __init__(self, _settings: Mapping[str, Any]) -> None:
        """No connection."""

    def describe_topics(self, topics: TopicCollection, /, **_: Any) -> dict[str, Future[Any]]:
        nameless: Future[Any] = Future()
        nameless.set_exception(KafkaException(KafkaError(KafkaError._UNSUPPORTED_FEATURE)))
        return dict.fromkeys(topics.topic_names, nameless)


STORAGES: Mapping[str, type[DataStorage]] = {
    "deduplication": WithoutDeduplication,
    "retry-while-unavailable": WithoutRetry,
    "majority": WithoutMajority,
    "confirmed-writes": WithoutConfirmedWrites,
    "newest-wins": WithoutOrder,
}
DEAD_LETTERS: Mapping[str, type[DeadLetterTopic]] = {
    "dead-letter-confirmation": WithoutConfirmation,
    "dead-lettering": WithoutDeadLettering,
    "dead-letter-retry": WithoutDeadLetterRetry,
}
PROCESSORS: Mapping[str, type[DataProcessor]] = {"unknown-fields": WithoutUnknownFields}
WRITERS: Mapping[str, type[BatchWriter]] = {"storms-by-partition": WithoutPartitions}
MEMBERS: Mapping[str, type[GroupMember]] = {
    "commit-after-store": CommittingFirst,
    "commit-on-revoke": WithoutCommitOnRevoke,
    "assignment-numbers": WithoutAssignmentNumbers,
}


def group_member(without: Collection[str]) -> Callable[..., GroupMember]:
    return partial(
        _chosen(MEMBERS, without, GroupMember),
        client=StartingAtLatest if "start-at-earliest" in without else Consumer,
        admin=WithoutTopicIds if "topic-id-check" in without else AdminClient,
    )


def storage(settings: Settings, without: Collection[str]) -> DataStorage | StorageRouter:
    kind: type[DataStorage] = _chosen(STORAGES, without, DataStorage)
    if "collection-by-topic" in without:
        return WithoutRouting(settings.mongodb, settings.kafka.known_topics, lambda each: kind(each, settings.document))
    return open_storage(settings, kind)


def dead_letters(settings: Settings, without: Collection[str]) -> DeadLetterTopic:
    kind: type[DeadLetterTopic] = _chosen(DEAD_LETTERS, without, DeadLetterTopic)
    return kind(settings.kafka)


def processor(without: Collection[str]) -> type[DataProcessor]:
    return _chosen(PROCESSORS, without, DataProcessor)


def writer(without: Collection[str]) -> type[BatchWriter]:
    return _chosen(WRITERS, without, BatchWriter)


def _chosen(kinds: Mapping[str, Kind], without: Collection[str], usual: Kind) -> Kind:
    """A part can lack one protection, not two."""
    return next((kind for name, kind in kinds.items() if name in without), usual)
