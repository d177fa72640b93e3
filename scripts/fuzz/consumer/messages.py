"""Messages on their way through the consumer: each is stored, or parked byte for byte, and exactly once."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any, cast

import bson
from bson.codec_options import CodecOptions
from confluent_kafka import Message
from pymongo import MongoClient

from fuzz import messages
from fuzz.chance import Chance
from fuzz.consumer.letters import check_letter
from fuzz.messages import Sent
from fuzz.target import require
from src.data_processor import REASONS as INVALID
from src.data_processor import DataProcessor
from src.kafka.messages import record_of
from src.model.record import Record, Rejection
from src.pipeline.batch_writer import BatchWriter, Result, WriterOptions
from src.settings import MongoSettings, StoreUri
from src.storage import REASONS as REFUSED
from src.storage import DataStorage
from src.stores.document import Document, dates_as_text
from src.stores.validation import MAX_BSON_BYTES, validated

AT_ONCE = 50
DATABASE = "fuzz"
REASONS = frozenset((*INVALID, *REFUSED))
READABLE: CodecOptions[Any] = CodecOptions(tz_aware=True)

Outcomes = list[str]


class Messages:
    """Checked on each store, which has to answer as the others do."""

    at_once = AT_ONCE

    def __init__(self, folder: Path, mongodb: str = "") -> None:
        path = folder / "messages.db"
        path.unlink(missing_ok=True)
        uris = [f"sqlite:///{path}", *([mongodb] if mongodb else [])]
        self._mongodb = mongodb
        self._collection = folder.name
        self._ways = [Way(MongoSettings(uri=StoreUri(uri), database=DATABASE, collection=folder.name)) for uri in uris]

    def make(self, chance: Chance, index: int) -> Sent:
        return messages.sent(chance, index)

    def check(self, inputs: Sequence[Sent]) -> Counter[str]:
        records = [record_of(cast(Message, FromKafka(sent, offset))) for offset, sent in enumerate(inputs)]
        outcomes = [way.go(records) for way in self._ways]
        for other in outcomes[1:]:
            require(other == outcomes[0], f"the stores answer differently: {_differing(records, outcomes[0], other)}")
        return Counter(outcomes[0])

    def smaller(self, value: Sent) -> Iterable[Sent]:
        return messages.smaller(value)

    def shown(self, value: Sent) -> Mapping[str, Any]:
        return {name: _shown(content) for name, content in value._asdict().items()}

    def close(self) -> None:
        for way in self._ways:
            way.close()
        if self._mongodb:
            with MongoClient[dict[str, Any]](self._mongodb) as client:
                client[DATABASE].drop_collection(self._collection)


class FromKafka:
    """A message as the client hands it out."""

    def __init__(self, sent: Sent, offset: int) -> None:
        self._sent = sent
        self._offset = offset

    def topic(self) -> str:
        return "data-topic"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._sent.key

    def value(self) -> bytes | None:
        return self._sent.value

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        if self._sent.headers is None:
            b"\xff".decode()  # as the client does for a name that is not UTF-8
        return list(self._sent.headers or ()) or None

    def timestamp(self) -> tuple[int, int]:
        return (0, -1) if self._sent.timestamp is None else (1, self._sent.timestamp)


class Parked:
    """A dead-letter topic in memory."""

    def __init__(self) -> None:
        self.rejections: list[Rejection] = []

    def send(self, rejections: Sequence[Rejection]) -> None:
        self.rejections += rejections

    def close(self) -> None:
        """Nothing is open."""


class Way:
    """From a record to a store, by the consumer's own writer."""

    def __init__(self, settings: MongoSettings) -> None:
        self._storage = DataStorage(settings)
        self._parked = Parked()
        self._processor = DataProcessor()
        self._writer = BatchWriter(
            self._processor,
            self._storage,
            self._parked,
            WriterOptions(max_retries=0),
            stop=Event(),
            on_retry=_refuse_to_wait,
        )
        self._storage.ensure_indexes()

    def go(self, records: Sequence[Record]) -> Outcomes:
        """What became of each: "stored", or the reason why it was parked."""
        self._parked.rejections.clear()
        result = self._writer.write(records)
        parked = self._check_parked(records, result)
        homes = [parked.get(record.offset, "stored") for record in records]
        stored = [record for record in records if record.offset not in parked]
        require(len(result.stored) + result.duplicates == len(stored), "the result's numbers do not add up")
        self._check_stored(stored)
        return homes

    def close(self) -> None:
        self._storage.close()

    def _check_parked(self, records: Sequence[Record], result: Result) -> dict[int, str]:
        rejections = self._parked.rejections
        require(list(result.rejections) == rejections, "what is parked is not what the result says")
        for rejection in rejections:
            if rejection.reason not in REASONS:
                raise rejection.error
            require(rejection.record is records[rejection.record.offset], "another record is parked than came in")
            check_letter(rejection)
        parked = {rejection.record.offset: rejection.reason for rejection in rejections}
        require(len(parked) == len(rejections), "a message is parked twice")
        require(not parked.keys() & {record.offset for record in result.stored}, "a message is stored and parked")
        return parked

    def _check_stored(self, records: Sequence[Record]) -> None:
        """Each is there by its id, equal to what was sent, as another JSON parser reads it."""
        ids = {record.offset: json.loads(record.value or b"")["id"] for record in records}
        held = {message["id"]: message for message in self._storage.get({"id": {"$in": sorted(set(ids.values()))}})}
        for record in records:
            sent = json.loads(record.value or b"")
            require(sent["id"] in held, "a message that counts as stored is not there")
            require(_comparable(held[sent["id"]]) == _comparable(sent), "what is stored is not what was sent")
            _check_encoding(self._processor.process(record))


def _check_encoding(message: Document) -> None:
    """As MongoDB gets it, whether one is there or not."""
    document = validated(message)
    encoded = bson.encode(document)
    require(len(encoded) <= MAX_BSON_BYTES, "a document that no MongoDB takes")
    require(_as_json(bson.decode(encoded, READABLE)) == _as_json(document), "BSON gives back another document")


def _refuse_to_wait(cause: str) -> None:
    require(False, f"the writer waits, or tries again: {cause}")


def _comparable(message: Mapping[str, Any]) -> str:
    """The date, which is normalised, and our own field apart."""
    fields = {name: value for name, value in message.items() if name not in ("kafka", "created_at")}
    return json.dumps(fields, sort_keys=True)


def _as_json(document: Document) -> str:
    return json.dumps(dates_as_text(document), sort_keys=True)


def _differing(records: Sequence[Record], ones: Outcomes, others: Outcomes) -> str:
    differing = [(r.offset, one, other) for r, one, other in zip(records, ones, others, strict=True) if one != other]
    return str(differing[:3])


def _shown(value: object) -> object:
    return repr(value[:2000]) if isinstance(value, bytes) else repr(value)
