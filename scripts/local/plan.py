"""Names, settings and command lines of the processes of a run. Pure."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local.broker import SESSION_TIMEOUT_MS
from local.options import Options

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".local"

BATCHES_PER_SECOND = 4  # so that the numbers change steadily at low rates
MAX_BATCH_SIZE = 500

# The embedded broker returns an empty fetch only after its wait, and a rebalance takes as long as the session timeout.
_CONSUMER_ON_EMBEDDED = {
    "session.timeout.ms": SESSION_TIMEOUT_MS,
    "heartbeat.interval.ms": 500,
    "fetch.wait.max.ms": 20,
    "topic.metadata.refresh.interval.ms": 10_000,
}
_PRODUCER_ON_EMBEDDED = {
    "socket.timeout.ms": 300_000,  # longer than the throttle holds a request
    "queue.buffering.max.messages": 10_000,  # so that little is in flight when it is stopped
}

# As in the services' images: with one arena, memory used during an outage is returned after it.
ALLOCATOR = {"MALLOC_ARENA_MAX": "1"}

# Decided by the run: a variable that the user's shell exports must not redirect a part of it.
_DECIDED_BY_THE_RUN = frozenset(
    {"CONSUMER_GROUP_ID", "CONSUMER_ON_OFFSET_GAP", "CONSUMER_OFFSET_COMMIT_FREQUENCY_MS"}
    | {"KAFKA_BOOTSTRAP_SERVERS", "KAFKA_TOPIC", "KAFKA_TOPICS", "KAFKA_DEAD_LETTER_TOPIC", "KAFKA_COMPRESSION_TYPE"}
    | {"LOG_DIR", "LOG_FORMAT", "LOG_LEVEL", "METRICS_ENABLED", "METRICS_HOST", "METRICS_PORT"}
    | {"MONGODB_URI", "MONGODB_URI_FILE", "MONGODB_DATABASE", "MONGODB_TTL_DAYS"}
    | {"MONGODB_COLLECTION", "MONGODB_COLLECTIONS"}
    | {"PRODUCER_INTERVAL_MS", "PRODUCER_BATCH_SIZE", "PRODUCER_UNDELIVERED_DIR", "PRODUCER_DELIVERY_TIMEOUT_MS"}
    | {"PYTHONPATH"}
)


@dataclass(frozen=True)
class Names:
    topic: str
    group: str
    collection: str

    @property
    def dead_letter_topic(self) -> str:
        return f"{self.topic}.dlq"


def timestamp() -> str:
    """A part of the names of a run."""
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S")


def names(options: Options, timestamp: str) -> Names:
    """New names on the user's servers, unless messages are to be kept: nothing there is ever deleted."""
    new = f"local-{timestamp}"
    name = "local" if options.keep else new
    collection = name if options.mongodb else "messages"
    if options.kafka:
        return Names(topic=name, group=name, collection=collection)
    return Names(topic=new if options.keep else "data-topic", group="data-consumer-group", collection=collection)


def producer_settings(options: Options, names: Names, kafka: str, folder: Path = FOLDER) -> dict[str, Any]:
    return {
        "kafka": {
            "bootstrap_servers": kafka,
            "topic": names.topic,
            "client": {} if options.kafka else _PRODUCER_ON_EMBEDDED,
        },
        "producer": {
            "interval_ms": 1000 / options.rate if options.rate else 0,
            "batch_size": batch_size(options.rate),
            "delivery_timeout_ms": 600_000,
            "undelivered_dir": str(folder / "undelivered"),
        },
        "metrics": {"port": 0},
    }


def batch_size(rate: float) -> int:
    """Messages per batch of the producer."""
    return max(1, min(MAX_BATCH_SIZE, round(rate / BATCHES_PER_SECOND))) if rate else MAX_BATCH_SIZE


def consumer_settings(options: Options, names: Names, kafka: str, folder: Path = FOLDER) -> dict[str, Any]:
    return {
        "kafka": {
            "bootstrap_servers": kafka,
            "topic": names.topic,
            "group_id": names.group,
            "dead_letter_topic": names.dead_letter_topic,
            "client": {} if options.kafka else _CONSUMER_ON_EMBEDDED,
        },
        "consumer": {"offset_commit_frequency_ms": 200},
        "mongodb": {
            "uri": options.mongodb or f"sqlite:///{folder / 'messages.db'}",
            "collection": names.collection,
        },
        "metrics": {"port": 0},
    }


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of a service: the caller's, without the variables that its settings file decides."""
    return {**ALLOCATOR, **{name: value for name, value in inherited.items() if name not in _DECIDED_BY_THE_RUN}}


def command(module: str, settings: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", module, "--config", str(settings), *more]


def shell_line(service: str, arguments: list[str]) -> str:
    """A command that the user can copy into any shell."""
    return f"cd {shlex.quote(str(ROOT / service))} && {shlex.join(arguments)}"
