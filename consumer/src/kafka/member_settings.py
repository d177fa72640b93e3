"""librdkafka's settings for a member of the group."""

import logging
from typing import Any

from src.model import topic_names
from src.settings import KafkaSettings


def member_settings(settings: KafkaSettings) -> dict[str, Any]:
    classic = settings.group_protocol == "classic"  # the other one has its timeouts and its assignor in the brokers
    return {
        # defaults that kafka.client may override
        **({"session.timeout.ms": 10_000} if classic else {}),
        "max.poll.interval.ms": 60_000,
        "socket.timeout.ms": 10_000,
        "topic.metadata.refresh.interval.ms": 10_000,  # new partitions are seen within seconds
        "queued.min.messages": 2_000,
        "queued.max.messages.kbytes": 16_384,
        "fetch.queue.backoff.ms": 20,  # the default would slow down a catch-up, because the queue is short
        **settings.client_settings,
        # required by the guarantee
        **_hiding_dead_letters(settings),
        "group.id": settings.group_id,
        "group.protocol": settings.group_protocol,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        **({"partition.assignment.strategy": "cooperative-sticky"} if classic else {}),
        "logger": logging.getLogger("librdkafka"),
    }


def subscription(settings: KafkaSettings) -> list[str]:
    """The names of the topics, or a pattern as the group protocol matches it."""
    if settings.pattern and settings.group_protocol == "consumer":
        return [topic_names.of_whole_names(settings.pattern)]
    return list(settings.subscription)


def _hiding_dead_letters(settings: KafkaSettings) -> dict[str, Any]:
    """Where a pattern may match the dead-letter topic, the client does not see it."""
    if not settings.pattern:
        return {}
    hidden = (settings.client_settings.get("topic.blacklist"), topic_names.exactly(settings.dead_letter_topic))
    return {"topic.blacklist": ",".join(str(each) for each in hidden if each)}
