"""The messages of a run by the counts of Kafka and of the store, whatever the topic still contains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from local.metrics import ConsumerMetrics


@dataclass(frozen=True)
class Counts:
    """`settled` is what the group has committed. Each of these messages must be in one of the other counts."""

    settled: int
    stored: int
    dead_lettered: int = 0
    duplicates: int = 0
    others: int = 0
    """Skipped by the transform, followed by a newer message with their id, or tombstones."""

    @property
    def missing(self) -> int:
        return max(0, self.settled - self.stored - self.dead_lettered - self.duplicates - self.others)

    def __str__(self) -> str:
        parts = f"{self.stored:,} stored + {self.dead_lettered:,} dead-lettered"
        if self.duplicates:
            parts += f" + {self.duplicates:,} duplicates"
        if self.others:
            parts += f" + {self.others:,} without a document"
        return f"{self.settled:,} settled = {parts}" + (f" + {self.missing:,} MISSING" if self.missing else "")


def with_audit(counts: Counts, audit: Mapping[str, int], consumers: Sequence[ConsumerMetrics]) -> Counts:
    """The same counts with what the audit has found.

    The audit knows nothing of messages that have left the embedded broker's topic. For them the consumers' counters
    are used, which count a message again if a killed consumer had not committed it.
    """
    others = audit["skipped"] + audit["superseded"] + audit["deleted"]
    found = replace(counts, dead_lettered=audit["dead_lettered"], duplicates=audit["duplicates"], others=others)
    if audit["expired_offsets"]:
        dead_lettered = max(found.dead_lettered, sum(metrics.dead_lettered for metrics in consumers))
        found = replace(found, dead_lettered=dead_lettered)
        duplicates = min(found.missing, sum(metrics.duplicates for metrics in consumers))
        found = replace(found, duplicates=found.duplicates + duplicates)
    return found
