"""What can go wrong, and so what to do.

ConsumerError
├── InvalidMessage      the message's fault: park it and go on
├── Unavailable         the world's fault: pause, wait, try again
│   ├── StorageUnavailable
│   ├── DeadLetterError
│   └── DeadLetterStorm
└── SourceError         the Kafka client can't go on: end the run, exit 1; nothing unsettled is committed
"""

from collections.abc import Sequence


class ConsumerError(Exception):
    """The root of this service's errors."""


class InvalidMessage(ConsumerError):
    """The message can never be stored. `reason` is a short constant for labels, the text is for people."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Unavailable(ConsumerError):
    """Something outside does not answer, or answers "not now". `cause` is a short constant for labels."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


class StorageUnavailable(Unavailable):
    """Nothing is known of the documents of this call, nor was any of them at fault."""


class DeadLetterError(Unavailable):
    """The dead-letter topic has not confirmed the letters at the positions `unconfirmed`; it has the others."""

    def __init__(self, cause: str, text: str, unconfirmed: Sequence[int]) -> None:
        super().__init__(cause, text)
        self.unconfirmed = unconfirmed


class DeadLetterStorm(Unavailable):
    """So many messages would be dead-lettered that the fault is hardly theirs: a schema, a rule, a release of ours."""

    def __init__(self, text: str) -> None:
        super().__init__("dead_letter_storm", text)


class SourceError(ConsumerError):
    """The Kafka consumer is of no use any more; what it had fetched is fetched again by the next one."""
