"""Errors, each with the caller's reaction.

ProducerError
├── FatalClientError       the Kafka client will never send again: finish and exit 1
├── InvalidMessage         not a message: log it and continue with the next one
└── UndeliveredStoreError  the undelivered folder cannot be written: hold the messages and retry; exit 1 if it persists
"""


class ProducerError(Exception):
    """Base class of this service's errors."""


class FatalClientError(ProducerError):
    """The Kafka client reported a fatal error; it will never send again."""


class InvalidMessage(ProducerError):
    """The input cannot be sent as a message, now or later."""


class UndeliveredStoreError(ProducerError):
    """Undelivered messages cannot be written to their store."""
