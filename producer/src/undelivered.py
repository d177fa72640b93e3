"""The command line for messages that were given up: list them, send them again."""

import argparse
import io
import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import BinaryIO

from prometheus_client import CollectorRegistry

from src.delivery import Delivery, Publisher, RetryPolicy
from src.errors import UndeliveredFileError
from src.message import utc_text
from src.publisher import KafkaPublisher
from src.segments import Kept, Remainder, from_line, prove_writable, segments, taken, to_line
from src.settings import DEFAULT_FILE, VERSION, Settings, load_settings
from src.shipment import Failure
from src.utils.config import ConfigurationError
from src.utils.logging import configure
from src.utils.metrics import ProducerMetrics
from src.utils.shutdown import stopping_on_signals

logger = logging.getLogger("undelivered")

AT_ONCE = 1000  # lines that are read, sent and settled together
SHOWN = 200  # characters of a value


@dataclass
class Tally:
    """What became of the lines that were looked at."""

    sent: int = 0
    left: int = 0
    aside: int = 0
    in_use: int = 0


class Resender:
    """Sends what dead processes left, and takes out of their segments only what Kafka has confirmed."""

    def __init__(
        self,
        publisher: Publisher,
        topic: str,
        policy: RetryPolicy,
        *,
        stop: Event,
        clock: Callable[[], float] = time.monotonic,
        at_once: int = AT_ONCE,
    ) -> None:
        self._publisher = publisher
        self._topic = topic
        self._policy = policy
        self._stop = stop
        self._clock = clock
        self._at_once = at_once
        self._metrics = ProducerMetrics(CollectorRegistry(), version=VERSION)

    def resend(self, folder: Path) -> Tally:
        """Raises UndeliveredFileError where what is left can't be written back; nothing is lost then."""
        tally = Tally()
        for path in segments(folder):
            with taken(path) as segment:
                if segment is None:
                    tally.in_use += 1
                    print(f"{path.name}: in use, left alone")
                else:
                    self._resend_segment(path, segment, tally)
        return tally

    def _resend_segment(self, path: Path, segment: BinaryIO, tally: Tally) -> None:
        sent, aside = tally.sent, tally.aside
        try:
            with Remainder(path) as remainder:
                self._send_lines(segment, remainder, tally)
        except OSError as error:
            raise UndeliveredFileError(f"{path}: {error.strerror or error}") from error
        tally.left += remainder.lines
        named = f", {tally.aside - aside} broken now in {remainder.aside.name}" if tally.aside > aside else ""
        print(f"{path.name}: {tally.sent - sent} sent, {remainder.lines} left{named}")

    def _send_lines(self, segment: BinaryIO, remainder: Remainder, tally: Tally) -> None:
        delivery = Delivery(
            self._publisher,
            _Returning(remainder, self._topic),
            self._policy,
            self._metrics,
            clock=self._clock,
            stop=self._stop,
        )
        for lines in _chunks(segment, self._at_once):
            if self._stop.is_set() or (delivery.undelivered and self._publisher.trouble):
                _return_unsent(lines, remainder)
                continue
            messages = [kept.message for kept in self._ours(lines, remainder, tally)]
            tally.sent += delivery.deliver(messages).delivered

    def _ours(self, lines: Iterable[bytes], remainder: Remainder, tally: Tally) -> Iterator[Kept]:
        for line in lines:
            kept = from_line(line)
            if kept is None:
                remainder.put_aside(line)
                tally.aside += 1
            elif kept.topic != self._topic:
                logger.warning("message of another topic left alone", extra={"topic": kept.topic})
                remainder.add(line)
            else:
                yield kept


class _Returning:
    """What is given up once more goes back into its segment, with the new reason."""

    def __init__(self, remainder: Remainder, topic: str) -> None:
        self._remainder = remainder
        self._topic = topic

    def keep(self, failures: Sequence[Failure]) -> None:
        now = utc_text(time.time())
        for failure in failures:
            self._remainder.add(to_line(failure, self._topic, now))

    def close(self) -> None:
        """The remainder is closed by who opened it."""


def _chunks(segment: BinaryIO, size: int) -> Iterator[list[bytes]]:
    """Its lines, cut at newline bytes alone: a value may hold what Python's text files take for a line end."""
    return iter(lambda: list(itertools.islice(segment, size)), [])


def _return_unsent(lines: Iterable[bytes], remainder: Remainder) -> None:
    for line in lines:
        remainder.add(line)


def list_messages(folder: Path) -> int:
    """Print every message of the folder; the number of them."""
    total = 0
    for path in segments(folder):
        with taken(path) as ours:
            print(f"{path.name}{'' if ours else '  (its process is running)'}")
        with path.open("rb") as segment:
            for number, line in enumerate(segment, 1):
                print(f"  {_described(line, number)}")
                total += 1
    print(f"{total} messages in {folder}")
    return total


def _described(line: bytes, number: int) -> str:
    kept = from_line(line)
    if kept is None:
        return f"line {number} is broken; resend puts it aside"
    key, value, _ = kept.message
    return f"{kept.given_up_at}  {kept.topic}  key={_shown(key)}  {_shown(value)}  {_plain(kept.reason)}"


def _shown(content: bytes | None) -> str:
    """Safe for any terminal: what could steer it is escaped."""
    text = "none" if content is None else _plain(content.decode(errors="backslashreplace"))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(content or b'')} bytes)"


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Exit codes: 0 nothing is left that could be sent, 1 something is, 2 wrong configuration."""
    options = _parser().parse_args(arguments)
    try:
        settings = load_settings(options.config, os.environ)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        configure(service="undelivered", version=VERSION, level="WARNING", style="text", stream=sys.stderr)
        folder = options.dir or Path(settings.producer.undelivered_dir)
        return _list(folder) if options.command == "list" else _resend(settings, folder)
    except ConfigurationError as error:
        print(f"undelivered: {error}", file=sys.stderr)
        return 2
    except UndeliveredFileError as error:
        print(f"undelivered: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _list(folder: Path) -> int:
    if not folder.is_dir():
        raise ConfigurationError(f"there is no folder {folder}: name it with --dir, or set PRODUCER_UNDELIVERED_DIR")
    list_messages(folder)
    sys.stdout.flush()
    return 0


def _resend(settings: Settings, folder: Path) -> int:
    prove_writable(folder)
    stop = Event()
    publisher = KafkaPublisher(settings.kafka, delivery_timeout_ms=settings.producer.delivery_timeout_ms)
    policy = RetryPolicy(settings.producer.max_retries, settings.producer.initial_retry_delay_ms / 1000)
    with stopping_on_signals(stop):
        try:
            tally = Resender(publisher, settings.kafka.topic, policy, stop=stop).resend(folder)
        finally:
            publisher.close()
    print(f"{tally.sent} sent, {tally.left} left, {tally.aside} broken, {tally.in_use} segments in use")
    return 1 if tally.left or tally.aside else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m src.undelivered",
        description="Messages that the producer gave up: each is kept whole, with the reason, until Kafka has it.",
        epilog="Exit codes: 0 nothing is left that could be sent, 1 something is, 2 wrong configuration.",
    )
    parser.add_argument(
        "command",
        choices=("list", "resend"),
        help="list them; or send them again: those of running producers stay, and so does what Kafka does not confirm",
    )
    parser.add_argument("--dir", type=Path, metavar="PATH", help="the folder (default: producer.undelivered_dir)")
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE, metavar="PATH", help="settings file (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
