"""`python -m src.undelivered`: list or resend undelivered messages."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from prometheus_client import CollectorRegistry

from src.delivery.delivery import Delivery, Publisher
from src.delivery.retry_policy import RetryPolicy
from src.kafka.publisher import KafkaPublisher
from src.settings import DEFAULT_FILE, VERSION, Settings, load_settings
from src.undelivered.files import count_lines
from src.undelivered.folder import UndeliveredFolder
from src.undelivered.listing import list_messages
from src.undelivered.resender import BATCH_SIZE, Resender, SegmentResult
from src.undelivered.segments import corrupt_lines_path, corrupt_lines_paths, segment_paths
from src.utils import command_line
from src.utils.config import ConfigurationError
from src.utils.logging import configure
from src.utils.metrics import ProducerMetrics
from src.utils.progress import ProgressLine
from src.utils.shutdown import stopping_on_signals


@dataclass
class ResendSummary:
    """The outcome of the messages in the folder; prints a line for each segment."""

    sent: int = 0
    left: int = 0
    corrupt: int = 0
    in_use: int = 0
    errors: int = 0

    def add(self, result: SegmentResult) -> None:
        if result.skipped:
            result = _with_line_count(result)
        self.sent += result.sent
        self.left += result.left
        self.corrupt += result.corrupt
        self.in_use += result.in_use
        self.errors += result.error is not None
        print(_describe(result), file=sys.stderr if result.error else sys.stdout)

    @property
    def complete(self) -> bool:
        return not (self.left or self.corrupt or self.in_use or self.errors)


def resend(
    folder: UndeliveredFolder,
    publisher: Publisher,
    policy: RetryPolicy,
    *,
    stop: Event,
    clock: Callable[[], float] = time.monotonic,
    batch_size: int = BATCH_SIZE,
    progress: ProgressLine | None = None,
) -> ResendSummary:
    """Send the messages in the folder as fast as possible, until Kafka turns out to be unavailable."""
    summary = ResendSummary()
    metrics = ProducerMetrics(CollectorRegistry(), version=VERSION)
    delivery = Delivery(publisher, folder, policy, metrics, clock=clock, stop=stop)
    progress = progress or ProgressLine("undelivered", quiet=True)

    def on_result(result: SegmentResult) -> None:
        progress.erase()
        summary.add(result)

    def stopped() -> bool:
        return stop.is_set() or (delivery.failing and bool(publisher.unavailable_reason))

    resender = Resender(folder, delivery, on_result=on_result, include_rejected=True, batch_size=batch_size)
    with progress.task("resending", _count_messages(folder.path)) as add:
        for batch in resender.batches(stopped):
            delivery.wait_for(batch)
            add(batch.size)
    return summary


def _count_messages(folder: Path) -> int | None:
    """None if a segment cannot be read, or is resent by a producer meanwhile."""
    try:
        return sum(map(count_lines, segment_paths(folder)))
    except OSError:
        return None


def _with_line_count(result: SegmentResult) -> SegmentResult:
    """A skipped segment's messages are left."""
    try:
        return result._replace(left=count_lines(result.segment))
    except FileNotFoundError:  # a producer has resent it meanwhile
        return result
    except OSError as error:
        return result._replace(error=error.strerror or str(error))


def _describe(result: SegmentResult) -> str:
    name = result.segment.name
    if result.in_use:
        return f"{name}: in use, skipped"
    if result.error:
        return f"undelivered: {name}: cannot be read or rewritten, left unchanged: {result.error}"
    corrupt = f", {result.corrupt} corrupt moved to {corrupt_lines_path(result.segment).name}" if result.corrupt else ""
    return f"{name}: {result.sent} sent, {result.left} left{corrupt}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Exit codes: 0 no message is left, 1 some are left or in use, 2 wrong configuration."""
    failures: dict[type[Exception], int] = {ConfigurationError: 2, OSError: 1}
    return command_line.run("undelivered", lambda: _run(_parser().parse_args(arguments)), failures)


def _run(options: argparse.Namespace) -> int:
    settings = load_settings(options.config, os.environ)
    configure(service="undelivered", version=VERSION, level="WARNING", style="text", stream=sys.stderr)
    folder = options.dir or Path(settings.producer.undelivered_dir)
    corrupt = options.command == "list" and corrupt_lines_paths(folder)
    if folder.is_dir() and not (segment_paths(folder) or corrupt):
        print(f"no undelivered messages in {folder}", file=sys.stderr)
        return 0
    return _list(folder) if options.command == "list" else _resend(settings, folder, quiet=options.quiet)


def _list(folder: Path) -> int:
    if not folder.is_dir():
        raise ConfigurationError(f"folder {folder} does not exist; use --dir or set PRODUCER_UNDELIVERED_DIR")
    list_messages(folder, local=sys.stdout.isatty())
    return 0


def _resend(settings: Settings, path: Path, *, quiet: bool) -> int:
    stop = Event()
    folder = UndeliveredFolder(path, settings.kafka.topic)
    publisher = KafkaPublisher(settings.kafka, delivery_timeout_ms=settings.producer.delivery_timeout_ms)
    policy = RetryPolicy(settings.producer.max_retries, settings.producer.initial_retry_delay_ms / 1000)
    with stopping_on_signals(stop):
        try:
            summary = resend(folder, publisher, policy, stop=stop, progress=ProgressLine("undelivered", quiet=quiet))
        finally:
            publisher.close()
    print(f"{summary.sent} sent, {summary.left} left, {summary.corrupt} corrupt, {summary.in_use} segments in use")
    return 0 if summary.complete else 1


def _parser() -> argparse.ArgumentParser:
    parser = command_line.parser(
        "undelivered",
        VERSION,
        "List or resend the messages that the producer could not deliver. A message stays in the undelivered folder,"
        " with the reason, until Kafka acknowledges it. Times are in the local time zone on a terminal, otherwise in"
        " UTC.",
        examples=["list", "resend"],
        exit_codes="0 all are listed, or none is left; 1 failed, or some are left, or in use by a producer; 2 wrong"
        " configuration or arguments",
    )
    parser.add_argument(
        "command",
        choices=("list", "resend"),
        help="list the messages, or send them again, including those that Kafka rejected and that a producer does not"
        " resend automatically",
    )
    command_line.add_quiet(parser)
    parser.add_argument("--dir", type=Path, metavar="PATH", help="the folder (default: producer.undelivered_dir)")
    command_line.add_config(parser, DEFAULT_FILE)
    return parser


if __name__ == "__main__":
    sys.exit(main())
