"""What the bench's own programs share. Those that nothing can watch print their own measurement."""

import json
import os
import resource
import signal
import time
from collections.abc import Sequence
from datetime import datetime
from threading import Event
from typing import Any, TypedDict

import msgspec
import pymongo
from confluent_kafka import Consumer, Message
from pymongo.collection import Collection


class Document(TypedDict):
    """The message of the specification; `created_at` is stored as a date, as the consumer does."""

    id: str
    name: str
    created_at: datetime
    metadata: dict[str, str]


_decode = msgspec.json.Decoder(Document).decode


def setting(name: str) -> str:
    return os.environ[f"BENCH_{name}"]


def consumer(**settings: Any) -> Consumer:
    """Reads the topic from the start, in the job's group."""
    client = Consumer(
        {
            "bootstrap.servers": setting("BOOTSTRAP"),
            "group.id": setting("GROUP"),
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **settings,
        }
    )
    client.subscribe([setting("TOPIC")])
    return client


def collection() -> Collection[Any]:
    client = pymongo.MongoClient[dict[str, Any]](setting("MONGODB_URI"))
    return client[setting("DATABASE")][setting("COLLECTION")]


def documents(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Without any check: the fastest way to MongoDB's form of the messages."""
    found: list[dict[str, Any]] = [_decode(message.value() or b"") for message in messages if not message.error()]  # type: ignore[misc]  # a TypedDict is a dict
    for document in found:
        document["_id"] = document.pop("id")
    return found


def insert(target: Collection[Any], batch: Sequence[Any]) -> None:
    """One command, whose documents the driver only encodes; `insert_many` would look at each of them."""
    target.database.command("insert", target.name, documents=batch, ordered=False)


def stop_on_sigterm() -> Event:
    stop = Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    return stop


class Stopwatch:
    """Wall and CPU time of this process from here on."""

    def __init__(self) -> None:
        self._start = time.monotonic(), _cpu_seconds()

    def report(self, messages: int) -> None:
        """Print the measurement of these messages."""
        start, cpu_start = self._start
        usage = resource.getrusage(resource.RUSAGE_SELF)
        result = {
            "messages": messages,
            "seconds": time.monotonic() - start,
            "cpu_seconds": _cpu_seconds() - cpu_start,
            "peak_bytes": usage.ru_maxrss * 1024,
        }
        print(json.dumps(result), flush=True)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
