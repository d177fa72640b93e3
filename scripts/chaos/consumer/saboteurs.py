"""The consumer's parts without a protection each, to see that the proof notices. Nothing of this is in the service."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any, Self, TypeVar, cast

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from src.data_processor import DataProcessor
from src.dead_letters.topic import DeadLetterTopic
from src.kafka.group_member import GroupMember, Listener
from src.model.errors import DeadLetterError, InvalidMessage, StorageUnavailable
from src.model.record import Record, Rejection
from src.model.verdict import Outcome, Verdict
from src.settings import KafkaSettings, Settings
from src.storage import DataStorage

LATE = 2.0  # seconds

Kind = TypeVar("Kind")


# -- the store


class WithoutIdentity(DataStorage):
    """A message that comes again is stored again, as it would be under random ids."""

    def save_many(self, documents: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        verdicts = super().save_many(documents)
        again = [d for d, verdict in zip(documents, verdicts, strict=True) if verdict.outcome is Outcome.DUPLICATE]
        if again:
            super().save_many([{**document, "id": str(uuid.uuid4())} for document in again])
        return verdicts


class WithoutPatience(DataStorage):
    """A store that does not answer is taken for one that refuses."""

    def save_many(self, documents: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        try:
            return super().save_many(documents)
        except StorageUnavailable as error:
            return [Verdict(Outcome.REFUSED, "write_error", error)] * len(documents)


# -- the dead letters


class WithoutConfirmation(DeadLetterTopic):
    """Letters are sent a little later, and whether they arrive is nobody's concern."""

    def __init__(self, settings: KafkaSettings) -> None:
        super().__init__(settings)
        self._sender = ThreadPoolExecutor(max_workers=1)

    def send(self, rejections: Sequence[Rejection]) -> None:
        self._sender.submit(self._send_late, rejections)

    def _send_late(self, rejections: Sequence[Rejection]) -> None:
        Event().wait(LATE)
        super().send(rejections)

    def close(self) -> None:
        self._sender.shutdown(wait=False, cancel_futures=True)


class WithoutParking(DeadLetterTopic):
    """What can't be stored is dropped."""

    def send(self, rejections: Sequence[Rejection]) -> None:
        """Nothing is sent."""


class GivingUpParking(DeadLetterTopic):
    """A letter that was refused once is not sent again."""

    def send(self, rejections: Sequence[Rejection]) -> None:
        try:
            super().send(rejections)
        except DeadLetterError:
            return


# -- the processing


class WithoutLeniency(DataProcessor):
    """A field that is not in the specification makes a message invalid."""

    def check(self, message: Mapping[str, Any]) -> dict[str, Any]:
        if message.keys() - {"id", "name", "created_at", "metadata"}:
            raise InvalidMessage("unknown_field", "a field is not known")
        return super().check(message)


# -- the source


class CommittingFirst(GroupMember):
    """What was read is committed at once, before it is stored."""

    def poll(self, limit: int, timeout: float) -> list[Record]:
        records = super().poll(limit, timeout)
        if records:
            super().commit_now({record.partition: record.offset + 1 for record in records})
        return records

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Done already."""

    def commit_now(self, offsets: Mapping[int, int]) -> None:
        """Done already."""


class LeavingWithoutCommit(GroupMember):
    """A partition that goes to another member goes as it was last committed by time."""

    def commit_now(self, offsets: Mapping[int, int]) -> None:
        """Not now."""


class WithoutAssignmentNumbers(GroupMember):
    """A partition that came back counts as one that was never away."""

    def subscribe(self, listener: Listener) -> Self:
        return super().subscribe(_NeverLosing(listener))

    def poll(self, limit: int, timeout: float) -> list[Record]:
        return [record._replace(assignment=0) for record in super().poll(limit, timeout)]


class _NeverLosing:
    """Hears of everything but of losses."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._known: set[int] = set()

    def assigned(self, committed: Mapping[int, int | None], assignment: int) -> None:  # noqa: ARG002 - that is the point
        new = {partition: offset for partition, offset in committed.items() if partition not in self._known}
        self._known |= committed.keys()
        self._listener.assigned(new, 0)

    def revoking(self, partitions: Collection[int]) -> None:
        self._known -= set(partitions)
        self._listener.revoking(partitions)

    def lost(self, partitions: Collection[int]) -> None:
        """Not heard."""

    def begun(self, positions: Mapping[int, int]) -> None:
        self._listener.begun(positions)

    def replaced(self, partitions: Collection[int]) -> None:
        self._listener.replaced(partitions)

    def skipped(self, partition: int, offsets: int, position: int) -> None:
        self._listener.skipped(partition, offsets, position)

    def committed(self, offsets: Mapping[int, int]) -> None:
        self._listener.committed(offsets)

    def refused(self, offsets: Mapping[int, int]) -> None:
        self._listener.refused(offsets)


class StartingAtTheEnd(Consumer):
    """A partition without a committed offset is read from what comes next."""

    def offsets_for_times(self, partitions: list[TopicPartition], timeout: float = -1.0) -> list[TopicPartition]:
        """The end, when asked for the beginning."""
        for partition in partitions:
            if partition.offset == OFFSET_BEGINNING:
                partition.offset = OFFSET_END
        return super().offsets_for_times(partitions, timeout)


class WithoutTopicIds:
    """An admin client that is never told a topic's id."""

    def __init__(self, _settings: Mapping[str, Any]) -> None:
        """It asks nobody."""

    def describe_topics(self, topics: TopicCollection, /, **_: Any) -> dict[str, Future[Any]]:
        nameless: Future[Any] = Future()
        nameless.set_exception(KafkaException(KafkaError(KafkaError._UNSUPPORTED_FEATURE)))
        return dict.fromkeys(topics.topic_names, nameless)


STORAGES: Mapping[str, type[DataStorage]] = {"identity": WithoutIdentity, "patience": WithoutPatience}
DEAD_LETTERS: Mapping[str, type[DeadLetterTopic]] = {
    "confirmed-parking": WithoutConfirmation,
    "parking": WithoutParking,
    "parking-again": GivingUpParking,
}
PROCESSORS: Mapping[str, type[DataProcessor]] = {"unknown-fields": WithoutLeniency}
SOURCES: Mapping[str, type[GroupMember]] = {
    "commit-after-store": CommittingFirst,
    "commit-on-revoke": LeavingWithoutCommit,
    "assignment-numbers": WithoutAssignmentNumbers,
}


def source(settings: Settings, without: Collection[str]) -> GroupMember:
    kind: type[GroupMember] = _chosen(SOURCES, without, GroupMember)
    return kind(
        settings.kafka,
        on_offset_gap=settings.consumer.on_offset_gap,
        consumer=StartingAtTheEnd if "from-the-beginning" in without else Consumer,
        admin=cast(Any, WithoutTopicIds) if "topic-identity" in without else AdminClient,
    )


def storage(settings: Settings, without: Collection[str]) -> DataStorage:
    kind: type[DataStorage] = _chosen(STORAGES, without, DataStorage)
    return kind(settings.mongodb)


def dead_letters(settings: Settings, without: Collection[str]) -> DeadLetterTopic:
    kind: type[DeadLetterTopic] = _chosen(DEAD_LETTERS, without, DeadLetterTopic)
    return kind(settings.kafka)


def processor(without: Collection[str]) -> type[DataProcessor]:
    return _chosen(PROCESSORS, without, DataProcessor)


def _chosen(kinds: Mapping[str, Kind], without: Collection[str], usual: Kind) -> Kind:
    """One for each part: what lacks two protections of one part is not foreseen."""
    return next((kind for name, kind in kinds.items() if name in without), usual)
