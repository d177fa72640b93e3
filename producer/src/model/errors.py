"""What can go wrong, and so what to do.

ProducerError
├── BrokerError            the client can't go on: keep what is in flight, end the run, exit 1
├── InvalidInput           what was given is no message: name it and go on
└── UndeliveredFileError   the undelivered file can't be written: hold the messages, try again; exit 1 if it lasts
"""


class ProducerError(Exception):
    """The root of this service's errors."""


class BrokerError(ProducerError):
    """The Kafka client reported a fatal error; it will never send again."""


class InvalidInput(ProducerError):
    """This can't be sent as a message, now or later."""


class UndeliveredFileError(ProducerError):
    """Messages that were given up can't be kept."""
