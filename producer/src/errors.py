"""What can go wrong, and so what to do.

ProducerError
├── BrokerError            the client can't go on: end the run, exit 1
├── InvalidInput           a line of the user's is no message: name it and go on
└── UndeliveredFileError   the undelivered file can't be written: end the run, exit 1 (2 at the start)
"""


class ProducerError(Exception):
    """The root of this service's errors."""


class BrokerError(ProducerError):
    """The Kafka client reported a fatal error; it will never send again."""


class InvalidInput(ProducerError):
    """A line of the user's own is no message."""


class UndeliveredFileError(ProducerError):
    """Messages that were given up can't be kept."""
