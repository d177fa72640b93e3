"""The producer: sends messages to Kafka at a configured rate, and writes those it cannot deliver to a folder."""

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any, Self, TextIO

from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from src.check import check
from src.command_line import options_of
from src.data_generator import DataGenerator
from src.delivery.delivery import POLL_TIMEOUT, Delivery, Publisher
from src.delivery.retry_policy import RetryPolicy
from src.jsonl_input import JsonlInput, open_input
from src.kafka.publisher import NO_TIMEOUT, KafkaPublisher
from src.message_sources import GeneratedMessages, MessageSource
from src.model.errors import InvalidMessage
from src.model.message import Headers, Message, ProducerRecord, encode
from src.pacing import Pacer, describe_rate
from src.settings import DEFAULT_FILE, VERSION, KafkaSettings, ProducerSettings, Settings, load_settings
from src.undelivered.background_resender import BackgroundResender
from src.undelivered.folder import UndeliveredFolder
from src.utils import command_line
from src.utils.config import ConfigurationError
from src.utils.health_server import CannotServe, HealthServer
from src.utils.logging import configure
from src.utils.metrics import ProducerMetrics
from src.utils.shutdown import ended_by_signals, stopping_on_signals

logger = logging.getLogger("producer")

LIVENESS_TIMEOUT = 30.0  # seconds that one iteration of the main loop may take
INPUT_POLL_INTERVAL = 0.02  # seconds until a source without messages is asked again


class DataProducer:
    """Generates and sends messages. Each is delivered to Kafka, or written to the undelivered folder.

    Without settings it reads `config/config.json` and the environment, and configures the process's logging. It is used
    by one thread. Raises ConfigurationError.
    """

    def __init__(
        self,
        *,
        settings: Settings | None = None,
        publisher: Publisher | None = None,
        generator: DataGenerator | None = None,
        undelivered: UndeliveredFolder | None = None,
        registry: CollectorRegistry | None = None,
        clock: Callable[[], float] = time.monotonic,
        stop: Event | None = None,
    ) -> None:
        self._settings = settings = settings or _load_settings(DEFAULT_FILE)
        self._generator = generator or DataGenerator()
        self._clock = clock
        self._stop = stop or Event()
        self._registry = registry or CollectorRegistry()
        self._last_iteration = clock()
        metrics = ProducerMetrics(self._registry, version=VERSION)
        self._folder = undelivered or UndeliveredFolder(Path(settings.producer.undelivered_dir), settings.kafka.topic)
        self._publisher = publisher or _publisher(settings.kafka, settings.producer)
        self._delivery = Delivery(
            self._publisher,
            self._folder,
            _retry_policy(settings.producer),
            metrics,
            clock=clock,
            stop=self._stop,
        )
        self._resender = BackgroundResender(self._folder, self._delivery, stop=self._stop, clock=clock)
        metrics.watch(
            queue=lambda: self._delivery.ledger.in_flight,
            undelivered=self._folder.count,
            healthy=lambda: not self._readiness_failures(),
        )

    def generate_data(self, batch_size: int) -> list[Message]:
        return self._generator.generate_batch(batch_size)

    def send_message(self, key: str, value: dict[str, Any], headers: Headers = None) -> bool:
        """Send one message; True once Kafka has acknowledged it. False: it is invalid, or in the undelivered folder."""
        return self.send_batch([(key, value, headers)]) == 1

    def send_batch(self, batch: Sequence[Message | tuple[str, dict[str, Any], Headers]]) -> int:
        """Send messages and wait for their delivery reports, retries included; returns how many are acknowledged."""
        records = list(_encode_valid(batch))
        return self._delivery.send_and_wait(records).delivered if records else 0

    def run(self, interval: float = 0.1, batch_size: int = 100) -> None:
        """Send a batch every `interval` seconds until SIGTERM or SIGINT. A producer runs once.

        Raises FatalClientError, CannotServe where the metrics port is not available, and UndeliveredStoreError where
        undelivered messages cannot be written at the end.
        """
        self.send_from(GeneratedMessages(self._generator), interval, batch_size)

    def send_from(self, source: MessageSource, interval: float, batch_size: int) -> bool:
        """As `run`, with messages from `source`, also until it is exhausted; True if every message was delivered."""
        rate = describe_rate(interval, batch_size)
        logger.info("producer started", extra={"rate": rate, "topic": self._settings.kafka.topic})
        pacer = Pacer(interval, self._clock)
        with stopping_on_signals(self._stop), self._health_server(), self:
            while not self._stop.is_set() and self._has_work(source):
                self._last_iteration = self._clock()
                self._send_due_batch(source, pacer, batch_size)
                self._resender.poll_once()
                self._delivery.poll_once(self._poll_timeout(source, pacer))
        logger.info("producer stopped", extra={"delivered": self.delivered, "undelivered": self.undelivered})
        return source.exhausted and not self.undelivered

    def close(self) -> None:
        """Write undelivered messages to the folder and close the Kafka client; a run does so at its end.

        The client comes last: closing it waits for a DNS lookup in progress, which may take longer than the grace
        period of the process.
        """
        with closing(self._publisher), self._resender:
            self._delivery.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def delivered(self) -> int:
        """Messages of this producer that Kafka has acknowledged, directly or from the undelivered folder."""
        ledger = self._delivery.ledger
        return ledger.delivered + ledger.undelivered - self.undelivered

    @property
    def undelivered(self) -> int:
        """Messages of this producer in the undelivered folder."""
        return self._folder.count_own()

    def _has_work(self, source: MessageSource) -> bool:
        """Once its source is exhausted, a run waits neither for other processes' messages nor for Kafka to recover."""
        own_in_flight = self._delivery.ledger.in_flight > self._resender.in_flight
        return not source.exhausted or own_in_flight or self._resender.has_own_messages

    def _send_due_batch(self, source: MessageSource, pacer: Pacer, batch_size: int) -> None:
        if pacer.seconds_until_due() or source.exhausted or not self._delivery.has_capacity:
            return
        records = source.next_batch(batch_size)
        if records:
            pacer.advance(len(records) / batch_size)
            self._delivery.send(records)
        else:
            pacer.postpone(INPUT_POLL_INTERVAL)

    def _poll_timeout(self, source: MessageSource, pacer: Pacer) -> float:
        waits_for_reports = source.exhausted or not self._delivery.has_capacity
        return POLL_TIMEOUT if waits_for_reports else pacer.seconds_until_due()

    def _health_server(self) -> HealthServer:
        metrics = self._settings.metrics
        server = HealthServer(
            metrics.host,
            metrics.port,
            registry=self._registry if metrics.enabled else None,
            liveness_failures=self._liveness_failures,
            readiness_failures=self._readiness_failures,
        )
        logger.info("serving metrics and health", extra={"address": metrics.host, "port": server.port})
        return server

    def _readiness_failures(self) -> list[str]:
        reasons = self._delivery.readiness_failures() + ([self._resender.error] if self._resender.error else [])
        waiting = self._folder.count() if reasons else 0
        return [*reasons, f"{waiting} messages in the undelivered folder"] if waiting else reasons

    def _liveness_failures(self) -> list[str]:
        elapsed = self._clock() - self._last_iteration
        return [f"the main loop has stalled for {elapsed:.0f} s"] if elapsed > LIVENESS_TIMEOUT else []


def _publisher(kafka: KafkaSettings, producer: ProducerSettings) -> KafkaPublisher:
    """With `on_outage: wait` the client itself waits: it preserves the order and creates no duplicates."""
    return KafkaPublisher(kafka, delivery_timeout_ms=NO_TIMEOUT if producer.waits else producer.delivery_timeout_ms)


def _retry_policy(producer: ProducerSettings) -> RetryPolicy:
    return RetryPolicy(None if producer.waits else producer.max_retries, producer.initial_retry_delay_ms / 1000)


def _encode_valid(batch: Sequence[Message | tuple[str, dict[str, Any], Headers]]) -> Iterator[ProducerRecord]:
    """An invalid message does not affect the others of its batch."""
    for message in batch:
        try:
            yield encode(message)
        except InvalidMessage as error:
            logger.error("invalid message not sent", extra={"reason": str(error)})


def _load_settings(path: Path, log: TextIO | None = None) -> Settings:
    settings = load_settings(path, os.environ)
    configure(
        service="producer",
        version=VERSION,
        level=settings.logging.level,
        style=settings.logging.format,
        stream=log,
        log_dir=settings.logging.log_dir,
    )
    return settings


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Exit codes: 0 stopped by a signal or all delivered, 1 failed, 2 wrong configuration."""
    return command_line.run("producer", lambda: _main(options_of(arguments)), {ConfigurationError: 2})


def _main(options: argparse.Namespace) -> int:
    if options.check:
        with ended_by_signals():
            return check(_load_settings(options.config, sys.stderr), options.config, environ=os.environ)
    stop = Event()
    try:
        with stopping_on_signals(stop):
            return _run(options, stop)
    except CannotServe as error:
        logger.error("cannot serve metrics and health", extra={"reason": str(error)})
        return 1


def _run(options: argparse.Namespace, stop: Event) -> int:
    settings = _load_settings(options.config)
    if options.input is not None:
        stream = open_input(options.input)
        settings = replace(settings, metrics=replace(settings.metrics, port=0))  # another producer may be running
        lines = JsonlInput(stream, id_field=options.id_field or settings.producer.id_field)
        return _send_input(DataProducer(settings=settings, stop=stop), lines, settings)
    generator = DataGenerator()
    producer = DataProducer(settings=settings, generator=generator, stop=stop)
    interval, batch_size = settings.producer.batch_interval, settings.producer.batch_size
    if options.count is None:
        producer.run(interval=interval, batch_size=batch_size)
        return 0
    return 0 if producer.send_from(GeneratedMessages(generator, options.count), interval, batch_size) else 1


def _send_input(producer: DataProducer, lines: JsonlInput, settings: Settings) -> int:
    complete = producer.send_from(lines, settings.producer.batch_interval, settings.producer.batch_size)
    logger.info(
        "input delivered" if complete else "input not fully delivered",
        extra={
            "read": lines.read,
            "delivered": producer.delivered,
            "undelivered": producer.undelivered,
            "invalid": lines.invalid,
        },
    )
    return 0 if complete and not lines.invalid else 1


if __name__ == "__main__":
    sys.exit(main())
