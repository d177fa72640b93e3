"""The consumer: stores or dead-letters every message, and commits its offset only then."""

import argparse
import gc
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, Protocol, Self, TextIO

from prometheus_client import CollectorRegistry, disable_created_metrics

from src import storage
from src.check import check
from src.data_processor import DataProcessor, processor_for
from src.dead_letters.topic import DeadLetterTopic
from src.kafka.group_member import GroupMember
from src.model.errors import DEAD_LETTER_STORM, DeadLetterError, InvalidMessage, SchemaRegistryUnavailable
from src.model.record import Record, total_bytes
from src.pipeline import dead_letter_writer, result_metrics, storage_writer
from src.pipeline.batch_writer import PROBE_INTERVAL, BatchWriter, Result, WriterOptions
from src.pipeline.writer_thread import WriterThread
from src.settings import DEFAULT_FILE, VERSION, Settings, load_settings
from src.storage import DataStorage
from src.storage_router import open_storage
from src.utils import command_line
from src.utils.config import ConfigurationError, parse
from src.utils.health_server import CannotServe, HealthServer
from src.utils.logging import configure
from src.utils.metrics import ConsumerMetrics
from src.utils.shutdown import ended_by_signals, stopping_on_signals

logger = logging.getLogger("consumer")

MAX_BATCH_BYTES = 16 * 1024 * 1024  # of values; fewer messages than batch_size are read at a time if they are large
POLL_TIMEOUT = 0.1  # seconds that the loop waits for a message, or for a batch while the writer is full
PAUSE_DELAY = 1.0  # seconds that the writer is full before fetching is paused, which drops prefetched messages
DRAIN_TIMEOUT = 3.0  # seconds to settle the batches in flight before partitions are revoked
STOP_TIMEOUT = 5.0  # seconds to settle the batches in flight when asked to stop
LIVENESS_TIMEOUT = 60.0  # seconds without an iteration of the loop
PING_INTERVAL = 10.0  # seconds without work after which the store is pinged
LOOK_UP_INTERVAL = 1.0  # seconds until the dead-letter topic is looked up again
STORE_REASONS = (*storage.REASONS, storage_writer.PROCESSING_FAILED)  # of dead letters, besides those of the processor


class Storage(storage_writer.Storage, Protocol):
    """The store; DataStorage and StorageRouter implement it."""

    def save(self, data: Mapping[str, Any]) -> bool: ...

    def close(self) -> None: ...


class DeadLetters(dead_letter_writer.DeadLetters, Protocol):
    """The dead-letter topic; DeadLetterTopic implements it."""

    @property
    def unavailable_reason(self) -> str | None:
        """Why the topic has not been found; None once it has been."""

    def look_up(self) -> None:
        """Look for the topic, unless it was found before."""


class DataConsumer:
    """Subscribes to the topics, and stores or dead-letters each of its messages.

    `config` is the tree of `config/config.json`, or settings that were loaded already. Raises ConfigurationError.
    """

    def __init__(
        self,
        config: Settings | Mapping[str, Any],
        *,
        group_member: Callable[..., GroupMember] = GroupMember,
        storage: Storage | None = None,
        dead_letters: DeadLetters | None = None,
        processor: DataProcessor | None = None,
        writer: Callable[..., BatchWriter] = BatchWriter,
        registry: CollectorRegistry | None = None,
        reprocess: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        probe_interval: float = PROBE_INTERVAL,
        stop: Event | None = None,
    ) -> None:
        self._settings = settings = config if isinstance(config, Settings) else parse(Settings, config)
        self._clock = clock
        self._stop = stop or Event()
        self.registry = registry or CollectorRegistry()
        self._processor = processor or processor_for(settings)
        self._metrics = ConsumerMetrics(
            self.registry,
            version=VERSION,
            dead_letter_reasons=sorted({*self._processor.reasons, *STORE_REASONS}),
        )
        new_storage = partial(DataStorage, reprocess=reprocess)
        self._storage: Storage = storage or open_storage(settings, new_storage)
        self._dead_letters: DeadLetters = dead_letters or DeadLetterTopic(settings.kafka)
        self._member = group_member(settings.kafka, settings.consumer, self._metrics, clock=clock)
        self._writer = WriterThread(
            writer(
                self._processor,
                self._storage,
                self._dead_letters,
                self._member.assignment,
                WriterOptions(
                    max_retries=settings.consumer.max_retries,
                    storm_percent=settings.consumer.dead_letter_storm_percent,
                    probe_interval=probe_interval,
                ),
                stop=self._stop,
                on_retry=lambda cause: self._metrics.retries.labels(cause).inc(),
                clock=wall_clock,
                monotonic_clock=clock,
            )
        )
        self._metrics.healthy.set_function(lambda: not self.readiness_failures())
        self._limit = settings.consumer.batch_size
        self._waiting: deque[Sequence[Record]] = deque()
        self._paused = False
        self._full_since: float | None = None
        self._look_up: Future[None] | None = None
        self._last_iteration = self._last_work = clock()
        self._last_look_up = clock() - LOOK_UP_INTERVAL

    def process_message(self, message: Mapping[str, Any]) -> bool:
        """Check one decoded message and store it; False if it is invalid or rejected, or the store is unavailable.

        True, too, if the transform skips it.
        """
        try:
            document = self._processor.check(message)
        except InvalidMessage as error:
            logger.info("message invalid", extra={"reason": error.reason, "detail": str(error)})
            return False
        return document is None or self.persist_data(document)

    def persist_data(self, processed_data: Mapping[str, Any]) -> bool:
        """Store one processed message; True once the store has it."""
        return self._storage.save(processed_data)

    def run(self) -> None:
        """Settle batch after batch until asked to stop. Raises SourceError if the Kafka client has failed for good."""
        with (
            stopping_on_signals(self._stop),
            self._health_server(),
            self._writer,
            self._member.subscribe(before_revoke=lambda: self._settle(self._writer.drain(DRAIN_TIMEOUT))),
        ):
            logger.info("consuming", extra=self._summary())
            while not self._stop.is_set():
                self._last_iteration = self._clock()
                self._fetch()
                self._writer.probe_if_due()
                self._settle(self._writer.results(self._result_timeout()))
                self._member.update_lag_if_due()
                self._member.commit_if_due()
                self._look_up_dead_letter_topic()
                self._ping_idle_store()
            logger.info("stopping", extra={"timeout_seconds": STOP_TIMEOUT})
            self._settle(self._writer.drain(STOP_TIMEOUT))
            self._member.update_lag()
        logger.info("stopped")

    def readiness_failures(self) -> list[str]:
        """Why messages are not being settled; empty while the service is ready. Safe from any thread.

        Kafka, the store and the dead-letter topic must each have responded once.
        """
        failures = (
            *self._member.readiness_failures(),
            self._writer_failure(),
            *(f"{storm.cause}: {storm}" for storm in self._writer.storm_guard.failures.values()),
            self._dead_letters.unavailable_reason,
        )
        return [failure for failure in failures if failure]

    def liveness_failures(self) -> list[str]:
        """Why the loop seems to have stalled; empty while it runs. Safe from any thread."""
        silence = self._clock() - self._last_iteration
        return [f"the main loop has stalled for {silence:.0f} s"] if silence > LIVENESS_TIMEOUT else []

    def close(self) -> None:
        """Close the store and the dead-letter producer; `run` has left the group already."""
        self._dead_letters.close()
        self._storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _writer_failure(self) -> str | None:
        blocked_by, store_reached = self._writer.blocked_by, self._writer.store_reached
        if blocked_by:
            return f"{blocked_by.cause}: {blocked_by}"
        return None if store_reached else f"store {self._settings.mongodb.uri}: not reached yet"

    def _fetch(self) -> None:
        """Poll, and submit the records to the writer; while it is full, batches wait here."""
        self._member.hold(self._writer.storm_guard.held)
        if self._writer.full and not self._paused:
            if not self._full_for_long():
                return
            self._pause()
        elif self._paused and not self._writer.full:
            self._resume()
        self._show_paused()
        if records := self._member.poll(self._limit, POLL_TIMEOUT):
            self._waiting.append(records)
            self._limit = self._next_limit(records)
        if self._waiting and not self._writer.full:
            self._submit(self._waiting.popleft())

    def _next_limit(self, records: Sequence[Record]) -> int:
        """How many messages of the size of these are a batch."""
        fitting = MAX_BATCH_BYTES * len(records) // max(1, total_bytes(records))
        return max(1, min(fitting, self._settings.consumer.batch_size))

    def _submit(self, records: Sequence[Record]) -> None:
        self._full_since = None
        self._last_work = self._clock()
        self._writer.submit(records)

    def _settle(self, results: Sequence[Result]) -> None:
        for result in results:
            self._member.assignment.settle(result.records)
            if result.rejections:
                self._member.commit_soon()  # uncommitted, they would be dead-lettered again after a crash
            result_metrics.count(result, self._metrics)

    def _result_timeout(self) -> float:
        """Seconds to wait for a result: none where the poll has waited already."""
        return POLL_TIMEOUT if self._writer.full and not self._paused else 0.0

    def _full_for_long(self) -> bool:
        now = self._clock()
        self._full_since = self._full_since or now
        return self._writer.storm_guard.full or now - self._full_since >= PAUSE_DELAY

    def _pause(self) -> None:
        """Fetch nothing but keep polling, so that this member stays in the group however long it takes."""
        logger.info("fetching paused", extra={"reason": self._pause_reason()})
        self._paused = True
        self._member.pause()

    def _resume(self) -> None:
        logger.info("fetching resumed")
        self._paused = False
        self._member.resume()

    def _pause_reason(self) -> str:
        match self._writer.blocked_by:
            case None:
                return DEAD_LETTER_STORM if self._writer.storm_guard.full else "backpressure"
            case DeadLetterError():
                return "dead_letters"
            case SchemaRegistryUnavailable():
                return "schema_registry"
        return "storage"

    def _show_paused(self) -> None:
        reasons = {self._pause_reason()} if self._paused or self._writer.blocked_by else set()
        stopped = {(partition, "offset_gap") for partition in self._member.assignment.gaps}
        held = {(partition, DEAD_LETTER_STORM) for partition in self._writer.storm_guard.failures}
        paused = frozenset(stopped | held)
        self._metrics.show_paused(reasons | {reason for _, reason in paused}, paused)

    def _ping_idle_store(self) -> None:
        now = self._clock()
        if not self._writer.idle:
            self._last_work = now
        elif now - self._last_work >= PING_INTERVAL:
            self._last_work = now
            self._writer.ping()

    def _look_up_dead_letter_topic(self) -> None:
        """Repeats until the topic is found; in the writer's thread, because the loop must not wait for the response."""
        if self._dead_letters.unavailable_reason is None or not (self._look_up is None or self._look_up.done()):
            return
        now = self._clock()
        if now - self._last_look_up >= LOOK_UP_INTERVAL:
            self._last_look_up = now
            self._look_up = self._writer.call(self._dead_letters.look_up)

    def _health_server(self) -> HealthServer:
        metrics = self._settings.metrics
        server = HealthServer(
            metrics.host,
            metrics.port,
            registry=self.registry if metrics.enabled else None,
            liveness_failures=self.liveness_failures,
            readiness_failures=self.readiness_failures,
        )
        logger.info("serving metrics and health", extra={"address": metrics.host, "port": server.port})
        return server

    def _summary(self) -> dict[str, object]:
        kafka, consumer = self._settings.kafka, self._settings.consumer
        return {
            "topic": ", ".join(kafka.subscription),
            "group": kafka.group_id,
            "dead_letter_topic": kafka.dead_letter_topic,
            "batch_size": consumer.batch_size,
            "commit_interval_ms": consumer.offset_commit_frequency_ms,
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Exit codes: 0 asked to stop, 1 failed, 2 wrong configuration."""
    return command_line.run("consumer", lambda: _main(_parser().parse_args(arguments)), {ConfigurationError: 2})


def _main(options: argparse.Namespace) -> int:
    if options.check:
        with ended_by_signals():
            return _check(options.config)
    stop = Event()
    with stopping_on_signals(stop):
        return _run(options, stop)


def _settings_from(path: Path, log: TextIO | None = None) -> Settings:
    settings = load_settings(path, os.environ)
    configure(
        service="consumer",
        version=VERSION,
        level=settings.logging.level,
        style=settings.logging.format,
        stream=log,
        log_dir=settings.logging.log_dir,
    )
    return settings


def _check(path: Path) -> int:
    settings = _settings_from(path, sys.stderr)
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL)  # its errors are in the results
    return check(settings, path, environ=os.environ)


def _run(options: argparse.Namespace, stop: Event) -> int:
    settings = _settings_from(options.config)
    disable_created_metrics()
    try:
        with DataConsumer(settings, reprocess=options.reprocess, stop=stop) as consumer:
            _relax_garbage_collection()
            consumer.run()
    except CannotServe as error:
        logger.error("cannot serve metrics and health", extra={"reason": str(error)})
        return 1
    return 0


def _relax_garbage_collection() -> None:
    """A batch creates thousands of objects and no cycles; searching for cycles at the usual pace costs a tenth of the
    CPU time, most of it for visiting what exists since the start."""
    gc.freeze()
    gc.set_threshold(20_000)


def _parser() -> argparse.ArgumentParser:
    parser = command_line.parser(
        "consumer",
        VERSION,
        "Store every message of a Kafka topic in MongoDB, or send it to the dead-letter topic, until SIGTERM or"
        " Ctrl-C.",
        notes="Environment variables take precedence over the settings file; docs/configuration.md lists the settings.",
        examples=["--check"],
        exit_codes="0 stopped by a signal, or all checks passed; 1 failed; 2 a check failed, or wrong configuration or"
        " arguments",
    )
    command_line.add_config(parser, DEFAULT_FILE)
    parser.add_argument(
        "--check",
        action="store_true",
        help="check the settings, Kafka and MongoDB, print the results, and exit with 0, or with 2 if a check fails",
    )
    parser.add_argument(
        "--reprocess",
        action="store_true",
        help="replace the document of a message that is read again by what the processing makes of it now",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
