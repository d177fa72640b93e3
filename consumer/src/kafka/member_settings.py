"""librdkafka's settings for a member of the group."""

import logging
from typing import Any

from src.model.topic_names import exactly
from src.settings import KafkaSettings


def member_settings(settings: KafkaSettings) -> dict[str, Any]:
    return {
        # defaults that kafka.client may override
        "session.timeout.ms": 10_000,
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
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "partition.assignment.strategy": "cooperative-sticky",
        "logger": logging.getLogger("librdkafka"),
    }


def _hiding_dead_letters(settings: KafkaSettings) -> dict[str, Any]:
    """Where a pattern may match the dead-letter topic, the client does not see it."""
    if not settings.pattern:
        return {}
    hidden = (settings.client_settings.get("topic.blacklist"), exactly(settings.dead_letter_topic))
    return {"topic.blacklist": ",".join(str(each) for each in hidden if each)}
