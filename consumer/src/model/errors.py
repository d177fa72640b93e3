"""The errors of this service. The type of an error says what to do.

ConsumerError
├── InvalidMessage      the message's fault: dead-letter it and continue
├── Unavailable         not the message's fault: pause, wait, retry
│   ├── StorageUnavailable
│   ├── SchemaRegistryUnavailable
│   ├── DeadLetterError
│   └── DeadLetterStorm
└── SourceError         the Kafka client has failed for good: end the run, exit 1; nothing unsettled is committed
"""

from collections.abc import Sequence

DEAD_LETTER_STORM = "dead_letter_storm"  # a cause


class ConsumerError(Exception):
    """The root of this service's errors."""


class InvalidMessage(ConsumerError):
    """The message can never be stored. `reason` is a short constant for labels, the text is for people."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Unavailable(ConsumerError):
    """A dependency is unreachable or rejects calls for now. `cause` is a short constant for labels."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


class StorageUnavailable(Unavailable):
    """The call failed as a whole: it is unknown which of its documents are stored, and none is at fault."""


class SchemaRegistryUnavailable(Unavailable):
    """Whether messages are valid is unknown until the schema registry has returned their schema."""

    def __init__(self, text: str) -> None:
        super().__init__("schema_registry", text)


class DeadLetterError(Unavailable):
    """The dead-letter topic has not confirmed the messages at the indexes `unconfirmed`; it has the others."""

    def __init__(self, cause: str, text: str, unconfirmed: Sequence[int]) -> None:
        super().__init__(cause, text)
        self.unconfirmed = unconfirmed


class DeadLetterStorm(Unavailable):
    """So many messages would be dead-lettered that the cause is probably elsewhere: a schema, a rule, a release."""

    def __init__(self, text: str) -> None:
        super().__init__(DEAD_LETTER_STORM, text)


class SourceError(ConsumerError):
    """The Kafka client has failed for good; the next client fetches again what this one has not settled."""
