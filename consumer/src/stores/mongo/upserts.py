"""Writes over what is stored: the filter of each finds the document with its id only if that may be overwritten.

Where it finds none, the upsert inserts the document; if there is another one with the id, the key is a duplicate.
"""

from collections.abc import Callable, Mapping
from typing import Any

from pymongo import ReplaceOne, UpdateOne

from src.stores.document import Document
from src.stores.mongo.documents import fields_to_mongo
from src.stores.order import Overwrites
from src.stores.store import Write

Filter = Mapping[str, Any]
Upsert = ReplaceOne[Mapping[str, Any]] | UpdateOne

_TYPES = {"topic": "string", "partition": "number", "offset": "number"}
_WITHOUT_POSITION = {"$or": [{f"kafka.{name}": {"$not": {"$type": kind}}} for name, kind in _TYPES.items()]}


def upsert(write: Write, over: Overwrites) -> Upsert:
    fields = fields_to_mongo(write.document)
    where = {"_id": fields["_id"], **_FILTERS[over](write.document)}
    if not write.merge:
        return ReplaceOne(where, fields, upsert=True)
    del fields["_id"]
    return UpdateOne(where, {"$set": fields}, upsert=True)


def _same_position(document: Document) -> Filter:
    return {f"kafka.{name}": document["kafka"][name] for name in ("topic", "partition", "offset", "timestamp")}


def _older(document: Document) -> Filter:
    """The same as `order.is_older`."""
    if "kafka" not in document:
        return _WITHOUT_POSITION
    kafka = document["kafka"]
    topic, partition, timestamp = kafka["topic"], kafka["partition"], kafka["timestamp"]
    same = {"kafka.topic": topic, "kafka.partition": partition}
    lower = [{"kafka.topic": {"$lt": topic}}, {"kafka.topic": topic, "kafka.partition": {"$lt": partition}}]
    older: list[Filter] = [
        {**same, "kafka.offset": {"$lt": kafka["offset"]}},
        {"kafka.timestamp": timestamp, "$or": lower},
        _WITHOUT_POSITION,
    ]
    if timestamp is not None:
        earlier = [{"kafka.timestamp": {"$lt": timestamp}}, {"kafka.timestamp": None}]
        older.append({"$or": earlier, "$nor": [same]})
    return {"$or": older}


_FILTERS: Mapping[Overwrites, Callable[[Document], Filter]] = {
    Overwrites.SAME_POSITION: _same_position,
    Overwrites.OLDER: _older,
}
