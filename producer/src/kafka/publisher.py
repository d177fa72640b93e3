"""KafkaPublisher: messages in, delivery reports out. The rest of the service knows no Kafka client."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Report

from src.kafka.produce_request import Fault, ProduceRequest
from src.kafka.statistics import ClusterStatistics
from src.model.errors import BrokerError
from src.model.message import Encoded
from src.settings import KafkaSettings
from src.utils.config import ConfigurationError

logger = logging.getLogger(__name__)

NO_TIMEOUT = 0  # milliseconds, as the client writes it

# Kafka answers these for a whole request, although one message in it may be the cause.
_OF_THE_REQUEST = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_RECORD)

_Headers = list[tuple[str, str | bytes | None]]  # as the client declares it; a list of narrower pairs is none of those


class KafkaPublisher:
    """An idempotent producer to one topic. It is used by one thread; `trouble` may be read by any.

    Raises ConfigurationError where the client refuses a key under `kafka.client`.
    """

    def __init__(
        self, settings: KafkaSettings, *, delivery_timeout_ms: int, producer: Callable[..., Producer] = Producer
    ) -> None:
        self._topic = settings.topic
        self._view = ClusterStatistics(settings.servers)
        self._settled: deque[ProduceRequest] = deque()
        self._fatal: str | None = None
        self._reasons = _reasons(delivery_timeout_ms / 1000)
        config = self._client_settings(settings, delivery_timeout_ms)
        try:
            self._client = producer(config, logger=logging.getLogger("librdkafka"))
        except (KafkaException, ValueError, TypeError) as error:
            raise ConfigurationError(f"kafka.client: {text_of(error)}") from error

    def send(self, messages: Sequence[Encoded]) -> ProduceRequest:
        """Hand over as many messages as the client has room for, in order; the shipment's `size` is how many."""
        shipment = ProduceRequest(self._settled.append)
        for message in messages:
            try:
                self._hand_over(message, shipment)
            except BufferError:
                break
        shipment.seal()
        return shipment

    def settled(self, timeout: float) -> list[ProduceRequest]:
        """Serve delivery reports, for up to `timeout` seconds if there are none; the shipments that they settled.

        Raises BrokerError when the client is of no use any more.
        """
        if self._fatal:
            raise BrokerError(self._fatal)
        try:
            self._client.poll(0 if self._settled else timeout)
        except (KafkaException, SystemError) as error:  # the latter where a report was served with the former pending
            self._fatal = f"the Kafka client can't go on: {text_of(error)}"
            raise BrokerError(self._fatal) from error
        settled = list(self._settled)
        self._settled.clear()
        if any(shipment.delivered for shipment in settled):
            self._view.answered()
        return settled

    def purge(self) -> None:
        """Send nothing more: what has no report yet gets one, which says whether it may be in the topic."""
        self._client.purge()

    def close(self) -> None:
        self._client.close()

    @property
    def trouble(self) -> str | None:
        """Why nothing can be sent; None while a broker is there."""
        return self._fatal or self._view.trouble

    def _client_settings(self, settings: KafkaSettings, delivery_timeout_ms: int) -> dict[str, Any]:
        return {
            # what an operator may change under kafka.client …
            "linger.ms": 5,
            "queue.buffering.max.messages": 100_000,
            "queue.buffering.max.kbytes": 131_072,
            **settings.client_settings,
            # … and what the promise rests on
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": settings.compression_type,
            "message.timeout.ms": delivery_timeout_ms,
            "statistics.interval.ms": 1_000,
            "error_cb": self._on_error,
            "stats_cb": self._view.update,
        }

    def _hand_over(self, message: Encoded, shipment: ProduceRequest) -> None:
        """Raises BufferError while the client is full."""
        key, value, headers = message
        report = partial(self._on_report, shipment, shipment.size)
        try:
            self._client.produce(self._topic, value, key, headers=cast(_Headers, headers), on_delivery=report)
        except KafkaException as exception:
            self._on_refusal(message, shipment, cast(KafkaError, exception.args[0]))
        else:
            shipment.load(message)

    def _on_refusal(self, message: Encoded, shipment: ProduceRequest, error: KafkaError) -> None:
        """The client itself refuses: for size, or for what the brokers told it earlier."""
        if error.code() == KafkaError._FATAL:
            self._fatal = self._fatal or f"the Kafka client can't go on: {error.str()}"
        fault = Fault.MESSAGE if error.code() == KafkaError.MSG_SIZE_TOO_LARGE else Fault.WORLD
        shipment.refuse(message, fault, error.str())

    def _on_report(self, shipment: ProduceRequest, number: int, error: KafkaError | None, _report: Report) -> None:
        """A report has neither headers nor a place for our own reference: the message is known by its number."""
        if error is None:
            shipment.report_delivered(number)
        else:
            fault = Fault.COMPANY if error.code() in _OF_THE_REQUEST else Fault.WORLD
            shipment.report_failed(number, fault, self._reasons.get(error.code(), error.str()))

    def _on_error(self, error: KafkaError) -> None:
        """A broker's trouble, or that of all. (A fatal one does not come here: the client raises it out of `poll`.)"""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._view.all_are_away()
            if self._view.trouble:
                return  # which was said already, and in more detail
        reason = self._view.complain(error.str(), unresolved=error.code() == KafkaError._RESOLVE)
        logger.warning("broker unreachable", extra={"reason": reason})


def _reasons(delivery_timeout: float) -> dict[int, str]:
    """What to say of the client's own errors: above all, whether the message may be in the topic all the same."""
    return {
        KafkaError._MSG_TIMED_OUT: f"not confirmed within {delivery_timeout:g} s; it may be in the topic",
        KafkaError._PURGE_INFLIGHT: "stopped before it was confirmed; it may be in the topic",
        KafkaError._PURGE_QUEUE: "stopped before it was sent",
    }


def text_of(exception: BaseException) -> str:
    """What the client says in an exception, or in the one that it was raised from."""
    cause = exception.__cause__ or exception
    error = cause.args[0] if cause.args else cause
    return error.str() if isinstance(error, KafkaError) else str(error)
