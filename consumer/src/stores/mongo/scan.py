"""Decodes the documents of a scan: id, position and timestamp."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, cast

from bson import Int64, decode_all
from bson.codec_options import CodecOptions, DatetimeConversion

from src.model.position import MessagePosition
from src.stores.document import StoredMessage, as_identity
from src.stores.mongo.client import READABLE
from src.stores.mongo.documents import plain

_FAST: CodecOptions[Any] = CodecOptions(
    unicode_decode_error_handler="replace", datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
_INTEGERS = (int, Int64)
_IDENTITIES = (str, *_INTEGERS)
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001
_MILLISECOND = timedelta(milliseconds=1)


def scanned(batch: bytes) -> list[StoredMessage]:
    """The documents of a batch. Those that the consumer has not written are decoded again, whatever they contain."""
    messages = [_message(document) for document in decode_all(batch, _FAST)]
    if None not in messages:
        return cast(list[StoredMessage], messages)
    raws = decode_all(batch, READABLE)
    return [
        message or StoredMessage.of(plain(raw["_id"]), plain(raw.get("kafka")))
        for message, raw in zip(messages, raws, strict=True)
    ]


def _message(document: Mapping[str, Any]) -> StoredMessage | None:
    """None unless every field has the type that the consumer writes."""
    identifier, kafka = document["_id"], document.get("kafka")
    if type(identifier) not in _IDENTITIES or type(kafka) is not dict:
        return None
    topic, partition, offset, date = (kafka.get(field) for field in ("topic", "partition", "offset", "timestamp"))
    if type(topic) is str and type(partition) is int and type(offset) in _INTEGERS and type(date) is datetime:
        position = MessagePosition(topic, partition, int(cast(int, offset)))
        return StoredMessage(as_identity(identifier), position, (date - _EPOCH) // _MILLISECOND)
    return None
