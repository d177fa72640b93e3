"""Names, settings and environment of the processes of a trial. Pure."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from chaos.servers import Cluster
from local import plan
from local.options import Options as LocalOptions
from local.plan import ROOT, Names

PARTITIONS = 6
SESSION_TIMEOUT = 6.0  # seconds; the least that Kafka accepts, so that a dead member is detected soon
BATCHES_PER_SECOND = 10
COMMIT_INTERVAL_MS = 500
_SETTING_PREFIXES = ("CONSUMER_", "KAFKA_", "LOG_", "METRICS_", "MONGODB_", "PRODUCER_")

_PROTECTIVE_SETTINGS: Mapping[str, tuple[str, str, Any]] = {
    "stop-on-offset-gap": ("consumer", "on_offset_gap", "earliest"),
    "dead-letter-storm-limit": ("consumer", "dead_letter_storm_percent", 100),
    "mongodb-timeout": ("mongodb", "timeout_ms", 1000),
}
"""Protections that are a setting, with the value that disables them."""


def names(timestamp: str, scenario: str, seed: int) -> Names:
    """New names: nothing of the user's is touched."""
    name = f"chaos-{timestamp}-{scenario}-{seed}"
    return Names(topic=name, group=name, collection=name)


def second_topic(names: Names) -> str:
    return f"{names.topic}.second"


def consumer_settings(
    cluster: Cluster,
    names: Names,
    folder: Path,
    *,
    kafka: str,
    mongodb: str | None,
    session: float = SESSION_TIMEOUT,
    max_poll: float = 60.0,
    topics: Sequence[str] = (),
    **consumer: Any,
) -> dict[str, Any]:
    """Each of several topics has its own collection."""
    settings = plan.consumer_settings(_local(cluster, mongodb), names, kafka, folder)
    if topics:
        settings["kafka"]["topics"] = list(topics)
        settings["mongodb"]["collection"] = "{topic}"
    member = {"max.poll.interval.ms": int(max_poll * 1000)}
    if cluster.group_protocol == "classic":  # the other one has its timeouts in the brokers
        member |= {"session.timeout.ms": int(session * 1000), "heartbeat.interval.ms": 500}
    settings["kafka"]["group_protocol"] = cluster.group_protocol
    settings["kafka"]["client"] = {**settings["kafka"]["client"], **member}
    settings["consumer"] |= {"batch_size": 100, "offset_commit_frequency_ms": COMMIT_INTERVAL_MS, **consumer}
    return settings


def producer_settings(
    cluster: Cluster, names: Names, folder: Path, *, kafka: str, messages: int, seconds: float, **producer: Any
) -> dict[str, Any]:
    settings = plan.producer_settings(_local(cluster, None), names, kafka, folder)
    batches = max(1.0, seconds * BATCHES_PER_SECOND)
    settings["producer"] |= {
        "interval_ms": seconds * 1000 / messages,
        "batch_size": max(1, round(messages / batches)),
        "delivery_timeout_ms": 60_000,
        "initial_retry_delay_ms": 1000,
        **producer,
    }
    return settings


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment without settings of the services, and with the suite's own programs on the path."""
    kept = {name: value for name, value in inherited.items() if not name.startswith(_SETTING_PREFIXES)}
    return {**plan.ALLOCATOR, **kept, "PYTHONPATH": str(ROOT / "scripts")}


def unprotected(settings: Mapping[str, Any], protections: Collection[str]) -> dict[str, Any]:
    """A consumer's settings with these protections disabled, if they are settings."""
    result = dict(settings)
    for section, name, value in (_PROTECTIVE_SETTINGS[each] for each in protections if each in _PROTECTIVE_SETTINGS):
        result[section] = {**result[section], name: value}
    return result


def _local(cluster: Cluster, mongodb: str | None) -> LocalOptions:
    return LocalOptions(kafka=None if cluster.embedded else cluster.kafka_address, mongodb=mongodb)
