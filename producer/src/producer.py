"""The producer: makes messages at a set pace and hands each to Kafka, or writes down that it could not."""

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any, Protocol, Self

from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from src.check import check
from src.data_generator import DataGenerator
from src.delivery import TURN, Delivery, Publisher, RetryPolicy
from src.jsonl_input import Stream, UserLines, opened
from src.kafka.publisher import NO_TIMEOUT, KafkaPublisher
from src.model.errors import InvalidInput
from src.model.message import Encoded, Headers, Message, encode
from src.pacing import Pacer, describe
from src.settings import DEFAULT_FILE, VERSION, KafkaSettings, ProducerSettings, Settings, load_settings
from src.undelivered.resender import BackgroundResender
from src.undelivered.segments import Undelivered
from src.utils.config import ConfigurationError
from src.utils.health_server import CannotServe, HealthServer
from src.utils.logging import configure
from src.utils.metrics import ProducerMetrics
from src.utils.shutdown import ended_by_signals, stopping_on_signals

logger = logging.getLogger("producer")

LIVENESS_TIMEOUT = 30.0  # seconds without a turn of the loop
LOOK_AGAIN = 0.02  # seconds until more of the user's lines may have been read


class MessageSource(Protocol):
    """Where the loop gets messages from."""

    @property
    def exhausted(self) -> bool: ...

    def take(self, size: int) -> Sequence[Encoded]: ...


class Generated:
    """Messages made on demand: `count` of them, or without an end."""

    def __init__(self, generator: DataGenerator, count: int | None = None) -> None:
        self._generator = generator
        self._left = count

    @property
    def exhausted(self) -> bool:
        return self._left == 0

    def take(self, size: int) -> list[Encoded]:
        if self._left is not None:
            size = min(size, self._left)
            self._left -= size
        return [encode(message) for message in self._generator.generate_batch(size)]


class DataProducer:
    """Makes and sends messages. Each is delivered, or kept whole in the undelivered folder.

    Without settings it reads `config/config.json` and the environment, and sets up the process's logging. It is used
    by one thread. Raises ConfigurationError.
    """

    def __init__(
        self,
        *,
        settings: Settings | None = None,
        publisher: Publisher | None = None,
        generator: DataGenerator | None = None,
        undelivered: Undelivered | None = None,
        registry: CollectorRegistry | None = None,
        clock: Callable[[], float] = time.monotonic,
        stop: Event | None = None,
    ) -> None:
        self._settings = settings = settings or _settings_from(DEFAULT_FILE)
        self._generator = generator or DataGenerator()
        self._clock = clock
        self._stop = stop or Event()
        self._registry = registry or CollectorRegistry()
        self._last_turn = clock()
        metrics = ProducerMetrics(self._registry, version=VERSION)
        self._kept = undelivered or Undelivered(Path(settings.producer.undelivered_dir), settings.kafka.topic)
        self._publisher = publisher or _publisher(settings.kafka, settings.producer)
        self._delivery = Delivery(
            self._publisher,
            self._kept,
            _policy(settings.producer),
            metrics,
            clock=clock,
            stop=self._stop,
        )
        self._trickle = BackgroundResender(self._kept, self._delivery, stop=self._stop, clock=clock)
        metrics.watch(
            queue=lambda: self._delivery.outstanding,
            undelivered=self._kept.count,
            healthy=lambda: not self._readiness_failures(),
        )

    def generate_data(self, batch_size: int) -> list[Message]:
        return self._generator.generate_batch(batch_size)

    def send_message(self, key: str, value: dict[str, Any], headers: Headers = None) -> bool:
        """Send one message; True once Kafka has it. False: it is no message, or it is kept."""
        return self.send_batch([(key, value, headers)]) == 1

    def send_batch(self, batch: Sequence[Message | tuple[str, dict[str, Any], Headers]]) -> int:
        """Send these and wait for each one's delivery report, retries included; how many Kafka has."""
        messages = list(_encodable(batch))
        return self._delivery.deliver(messages).delivered if messages else 0

    def run(self, interval: float = 0.1, batch_size: int = 100) -> None:
        """Send a batch every `interval` seconds until SIGTERM or SIGINT. A producer runs once.

        Raises BrokerError where the Kafka client can't go on, CannotServe where the metrics port can't be had,
        UndeliveredFileError where messages can't be kept at the end.
        """
        self.send_all(Generated(self._generator), interval, batch_size)

    def send_all(self, feed: MessageSource, interval: float, batch_size: int) -> bool:
        """As `run`, with messages from the feed, until that is exhausted too; True if every one was delivered."""
        logger.info("producing", extra={"pace": describe(interval, batch_size), "topic": self._settings.kafka.topic})
        pacer = Pacer(interval, self._clock)
        with stopping_on_signals(self._stop), self._health_server(), self:
            while not self._stop.is_set() and self._is_work_left(feed):
                self._last_turn = self._clock()
                self._send_due_batch(feed, pacer, batch_size)
                self._trickle.turn()
                self._delivery.turn(self._patience(feed, pacer))
        self._tell_end()
        return feed.exhausted and not self.undelivered

    def close(self) -> None:
        """Keep what was not delivered, and let go of Kafka; a run does so at its end.

        Kafka comes last: its client waits for a look-up of a name that is under way, which may outlast all patience.
        """
        with closing(self._publisher), self._trickle:
            self._delivery.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def delivered(self) -> int:
        """Messages of this producer that Kafka has, at once or from the undelivered folder."""
        return self._delivery.delivered + self._delivery.undelivered - self.undelivered

    @property
    def undelivered(self) -> int:
        """Messages of this producer that are in the undelivered folder."""
        return self._kept.left()

    def _is_work_left(self, feed: MessageSource) -> bool:
        """At the end of its feed a run does not wait for what it found in the folder, nor for a Kafka that is away."""
        return not feed.exhausted or self._delivery.outstanding > self._trickle.on_its_way or self._trickle.unfinished

    def _send_due_batch(self, feed: MessageSource, pacer: Pacer, batch_size: int) -> None:
        if pacer.wait() or feed.exhausted or not self._delivery.has_room:
            return
        messages = feed.take(batch_size)
        if messages:
            pacer.took(len(messages) / batch_size)
            self._delivery.dispatch(messages)
        else:
            pacer.idle(LOOK_AGAIN)

    def _patience(self, feed: MessageSource, pacer: Pacer) -> float:
        """Seconds that the loop may wait for delivery reports."""
        return TURN if feed.exhausted or not self._delivery.has_room else pacer.wait()

    def _tell_end(self) -> None:
        logger.info("stopped", extra={"delivered": self.delivered, "undelivered": self.undelivered})

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
        reasons = self._delivery.readiness_failures() + ([self._trickle.trouble] if self._trickle.trouble else [])
        waiting = self._kept.count() if reasons else 0
        return [*reasons, f"{waiting} messages are in the undelivered folder"] if waiting else reasons

    def _liveness_failures(self) -> list[str]:
        silence = self._clock() - self._last_turn
        return [f"the main loop has stalled for {silence:.0f} s"] if silence > LIVENESS_TIMEOUT else []


def _publisher(kafka: KafkaSettings, producer: ProducerSettings) -> KafkaPublisher:
    """Who waits has the client do it: it keeps the order, and makes no second copy of what it has sent already."""
    return KafkaPublisher(kafka, delivery_timeout_ms=NO_TIMEOUT if producer.waits else producer.delivery_timeout_ms)


def _policy(producer: ProducerSettings) -> RetryPolicy:
    return RetryPolicy(None if producer.waits else producer.max_retries, producer.initial_retry_delay_ms / 1000)


def _encodable(batch: Sequence[Message | tuple[str, dict[str, Any], Headers]]) -> Iterator[Encoded]:
    """The messages that can be sent at all; a caller's mistake in one does not hold up its neighbours."""
    for message in batch:
        try:
            yield encode(message)
        except InvalidInput as error:
            logger.error("not a message, not sent", extra={"reason": str(error)})


def _settings_from(path: Path) -> Settings:
    settings = load_settings(path, os.environ)
    configure(
        service="producer",
        version=VERSION,
        level=settings.logging.level,
        style=settings.logging.format,
        log_dir=settings.logging.log_dir,
    )
    return settings


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Exit codes: 0 asked to stop or all delivered, 1 failed, 2 wrong configuration."""
    options = _parser().parse_args(arguments)
    stop = Event()
    try:
        if options.check:
            with ended_by_signals():
                return check(_settings_from(options.config), options.config)
        with stopping_on_signals(stop):
            return _act(options, stop)
    except ConfigurationError as error:
        print(f"producer: {error}", file=sys.stderr)
        return 2
    except CannotServe as error:
        logger.error("cannot serve metrics and health", extra={"reason": str(error)})
        return 1
    except Exception:
        logger.exception("stopped by an error")
        return 1


def _act(options: argparse.Namespace, stop: Event) -> int:
    settings = _settings_from(options.config)
    if options.input is not None:
        stream = opened(options.input)
        settings = replace(settings, metrics=replace(settings.metrics, port=0))  # beside a producer that runs
        return _send_input(DataProducer(settings=settings, stop=stop), stream, settings)
    generator = DataGenerator()
    producer = DataProducer(settings=settings, generator=generator, stop=stop)
    interval, batch_size = settings.producer.batch_interval, settings.producer.batch_size
    if options.count is None:
        producer.run(interval=interval, batch_size=batch_size)
        return 0
    return 0 if producer.send_all(Generated(generator, options.count), interval, batch_size) else 1


def _send_input(producer: DataProducer, stream: Stream, settings: Settings) -> int:
    lines = UserLines(stream)
    complete = producer.send_all(lines, settings.producer.batch_interval, settings.producer.batch_size)
    logger.info(
        "input sent" if complete else "input not sent completely",
        extra={
            "read": lines.read,
            "delivered": producer.delivered,
            "undelivered": producer.undelivered,
            "broken": lines.broken,
        },
    )
    return 0 if complete and not lines.broken else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m src.producer",
        description="Makes messages at a set pace and sends each to Kafka, until SIGTERM or Ctrl-C. A message that"
        " Kafka does not confirm is kept whole: see python -m src.undelivered --help.",
        epilog="Settings come from the file, and from environment variables, which win; the README lists them."
        " Exit codes: 0 asked to stop, or all delivered; 1 failed, or not all delivered; 2 wrong"
        " configuration.",
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE, metavar="PATH", help="settings file (%(default)s)")
    task = parser.add_mutually_exclusive_group()
    task.add_argument(
        "--check",
        action="store_true",
        help="try the settings, Kafka and the undelivered folder, print what was found, and exit with 0, or 2 if"
        " anything is wrong; sends nothing",
    )
    task.add_argument(
        "--count", type=_count, metavar="N", help="send N messages, then exit: with 0 if all were delivered"
    )
    task.add_argument(
        "--input",
        metavar="FILE",
        help="send your own messages instead: one JSON object a line, - is standard input. Its id is the key; one"
        " without an id is given a UUID. Same pace and retries; the metrics port is a free one; exits with 0 only if"
        " every line was delivered",
    )
    return parser


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
