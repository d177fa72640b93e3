"""The run's own account of its messages: by the counts of Kafka and of the store, whatever the topic still holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from local.measure import ConsumerSample


@dataclass(frozen=True)
class Accounts:
    """`settled` is what the group has committed; each of these messages must be in one of the other places."""

    settled: int
    stored: int
    dead_lettered: int = 0
    sent_twice: int = 0

    @property
    def missing(self) -> int:
        return max(0, self.settled - self.stored - self.dead_lettered - self.sent_twice)

    @property
    def balanced(self) -> bool:
        return self.missing == 0

    def __str__(self) -> str:
        parts = f"{self.stored:,} stored + {self.dead_lettered:,} dead-lettered"
        if self.sent_twice:
            parts += f" + {self.sent_twice:,} that came a second time"
        return f"{self.settled:,} settled = {parts}" + (f" + {self.missing:,} MISSING" if self.missing else "")


def explained(missing: Accounts, audit: Mapping[str, int], consumers: Sequence[ConsumerSample]) -> Accounts:
    """The same account with what the audit knows of the messages that are not stored.

    Of those that have left the embedded broker's topic the audit knows nothing; for them the consumers' own counters
    are taken, which count a message again that a killed consumer had not committed.
    """
    dead_lettered, sent_twice = audit["dead_lettered"], audit["duplicates"]
    if audit["expired_offsets"]:
        dead_lettered = max(dead_lettered, sum(sample.dead_lettered for sample in consumers))
        open_ = Accounts(missing.settled, missing.stored, dead_lettered, sent_twice).missing
        sent_twice += min(open_, sum(sample.duplicates for sample in consumers))
    return Accounts(missing.settled, missing.stored, dead_lettered, sent_twice)
