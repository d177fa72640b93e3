"""The run's own account of its messages: by the counts of Kafka and of the store, whatever the topic still holds."""

from dataclasses import dataclass


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
