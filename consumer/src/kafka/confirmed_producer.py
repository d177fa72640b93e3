"""Produces messages, and waits until each is confirmed by Kafka or has failed."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from src.kafka.sasl import SaslCredentials
from src.model.header_names import sendable
from src.model.record import Headers
from src.settings import KafkaSettings
from src.utils.config import ConfigurationError

TIMEOUT = 10.0  # seconds: a stop must not wait long for an unavailable broker
ANY_PARTITION = -1

_REPORT_DELAY = 2.0  # seconds: the client looks for messages that timed out once a second

# Keys under kafka.client that only consumers have: a producer would log warnings about them.
_CONSUMER_SETTINGS = frozenset(
    (
        "auto.commit.enable",
        "auto.commit.interval.ms",
        "auto.offset.reset",
        "check.crcs",
        "consume.callback.max.messages",
        "coordinator.query.interval.ms",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.partition.eof",
        "fetch.error.backoff.ms",
        "fetch.max.bytes",
        "fetch.message.max.bytes",
        "fetch.min.bytes",
        "fetch.queue.backoff.ms",
        "fetch.wait.max.ms",
        "group.id",
        "group.instance.id",
        "group.protocol",
        "group.protocol.type",
        "group.remote.assignor",
        "heartbeat.interval.ms",
        "isolation.level",
        "max.partition.fetch.bytes",
        "max.poll.interval.ms",
        "offset.store.method",
        "offset.store.path",
        "offset.store.sync.interval.ms",
        "partition.assignment.strategy",
        "queued.max.messages.kbytes",
        "queued.min.messages",
        "session.timeout.ms",
    )
)


class ProducerRecord(NamedTuple):
    """A message to be produced."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int = ANY_PARTITION


class ConfirmedProducer:
    """A Kafka producer that waits for every delivery report. Raises ConfigurationError for wrong settings."""

    def __init__(
        self, settings: KafkaSettings, *, timeout: float = TIMEOUT, producer: Callable[..., Producer] = Producer
    ) -> None:
        self._timeout = timeout
        self._last_error = ""
        self._settings = settings
        self._credentials = SaslCredentials(settings)
        self._factory = producer
        self._producer = self._new_producer()

    def deliver(self, records: Sequence[ProducerRecord]) -> Mapping[int, KafkaError]:
        """Returns the errors of unconfirmed records by index. A record that timed out may be in the topic."""
        self._last_error = ""
        self._credentials.renew_after_failed_login(self._producer)
        unreported = KafkaError(KafkaError._TIMED_OUT, "no delivery report")
        reports: dict[int, KafkaError | None] = dict.fromkeys(range(len(records)), unreported)
        for index, record in enumerate(records):
            self._produce(record, partial(_keep_report, reports, index))
        self._wait_for_reports()
        failures = {index: error for index, error in reports.items() if error is not None}
        if any(error.fatal() or error.code() == KafkaError._FATAL for error in failures.values()):
            self._producer = self._new_producer()  # after a fatal error a producer sends nothing more
        return failures

    def topic_error(self, topic: str, timeout: float) -> KafkaError | None:
        """Why nothing can be sent to this topic; None if it exists. Some brokers create it on this request."""
        self._last_error = ""
        self._credentials.renew_after_failed_login(self._producer)
        try:
            error: KafkaError | None = self._producer.list_topics(topic, timeout).topics[topic].error
        except KafkaException as exception:
            error = exception.args[0]
        self._producer.poll(0)  # serves `_on_error`
        return error

    def explain(self, error: KafkaError) -> str:
        """The error's text, and the last error of the client since `deliver` was called."""
        return f"{error.str()} ({self._last_error})" if self._last_error else str(error.str())

    def close(self) -> None:
        """Does not wait: nothing is in flight between two calls of `deliver`."""
        self._producer.purge()
        self._producer.flush(0)

    def _produce(self, record: ProducerRecord, report: Callable[[KafkaError | None, Message | None], None]) -> None:
        try:
            self._producer.produce(
                record.topic,
                record.value,
                record.key,
                record.partition,
                on_delivery=report,
                headers=[(sendable(name), content) for name, content in record.headers],
            )
        except BufferError:
            report(KafkaError(KafkaError._QUEUE_FULL), None)
        except KafkaException as error:
            report(error.args[0], None)

    def _wait_for_reports(self) -> None:
        """Returns once every message has its delivery report, purged ones included."""
        if self._producer.flush(self._timeout + _REPORT_DELAY):
            self._producer.purge()
            self._producer.flush(self._timeout)

    def _new_producer(self) -> Producer:
        try:
            return self._factory(self._client_settings(), logger=logging.getLogger("librdkafka"))
        except (KafkaException, ValueError, TypeError) as error:
            raise ConfigurationError(f"kafka.client: {error}") from error

    def _client_settings(self) -> dict[str, Any]:
        given = {key: value for key, value in self._settings.client_settings.items() if key not in _CONSUMER_SETTINGS}
        return {
            # defaults that kafka.client may override
            "compression.type": "zstd",  # a message that arrived compressed may be too large uncompressed
            "socket.timeout.ms": 10_000,
            "topic.metadata.propagation.max.ms": 5_000,  # a missing topic is reported within the timeout
            **given,
            # required by the guarantee
            "acks": "all",
            "enable.idempotence": True,
            "message.max.bytes": 1_000_000_000,  # the topic's own limit decides
            "message.timeout.ms": round(self._timeout * 1000),
            "error_cb": self._on_error,
        }

    def _on_error(self, error: KafkaError) -> None:
        self._last_error = error.str()
        self._credentials.record_error(error)


def _keep_report(
    reports: dict[int, KafkaError | None], index: int, error: KafkaError | None, _message: Message | None
) -> None:
    reports[index] = error
