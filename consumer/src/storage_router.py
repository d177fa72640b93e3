"""The collections of several topics: the documents of a batch are stored in those of their topics."""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, cast

from msgspec.structs import replace

from src.model.errors import StorageUnavailable
from src.model.record import Record
from src.model.verdict import Outcome, Verdict
from src.settings import DocumentSettings, MongoSettings, Settings
from src.storage import DataStorage
from src.stores.document import Document, DocumentBatch

logger = logging.getLogger(__name__)

NewStorage = Callable[[MongoSettings], DataStorage]


def open_storage(
    settings: Settings, kind: Callable[[MongoSettings, DocumentSettings], DataStorage] = DataStorage
) -> "DataStorage | StorageRouter":
    """A router only where topics have different collections, so that one collection costs no more than without it."""
    kafka, mongodb = settings.kafka, settings.mongodb

    def new(section: MongoSettings) -> DataStorage:
        return kind(section, settings.document)

    names = {mongodb.collection_of(topic) for topic in kafka.known_topics}
    if len(names) == 1:
        return new(replace(mongodb, collection=names.pop(), collections={}))
    if kafka.pattern and "{topic}" not in mongodb.collection and not mongodb.collections:
        return new(mongodb)
    return StorageRouter(mongodb, kafka.known_topics, new)


class StorageRouter:
    """Has a DataStorage for each collection. Those of topics that are not known at the start are added later."""

    def __init__(self, settings: MongoSettings, topics: Sequence[str], new: NewStorage) -> None:
        self._settings = settings
        self._new = new
        self._storages = {name: self._open(name) for name in dict.fromkeys(map(settings.collection_of, topics))}
        self._server = next(iter(self._storages.values()), None) or new(settings)

    def of(self, topic: str) -> DataStorage:
        """The storage of the topic's collection. Raises StorageUnavailable if it is new and cannot be prepared."""
        name = self._settings.collection_of(topic)
        if name not in self._storages:
            storage = self._open(name)
            storage.ensure_indexes()
            self._storages[name] = storage
        return self._storages[name]

    def save(self, data: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """Which collection is meant is unknown: use `of`."""
        logger.warning("document not stored", extra={"cause": "several_collections", "reason": "its topic is unknown"})
        return False

    def save_valid(self, batch: DocumentBatch) -> list[Verdict]:
        """One verdict per document. Raises StorageUnavailable if none of their outcomes is known."""
        topics: defaultdict[str, list[int]] = defaultdict(list)
        for index, record in enumerate(batch.records):
            topics[cast(Record, record).topic].append(index)
        verdicts: dict[int, Verdict] = {}
        try:
            for topic, indexes in topics.items():
                verdicts |= zip(indexes, self.of(topic).save_valid(batch.part(indexes)), strict=True)
        except StorageUnavailable as error:
            if not verdicts:
                raise
            deferred = Verdict(Outcome.DEFERRED, error.cause, error)
            verdicts = {index: verdicts.get(index, deferred) for index in range(len(batch.documents))}
        return [verdicts[index] for index in range(len(verdicts))]

    def validated(self, document: Document) -> Document:
        """A copy that `save_valid` accepts, which is the same for all collections. Raises InvalidMessage."""
        return self._server.validated(document)

    def ping(self) -> None:
        """All collections are on one server. Raises StorageUnavailable."""
        self._server.ping()

    def ensure_indexes(self) -> None:
        for storage in self._storages.values():
            storage.ensure_indexes()

    def close(self) -> None:
        for storage in {id(each): each for each in (self._server, *self._storages.values())}.values():
            storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _open(self, name: str) -> DataStorage:
        return self._new(replace(self._settings, collection=name, collections={}))
