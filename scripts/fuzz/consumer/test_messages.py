"""Messages in the consumer: each is stored, or dead-lettered byte for byte, and exactly once."""

import json
import os
import tempfile
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from threading import Event
from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace
from pymongo import MongoClient

from fuzz.plugin import MONGODB
from fuzz.strategies import KafkaMessage, kafka_messages, objects
from src.data_processor import REASONS as INVALID
from src.data_processor import DataProcessor
from src.dead_letters.dead_letter import (
    MAX_OVERHEAD_BYTES,
    REASON,
    DeadLetter,
    dead_letter_of,
    header_text,
    original_headers,
    original_position,
    read_replays,
    replay_headers,
)
from src.dead_letters.entries import State
from src.dead_letters.text import details, record_as_json
from src.model.position import MessagePosition
from src.model.record import Record, Rejection
from src.pipeline.batch_writer import BatchWriter, Result, WriterOptions
from src.settings import MongoSettings, StoreUri
from src.storage import REASONS as REJECTED
from src.storage import DataStorage
from src.stores.document import Document, dates_as_text
from src.stores.validation import MAX_BSON_BYTES, validated

DATABASE = "fuzz"
REASONS = frozenset((*INVALID, *REJECTED))
HUGE = b'"' + b"x" * (17 * 1024 * 1024) + b'"'  # more than a document may have
READABLE: CodecOptions[Any] = CodecOptions(tz_aware=True)

Outcomes = dict[int, str]
"""By offset: "stored", or the reason why the message was dead-lettered."""


@given(st.lists(kafka_messages, min_size=1, max_size=10))
@example([KafkaMessage(None, objects([(b'"id"', b'"1"'), (b'"huge"', HUGE)])), KafkaMessage(None, b'{"id":"2"}')])
def test_every_message_is_stored_or_dead_lettered_and_stores_agree(messages: Sequence[KafkaMessage]) -> None:
    records = [Record("data-topic", 0, offset, *message) for offset, message in enumerate(messages)]
    with ExitStack() as stack:
        outcomes = [_write(storage, records) for storage in _storages(stack)]

    assert all(other == outcomes[0] for other in outcomes)


def _storages(stack: ExitStack) -> Iterator[DataStorage]:
    """Empty stores: SQLite, and the MongoDB of the options."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fuzz_"))
    yield stack.enter_context(DataStorage(MongoSettings(uri=StoreUri(f"sqlite:///{folder}/messages.db"))))
    if uri := os.environ[MONGODB]:
        client = stack.enter_context(MongoClient[dict[str, Any]](uri))
        collection = f"fuzz-{os.getpid()}"
        stack.callback(client[DATABASE].drop_collection, collection)
        settings = MongoSettings(uri=StoreUri(uri), database=DATABASE, collection=collection)
        yield stack.enter_context(DataStorage(settings))


class DeadLetterTopic:
    """A dead-letter topic in memory."""

    def __init__(self) -> None:
        self.rejections: list[Rejection] = []

    def send(self, rejections: Sequence[Rejection]) -> None:
        self.rejections += rejections

    def close(self) -> None:
        """Nothing to close."""


class Owner:
    """Owns all partitions, and its commits are accepted."""

    def owns(self, record: Record) -> bool:  # noqa: ARG002
        return True

    def commits_rejected(self, record: Record) -> bool:  # noqa: ARG002
        return False


def _write(storage: DataStorage, records: Sequence[Record]) -> Outcomes:
    topic, processor = DeadLetterTopic(), DataProcessor()
    options = WriterOptions(max_retries=0)
    writer = BatchWriter(processor, storage, topic, Owner(), options, stop=Event(), on_retry=_fail_on_retry)
    [result] = writer.write(records)
    assert list(result.rejections) == topic.rejections
    dead_lettered = _check_rejections(records, result)
    stored = [record for record in records if record.offset not in dead_lettered]
    assert len(result.stored) + result.duplicates == len(stored)
    _check_stored(storage, processor, stored)
    return {record.offset: dead_lettered.get(record.offset, "stored") for record in records}


def _fail_on_retry(cause: str) -> None:
    pytest.fail(f"the writer retries: {cause}")


def _check_rejections(records: Sequence[Record], result: Result) -> Outcomes:
    for rejection in result.rejections:
        if rejection.reason not in REASONS:
            raise rejection.error
        assert rejection.record is records[rejection.record.offset]
        _check_dead_letter(rejection)
    outcomes = {rejection.record.offset: rejection.reason for rejection in result.rejections}
    assert len(outcomes) == len(result.rejections)
    assert not outcomes.keys() & {record.offset for record in result.stored}
    return outcomes


def _check_stored(storage: DataStorage, processor: DataProcessor, records: Sequence[Record]) -> None:
    """Each is found by its id, equal to what was sent as another JSON parser reads it."""
    messages = [json.loads(record.value or b"") for record in records]
    ids = list({message["id"] for message in messages})
    stored = {message["id"]: message for message in storage.get({"id": {"$in": ids}})}
    for record, message in zip(records, messages, strict=True):
        assert _comparable(stored[message["id"]]) == _comparable(message)
        _check_bson(processor.process(record) or {})


def _check_bson(message: Document) -> None:
    """MongoDB could store it, whether there is one or not."""
    document = validated(message)
    encoded = bson.encode(document)
    assert len(encoded) <= MAX_BSON_BYTES
    assert _as_json(bson.decode(encoded, READABLE)) == _as_json(document)


def _comparable(message: Mapping[str, Any]) -> str:
    """Without the date, which is normalized, and the consumer's own field."""
    return json.dumps({n: value for n, value in message.items() if n not in ("kafka", "created_at")}, sort_keys=True)


def _as_json(document: Document) -> str:
    return json.dumps(dates_as_text(document), sort_keys=True)


# -- dead letters


def _check_dead_letter(rejection: Rejection) -> None:
    record, first = rejection.record, dead_letter_of(rejection)
    assert (first.key, first.value) == (record.key, record.value)
    assert original_headers(first.headers) == original_headers(record.headers)
    if not any(name.startswith(("__dead_letter.", "__connect.errors.")) for name, _ in record.headers):
        assert original_headers(first.headers) == record.headers
    assert original_position(first.headers) == record.position
    assert header_text(first.headers, REASON) == rejection.reason
    assert _size(first) - _size(DeadLetter(record.key, record.value, tuple(record.headers))) <= MAX_OVERHEAD_BYTES
    _check_replays(rejection, first)
    _check_output(record, first)


def _check_replays(rejection: Rejection, first: DeadLetter) -> None:
    """A message that is replayed and dead-lettered three times keeps its headers and does not grow."""
    sizes, current = [_size(first)], first
    for _ in range(3):
        headers = replay_headers(current.headers)
        current = dead_letter_of(rejection._replace(record=replace(rejection.record, headers=headers)))
        assert original_headers(current.headers) == original_headers(rejection.record.headers)
        sizes.append(_size(current))
    before = read_replays(rejection.record.headers).times
    assert read_replays(current.headers).times == before + 3
    assert max(sizes[2:]) - sizes[1] <= len(str(before + 3)), sizes


def _check_output(record: Record, first: DeadLetter) -> None:
    """The text for a terminal has no control characters, the JSON has every byte."""
    dead_letter = Record("data-topic.dlq", 0, 7, first.key, first.value, first.headers, record.timestamp)
    assert all(line.isprintable() for line in details(dead_letter, State.WAITING))
    text = record_as_json(dead_letter, State.WAITING)
    assert text.isascii()
    assert text.isprintable()
    shown = json.loads(text)
    assert (_bytes(shown["key"]), _bytes(shown["value"])) == (record.key, record.value)
    assert [(name, _bytes(content)) for name, content in shown["headers"]] == list(original_headers(record.headers))
    position = MessagePosition(shown["topic"], shown["partition"], shown["offset"])
    assert position == original_position(first.headers)


def _bytes(shown: Any) -> bytes | None:
    if shown is None:
        return None
    return b64decode(shown["base64"]) if isinstance(shown, dict) else str(shown).encode()


def _size(dead_letter: DeadLetter) -> int:
    headers = sum(len(name.encode()) + len(content or b"") for name, content in dead_letter.headers)
    return headers + len(dead_letter.key or b"") + len(dead_letter.value or b"")
