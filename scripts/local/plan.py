"""What each process of a run is given: names, settings, command lines. Decides; touches nothing."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.broker import SESSION_TIMEOUT_MS
from local.options import Options

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".local"

BATCHES_A_SECOND = 4  # so that the flow looks steady at low rates
LARGEST_BATCH = 500

# The embedded broker answers an empty fetch only when its wait is over, and keeps a group waiting as long as the
# session timeout says.
_CONSUMER_ON_EMBEDDED = {
    "session.timeout.ms": SESSION_TIMEOUT_MS,
    "heartbeat.interval.ms": 500,
    "fetch.wait.max.ms": 20,
    "topic.metadata.refresh.interval.ms": 10_000,
}
_PRODUCER_ON_EMBEDDED = {
    "socket.timeout.ms": 300_000,  # a request held at the gate is no dead connection
    "queue.buffering.max.messages": 10_000,  # so that little is under way when it is asked to stop
}

# As in the services' images: what piles up in an outage is not kept by each thread after it.
ALLOCATOR = {"MALLOC_ARENA_MAX": "1"}

# What a run decides itself; a shell that happens to export one of these must not redirect a part of it.
_DECIDED_HERE = frozenset(
    {"CONSUMER_GROUP_ID", "CONSUMER_ON_OFFSET_GAP", "CONSUMER_OFFSET_COMMIT_FREQUENCY_MS"}
    | {"KAFKA_BOOTSTRAP_SERVERS", "KAFKA_TOPIC", "KAFKA_DEAD_LETTER_TOPIC", "KAFKA_COMPRESSION_TYPE"}
    | {"LOG_DIR", "LOG_FORMAT", "LOG_LEVEL", "METRICS_ENABLED", "METRICS_HOST", "METRICS_PORT"}
    | {"MONGODB_URI", "MONGODB_URI_FILE", "MONGODB_DATABASE", "MONGODB_COLLECTION", "MONGODB_TTL_DAYS"}
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


def names(options: Options, stamp: str) -> Names:
    """Fresh names wherever old messages could be in the way: on a server of the user's nothing is ever deleted."""
    fresh = f"local-{stamp}"
    lasting = "local" if options.keep else fresh
    collection = lasting if options.mongodb else "messages"
    if options.kafka:
        return Names(topic=lasting, group=lasting, collection=collection)
    return Names(topic=fresh if options.keep else "data-topic", group="data-consumer-group", collection=collection)


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
    """Messages the producer sends at once."""
    return max(1, min(LARGEST_BATCH, round(rate / BATCHES_A_SECOND))) if rate else LARGEST_BATCH


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
    """What a service's process gets: the caller's environment, but for what its settings file decides."""
    return {**ALLOCATOR, **{name: value for name, value in inherited.items() if name not in _DECIDED_HERE}}


def command(module: str, settings: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", module, "--config", str(settings), *more]


def shell_line(service: str, arguments: list[str]) -> str:
    """The same command, for the user to copy, from wherever they are."""
    return f"cd {shlex.quote(str(ROOT / service))} && {shlex.join(arguments)}"


def query_line(settings: Path) -> str:
    return shell_line("consumer", command("src.get", settings, "--limit", "1"))
