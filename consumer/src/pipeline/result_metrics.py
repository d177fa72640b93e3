"""Counts and logs the outcome of a batch."""

import logging
from collections import Counter

from src.pipeline.batch_writer import Result
from src.utils.metrics import ConsumerMetrics

logger = logging.getLogger(__name__)


def count(result: Result, metrics: ConsumerMetrics) -> None:
    metrics.stored.inc(len(result.stored))
    metrics.duplicates.inc(result.duplicates)
    metrics.skipped.inc(result.skipped)
    metrics.dead_lettered.inc(len(result.rejections))
    metrics.batch_size.observe(len(result.records))
    metrics.storage_latency.observe(result.storage_seconds)
    metrics.last_progress.set(result.finished)
    metrics.end_to_end_latency.observe_all(
        [result.finished - timestamp / 1000 for each in result.stored if (timestamp := each.timestamp) is not None]
    )
    if result.rejections:
        _count_rejections(result, metrics)
    logger.debug(
        "batch settled",
        extra={
            "stored": len(result.stored),
            "duplicates": result.duplicates,
            "skipped": result.skipped,
            "dead_lettered": len(result.rejections),
        },
    )


def _count_rejections(result: Result, metrics: ConsumerMetrics) -> None:
    reasons = Counter(rejection.reason for rejection in result.rejections)
    for reason, number in reasons.items():
        metrics.dead_letters.labels(reason).inc(number)
    logger.info("messages dead-lettered", extra={"reasons": dict(reasons)})
