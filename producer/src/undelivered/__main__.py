"""The command line for messages that were given up: list them, send them again."""

import argparse
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from prometheus_client import CollectorRegistry

from src.delivery import Delivery, Publisher, RetryPolicy
from src.kafka.publisher import KafkaPublisher
from src.settings import DEFAULT_FILE, VERSION, Settings, load_settings
from src.undelivered.files import lines_in
from src.undelivered.resender import AT_ONCE, Outcome, Resender
from src.undelivered.segments import Undelivered, aside, from_line, segments, taken
from src.utils.config import ConfigurationError
from src.utils.logging import configure
from src.utils.metrics import ProducerMetrics
from src.utils.shutdown import stopping_on_signals

SHOWN = 200  # characters of a value


@dataclass
class Tally:
    """What became of the messages that were looked at."""

    sent: int = 0
    left: int = 0
    broken: int = 0
    in_use: int = 0
    troubles: int = 0

    def take_note(self, outcome: Outcome) -> None:
        if outcome.passed_over:
            outcome = _counted(outcome)
        self.sent += outcome.sent
        self.left += outcome.left
        self.broken += outcome.broken
        self.in_use += outcome.in_use
        self.troubles += outcome.trouble is not None
        print(_told(outcome), file=sys.stderr if outcome.trouble else sys.stdout)

    @property
    def all_gone(self) -> bool:
        return not (self.left or self.broken or self.in_use or self.troubles)


def resend(
    kept: Undelivered,
    publisher: Publisher,
    policy: RetryPolicy,
    *,
    stop: Event,
    clock: Callable[[], float] = time.monotonic,
    at_once: int = AT_ONCE,
) -> Tally:
    """Send what is in the folder, as fast as it goes, until that shows that Kafka is away."""
    tally = Tally()
    metrics = ProducerMetrics(CollectorRegistry(), version=VERSION)
    delivery = Delivery(publisher, kept, policy, metrics, clock=clock, stop=stop)
    resender = Resender(kept, delivery, tell=tally.take_note, refused_too=True, at_once=at_once)
    for batch in resender.batches(lambda: stop.is_set() or (delivery.fails and publisher.trouble is not None)):
        delivery.see_through(batch)
    return tally


def _counted(outcome: Outcome) -> Outcome:
    """With what is left in a segment that was passed over."""
    try:
        return outcome._replace(left=lines_in(outcome.segment))
    except FileNotFoundError:  # a producer has sent it meanwhile
        return outcome
    except OSError as error:
        return outcome._replace(trouble=error.strerror or str(error))


def _told(outcome: Outcome) -> str:
    name = outcome.segment.name
    if outcome.in_use:
        return f"{name}: in use, left alone"
    if outcome.trouble:
        return (
            f"undelivered: {name}: can't be read, or what is left written back, so all of it stays: {outcome.trouble}"
        )
    broken = f", {outcome.broken} broken now in {aside(outcome.segment).name}" if outcome.broken else ""
    return f"{name}: {outcome.sent} sent, {outcome.left} left{broken}"


def list_messages(folder: Path) -> int:
    """Print every message of the folder; the number of them."""
    total = sum(map(_list_segment, segments(folder)))
    print(f"{total} messages in {folder}")
    return total


def _list_segment(path: Path) -> int:
    """Print its messages; the number of them. It is locked for a moment alone: who reads the list may take hours."""
    try:
        with taken(path) as ours:
            in_use = ours is None
        segment = path.open("rb")
    except FileNotFoundError:  # a producer has sent it meanwhile
        return 0
    except OSError as error:
        print(f"{path.name}  (can't be read: {error.strerror or error})")
        return 0
    print(f"{path.name}{'  (in use)' if in_use else ''}")
    number = 0
    with segment:
        for number, line in enumerate(segment, 1):
            print(f"  {_described(line, number)}")
    return number


def _described(line: bytes, number: int) -> str:
    kept = from_line(line)
    if kept is None:
        return f"line {number} is broken; resend puts it aside"
    key, value, _ = kept.message
    refused = "refused: " if kept.refused else ""
    return f"{kept.given_up_at}  {kept.topic}  key={_shown(key)}  {_shown(value)}  {refused}{_plain(kept.reason)}"


def _shown(content: bytes | None) -> str:
    """Safe for any terminal: what could steer it is escaped."""
    text = "none" if content is None else _plain(content.decode(errors="backslashreplace"))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(content or b'')} bytes)"


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Exit codes: 0 nothing is left, 1 something is, or is in use, 2 wrong configuration."""
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
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"undelivered: {error}", file=sys.stderr)
        return 1


def _list(folder: Path) -> int:
    if not folder.is_dir():
        raise ConfigurationError(f"there is no folder {folder}: name it with --dir, or set PRODUCER_UNDELIVERED_DIR")
    list_messages(folder)
    sys.stdout.flush()
    return 0


def _resend(settings: Settings, folder: Path) -> int:
    stop = Event()
    kept = Undelivered(folder, settings.kafka.topic)
    publisher = KafkaPublisher(settings.kafka, delivery_timeout_ms=settings.producer.delivery_timeout_ms)
    policy = RetryPolicy(settings.producer.max_retries, settings.producer.initial_retry_delay_ms / 1000)
    with stopping_on_signals(stop):
        try:
            tally = resend(kept, publisher, policy, stop=stop)
        finally:
            publisher.close()
    print(f"{tally.sent} sent, {tally.left} left, {tally.broken} broken, {tally.in_use} segments in use")
    return 0 if tally.all_gone else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m src.undelivered",
        description="Messages that the producer gave up: each is kept whole, with the reason, until Kafka has it.",
        epilog="Exit codes: 0 nothing is left, 1 something is, or is in use by a producer, 2 wrong configuration.",
    )
    parser.add_argument(
        "command",
        choices=("list", "resend"),
        help="list them; or send them again, also those that Kafka refused and that a producer does not send by itself:"
        " what Kafka does not confirm stays",
    )
    parser.add_argument("--dir", type=Path, metavar="PATH", help="the folder (default: producer.undelivered_dir)")
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE, metavar="PATH", help="settings file (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
