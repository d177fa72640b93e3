"""What the processes of a trial are given: names, settings, command lines. Decides; touches nothing."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from chaos.servers import Cluster
from local import plan
from local.options import Options as LocalOptions
from local.plan import ROOT, Names

PARTITIONS = 6
SESSION_TIMEOUT = 6.0  # seconds; the least that Kafka takes, so that a dead member is noticed soon
BATCHES_A_SECOND = 10
COMMIT_EVERY_MS = 500
AT_ONCE = 0.0  # seconds


_SETTINGS = ("CONSUMER_", "KAFKA_", "LOG_", "METRICS_", "MONGODB_", "PRODUCER_")

_PROTECTING: Mapping[str, tuple[str, str, Any]] = {
    "gap-stop": ("consumer", "on_offset_gap", "earliest"),
    "storm-breaker": ("consumer", "dead_letter_storm_percent", 100),
    "time-to-answer": ("mongodb", "timeout_ms", 1000),
}


def names(stamp: str, scenario: str, seed: int) -> Names:
    """Fresh ones: on a server of the user's nothing of theirs is touched."""
    name = f"chaos-{stamp}-{scenario}-{seed}"
    return Names(topic=name, group=name, collection=name)


def consumer_settings(
    cluster: Cluster,
    names: Names,
    folder: Path,
    *,
    kafka: str,
    mongodb: str | None,
    session: float = SESSION_TIMEOUT,
    **consumer: Any,
) -> dict[str, Any]:
    settings = plan.consumer_settings(_local(cluster, mongodb), names, kafka, folder)
    member = {"session.timeout.ms": int(session * 1000), "heartbeat.interval.ms": 500}
    settings["kafka"]["client"] = {**settings["kafka"]["client"], **member}
    settings["consumer"] |= {"batch_size": 100, "offset_commit_frequency_ms": COMMIT_EVERY_MS, **consumer}
    return settings


def producer_settings(
    cluster: Cluster, names: Names, folder: Path, *, kafka: str, messages: int, seconds: float, **producer: Any
) -> dict[str, Any]:
    settings = plan.producer_settings(_local(cluster, None), names, kafka, folder)
    batches = max(1.0, seconds * BATCHES_A_SECOND)
    settings["producer"] |= {
        "interval_ms": seconds * 1000 / messages,
        "batch_size": max(1, round(messages / batches)),
        "delivery_timeout_ms": 60_000,
        "initial_retry_delay_ms": 1000,
        **producer,
    }
    return settings


def command(module: str, settings: Path, *more: str) -> list[str]:
    return plan.command(module, settings, *more)


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """No setting of the caller's shell reaches a trial; the proof's own programs are to be found."""
    kept = {name: value for name, value in inherited.items() if not name.startswith(_SETTINGS)}
    return {**plan.ALLOCATOR, **kept, "PYTHONPATH": str(ROOT / "scripts")}


def unprotected(settings: Mapping[str, Any], protections: Collection[str]) -> dict[str, Any]:
    """A consumer's settings with these protections taken out, as far as a setting does it."""
    result = dict(settings)
    for section, name, value in (_PROTECTING[each] for each in protections if each in _PROTECTING):
        result[section] = {**result[section], name: value}
    return result


def without(protections: Sequence[str]) -> list[str]:
    return [text for protection in protections for text in ("--without", protection)]


def _local(cluster: Cluster, mongodb: str | None) -> LocalOptions:
    return LocalOptions(kafka=None if cluster.embedded else cluster.kafka_address, mongodb=mongodb)
