"""KafkaPublisher: the only module that produces through the Kafka client."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import repeat
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as DeliveryReport

from src.kafka.produce_request import Identifier, ProduceRequest
from src.kafka.sasl import SaslCredentials
from src.kafka.statistics import ClusterStatistics
from src.model.delivery_failure import Fault
from src.model.errors import FatalClientError
from src.model.message import ProducerRecord
from src.settings import KafkaSettings
from src.utils.config import ConfigurationError

logger = logging.getLogger(__name__)

NO_TIMEOUT = 0  # milliseconds; message.timeout.ms 0 means no timeout
LIFETIME = 10.0  # seconds; the successor of a client that fails sooner would fail, too

# Kafka returns these for a whole produce request although a single record may be the cause.
_REQUEST_ERRORS = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_RECORD)


class KafkaPublisher:
    """An idempotent producer for one topic, used by one thread; any thread may read `unavailable_reason` and
    `topic_failure`.

    A client with a fatal error is replaced, and what it had not delivered fails: librdkafka's idempotent producer has
    one in some outages, for instance where too few replicas are in sync (its issue 4736). Raises ConfigurationError
    where librdkafka rejects a key under `kafka.client`.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        delivery_timeout_ms: int,
        producer: Callable[..., Producer] = Producer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topic = settings.topic
        self._statistics = ClusterStatistics(settings.servers, settings.topic)
        self._completed: deque[ProduceRequest] = deque()
        self._fatal_error: str | None = None
        self._reasons = _reasons(settings.topic, delivery_timeout_ms / 1000)
        self._credentials = SaslCredentials(settings)
        self._open: set[ProduceRequest] = set()
        self._clock = clock
        config = self._client_settings(settings, delivery_timeout_ms)
        self._new_client = partial(producer, config, logger=logging.getLogger("librdkafka"))
        try:
            self._client = self._new_client()
        except (KafkaException, ValueError, TypeError) as error:
            raise ConfigurationError(f"kafka.client: {error_text(error)}") from error
        self._created = clock()

    def send(self, records: Sequence[ProducerRecord]) -> ProduceRequest:
        """Hand over as many records as fit into the client's queue, in order; the request's `size` says how many."""
        request = ProduceRequest(records, self._completed.append)
        self._open.add(request)
        request.seal(self._produce(records, request))
        return request

    def poll(self, timeout: float) -> list[ProduceRequest]:
        """Serve delivery reports, waiting up to `timeout` seconds for the first; returns the requests they completed.

        Raises FatalClientError.
        """
        try:
            self._client.poll(0 if self._completed else timeout)
        except (KafkaException, SystemError) as error:  # SystemError: a report was served while the former was pending
            self._fatal_error = self._fatal_error or f"fatal Kafka client error: {error_text(error)}"
        if self._fatal_error:
            self._replace_client(self._fatal_error)
        self._credentials.renew_after_failed_login(self._client)
        completed = list(self._completed)
        self._completed.clear()
        self._open.difference_update(completed)
        if any(request.delivered for request in completed):
            self._statistics.record_delivery()
        return completed

    def purge(self) -> None:
        """Stop sending. Every unreported record gets a report that says whether it may be in the topic."""
        self._client.purge()

    def close(self) -> None:
        self._client.close()

    @property
    def unavailable_reason(self) -> str | None:
        """Why nothing can be sent; None while a broker is reachable."""
        return self._fatal_error or self._statistics.unavailable_reason

    @property
    def topic_failure(self) -> str | None:
        """Why messages wait although a broker is reachable; None once the topic has been found."""
        return self._statistics.topic_failure

    def _client_settings(self, settings: KafkaSettings, delivery_timeout_ms: int) -> dict[str, Any]:
        return {
            # defaults that kafka.client may override
            "linger.ms": 5,
            "socket.timeout.ms": 10_000,  # a frozen broker is given up, and its partitions have a new leader by then
            "queue.buffering.max.messages": 100_000,
            "queue.buffering.max.kbytes": 131_072,
            **settings.client_settings,
            # required by the delivery guarantees
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": settings.compression_type,
            "message.timeout.ms": delivery_timeout_ms,
            "statistics.interval.ms": 1_000,
            "error_cb": self._on_error,
            "stats_cb": self._statistics.update,
        }

    def _replace_client(self, reason: str) -> None:
        """Raises FatalClientError for a client that has failed at once."""
        if self._clock() < self._created + LIFETIME:
            raise FatalClientError(reason)
        logger.error("Kafka client failed, recreating it", extra={"reason": reason})
        with suppress(KafkaException, SystemError):
            self._client.purge()
            self._client.close()  # serves the delivery reports
        for request in self._open.difference(self._completed):
            request.fail_unreported(f"{reason}; it may be in the topic")
            self._completed.append(request)
        self._client, self._created, self._fatal_error = self._new_client(), self._clock(), None

    def _produce(self, records: Sequence[ProducerRecord], request: ProduceRequest) -> int:
        """Returns how many the client has accepted or rejected until its queue was full."""
        produce: Callable[..., None] = self._client.produce
        topic = self._topic
        for number, (record, on_delivery) in enumerate(zip(records, self._callbacks(request), strict=False)):
            try:
                produce(topic, record.value, record.key, headers=record.headers, on_delivery=on_delivery)
            except BufferError:
                return number
            except KafkaException as exception:
                self._on_produce_error(request, request.identifiers[number], cast(KafkaError, exception.args[0]))
        return len(records)

    def _callbacks(self, request: ProduceRequest) -> Iterable[Callable[[KafkaError | None, DeliveryReport], None]]:
        """For the delivery report of each record. It has the key, but no headers, and no reference to the record."""
        if request.identified_by_key:
            return repeat(partial(self._on_delivery, request, None))
        return (partial(self._on_delivery, request, number) for number in request.identifiers)

    def _on_produce_error(self, request: ProduceRequest, identifier: Identifier, error: KafkaError) -> None:
        """The client rejects the record: because of its size, or of an error that the brokers returned earlier."""
        if error.code() == KafkaError._FATAL:
            self._fatal_error = self._fatal_error or f"fatal Kafka client error: {error.str()}"
        fault = Fault.PERMANENT if error.code() == KafkaError.MSG_SIZE_TOO_LARGE else Fault.TRANSIENT
        request.report_failed(identifier, fault, self._reasons.get(error.code(), error.str()))

    def _on_delivery(
        self, request: ProduceRequest, number: Identifier, error: KafkaError | None, report: DeliveryReport
    ) -> None:
        identifier = report.key() if number is None else number
        if error is None:
            request.report_delivered(identifier)
        else:
            fault = Fault.BATCH if error.code() in _REQUEST_ERRORS else Fault.TRANSIENT
            request.report_failed(identifier, fault, self._reasons.get(error.code(), error.str()))

    def _on_error(self, error: KafkaError) -> None:
        """One or all brokers are unreachable. Fatal errors are not passed here: the client raises them from `poll`."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._statistics.record_all_brokers_down()
            if self._statistics.unavailable_reason:
                return  # logged already, with more detail
        reason = self._statistics.record_error(error.str(), unresolved=error.code() == KafkaError._RESOLVE)
        logger.warning("broker unreachable", extra={"reason": reason})
        self._credentials.record_error(error)


def _reasons(topic: str, delivery_timeout: float) -> dict[int, str]:
    """Texts for missing ACLs, and for the client's own errors, which say whether the message may be in the topic."""
    return {
        KafkaError.TOPIC_AUTHORIZATION_FAILED: f"not authorized to write to topic {topic}; the user needs an ACL",
        KafkaError.CLUSTER_AUTHORIZATION_FAILED: "not authorized for IdempotentWrite on the cluster",
        KafkaError._MSG_TIMED_OUT: f"not acknowledged within {delivery_timeout:g} s; it may be in the topic",
        KafkaError._PURGE_INFLIGHT: "producer stopped before the acknowledgement; it may be in the topic",
        KafkaError._PURGE_QUEUE: "producer stopped before sending",
    }


def error_text(exception: BaseException) -> str:
    """The client's text in an exception, or in the one it was raised from."""
    cause = exception.__cause__ or exception
    error = cause.args[0] if cause.args else cause
    return error.str() if isinstance(error, KafkaError) else str(error)
