"""One local run, from the first process to the audit."""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from subprocess import CompletedProcess
from threading import Event

from rich.console import Console

from local import plan
from local.children import Child, run_program, write_settings
from local.connectivity import require_mongodb_reachable
from local.counts import Counts, with_audit
from local.errors import CannotRun
from local.folder import Folder, locked
from local.kafka import Kafka, kafka
from local.metrics import (
    ConsumerMetrics,
    Measurement,
    RecentMeasurements,
    http_get,
    merged,
    parse_consumer_metrics,
)
from local.offsets import Progress
from local.options import Options
from local.table import ConsumerRow, LiveTable, PlainLines, Snapshot, View

POLL_INTERVAL = 0.1  # seconds; each poll lets more bytes pass the throttle
DRAW_INTERVAL = 0.5
STALL_TIMEOUT = 45.0  # seconds without progress; a killed consumer's group needs 10 to rebalance
DRAIN_TIMEOUT = 120.0  # seconds after Ctrl-C

_COUNT_STORED = (
    "import json, sys; from src.storage import DataStorage; settings = json.load(open(sys.argv[1]));"
    " pages = DataStorage(settings['mongodb']).scan();"
    " positions = (message.position for page in pages for message in page);"
    " print(sum(position is not None and position.topic == settings['kafka']['topic'] for position in positions))"
)


def run(options: Options, stop: Event, path: Path = plan.FOLDER) -> int:
    """Run until the requested messages are settled, or until `stop` is set. Raises CannotRun."""
    names = plan.names(options, plan.timestamp())
    if options.mongodb:
        require_mongodb_reachable(options.mongodb)
    with locked(path) as folder, kafka(options, names) as broker:
        folder.prepare(keep=options.keep)
        producing = plan.producer_settings(options, names, broker.address, path)
        consuming = plan.consumer_settings(options, names, broker.address, path)
        producer_file = write_settings(path / "producer.json", producing)
        consumer_file = write_settings(path / "consumer.json", consuming)
        _print_plan(options, names)
        if options.kafka or options.mongodb:
            _check_servers(consumer_file)
        broker.keep_topics()
        correct = _run_services(options, stop, broker, folder, producer_file, consumer_file)
        _print_locations(options, names, consumer_file)
        return 0 if correct else 1


def _run_services(
    options: Options, stop: Event, broker: Kafka, folder: Folder, producer_file: Path, consumer_file: Path
) -> bool:
    """Whether every message is accounted for, and no process failed."""
    with ExitStack() as processes:

        def start(name: str, service: str, command: Sequence[str]) -> Child:
            log = folder.path / "logs" / f"{name}.log"
            environment = plan.environment(os.environ)
            child = Child(name, command, plan.ROOT / service, log, environment=environment, lock=folder.lock)
            return processes.enter_context(child)

        consumers = [
            start(f"consumer-{number}", "consumer", plan.command("src.consumer", consumer_file))
            for number in range(1, options.consumers + 1)
        ]
        count = ["--count", str(options.messages)] if options.messages else []
        producer = start("producer", "producer", plan.command("src.producer", producer_file, *count))
        folder.record_processes([os.getpid(), producer.pid, *(consumer.pid for consumer in consumers)])
        with LiveTable(Console()) if sys.stdout.isatty() else PlainLines() as view:
            monitor = Monitor(broker, producer, consumers, view=view, settings=consumer_file)
            settled = monitor.run(stop)
        healthy = _stop_all(producer, consumers, stopped=stop.is_set())
        correct = _audit(broker.progress(), consumers=monitor.metrics, settings=consumer_file)
        return settled and healthy and correct


class Monitor:
    """Watches the messages flow, and shows them."""

    def __init__(
        self,
        kafka: Kafka,
        producer: Child,
        consumers: Sequence[Child],
        *,
        view: View,
        settings: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kafka = kafka
        self._producer = producer
        self._consumers = consumers
        self._view = view
        self._settings = settings
        self._clock = clock
        self._started = clock()
        self._drawn = self._started
        self._recent = RecentMeasurements()
        self._metrics = {consumer.name: ConsumerMetrics() for consumer in consumers}
        self._addresses_printed = False
        self._first_stored = False
        self._ended: set[str] = set()
        self._progress = Progress()
        self._readable = True
        """Whether the progress is current; False while Kafka is unavailable, which does not end the run."""

    @property
    def metrics(self) -> Sequence[ConsumerMetrics]:
        """The last metrics of each consumer."""
        return list(self._metrics.values())

    def run(self, stop: Event) -> bool:
        """Return when the producer has ended and everything is settled; False if that takes too long."""
        self._produce(stop)
        self._view.print("Stopping." if stop.is_set() else "The producer has finished; waiting for the consumers.")
        settled = self._drain(stop)
        self._draw(self._read_progress(), last=True)
        return settled

    def _produce(self, stop: Event) -> None:
        while self._producer.exit_code is None and not stop.is_set():
            self._poll()
            stop.wait(POLL_INTERVAL)
            if any(consumer.failed for consumer in self._consumers):
                break
        self._producer.terminate()

    def _drain(self, stop: Event) -> bool:
        """Whether everything was settled in time. After a stop, unsettled messages are no failure."""
        pause = Event()
        progress = self._poll()
        changed, deadline = self._clock(), self._clock() + DRAIN_TIMEOUT
        while self._producer.exit_code is None or progress.lag or not self._readable:
            pause.wait(POLL_INTERVAL)
            before, progress = progress, self._poll()
            now = self._clock()
            if progress != before:
                changed = now
            if now > changed + STALL_TIMEOUT or (stop.is_set() and now > deadline) or self._all_consumers_failed():
                self._view.print(f"Timed out: {progress.lag:,} messages are not settled.")
                return stop.is_set()
        return True

    def _all_consumers_failed(self) -> bool:
        ended = [consumer for consumer in self._consumers if consumer.exit_code is not None]
        return len(ended) == len(self._consumers) and any(consumer.failed for consumer in ended)

    def _poll(self) -> Progress:
        progress = self._read_progress()
        self._print_ended()
        self._print_addresses()
        self._print_first_stored(progress)
        if self._clock() >= self._drawn + DRAW_INTERVAL:
            self._draw(progress)
        return progress

    def _read_progress(self) -> Progress:
        """The last known one while Kafka is unavailable."""
        try:
            self._progress = self._kafka.progress()
        except CannotRun as error:
            if self._readable:
                self._view.print(f"Waiting for Kafka: {error}")
            self._readable = False
        else:
            self._readable = True
        return self._progress

    def _draw(self, progress: Progress, *, last: bool = False) -> None:
        self._drawn = self._clock()
        self._read_metrics()
        latency = merged(metrics.latency for metrics in self._metrics.values())
        self._recent.add(Measurement(self._drawn, progress.settled, latency))
        self._view.show(self._snapshot(progress, last))

    def _read_metrics(self) -> None:
        for consumer in self._consumers:
            text = http_get(consumer.port, "/metrics") if consumer.exit_code is None else None
            if text is not None:
                self._metrics[consumer.name] = parse_consumer_metrics(text)

    def _snapshot(self, progress: Progress, last: bool) -> Snapshot:
        dead_lettered = min(progress.settled, sum(metrics.dead_lettered for metrics in self._metrics.values()))
        return Snapshot(
            elapsed=self._drawn - self._started,
            produced=progress.produced,
            stored=progress.settled - dead_lettered,
            dead_lettered=dead_lettered,
            lag=progress.lag,
            rate=self._recent.rate,
            p50=self._recent.quantile(0.5),
            p99=self._recent.quantile(0.99),
            producer=self._producer.state,
            consumers=[
                ConsumerRow(child.name, child.pid, child.state, child.partitions, self._metrics[child.name])
                for child in self._consumers
            ],
            last=last,
        )

    def _print_ended(self) -> None:
        for consumer in self._consumers:
            if consumer.exit_code is not None and consumer.name not in self._ended:
                self._ended.add(consumer.name)
                self._view.print(describe_end(consumer))

    def _print_addresses(self) -> None:
        children = [self._producer, *self._consumers]
        if self._addresses_printed or not all(child.port for child in children):
            return
        self._addresses_printed = True
        for child in children:
            self._view.print(f"  {child.name}: pid {child.pid}, http://127.0.0.1:{child.port}/metrics")
        command = plan.shell_line("consumer", plan.command("src.consumer", self._settings))
        self._view.print(f"To start another consumer, run in another terminal:\n  {command}")

    def _print_first_stored(self, progress: Progress) -> None:
        if not self._first_stored and progress.settled:
            self._first_stored = True
            self._view.print(f"First messages stored after {self._clock() - self._started:.1f} s.")


def describe_end(consumer: Child) -> str:
    if consumer.failed:
        return describe_failure(consumer)
    return f"{consumer.name} is {consumer.state}; the others take over its partitions within about ten seconds."


def describe_failure(child: Child) -> str:
    return "\n  ".join([f"{child.name} has {child.state}. The last lines of {child.log}:", *child.last_lines()])


def _print_plan(options: Options, names: plan.Names) -> None:
    rate = f"{options.rate:,.1f} messages per second" if options.rate else "as fast as possible"
    end = f"{options.messages:,} messages" if options.messages else "until Ctrl-C"
    print(f"{options.consumers} consumers, {rate}, {end}.")
    if options.kafka:
        print(
            f"Kafka {options.kafka}: topics {names.topic} and {names.dead_letter_topic}; both are kept after the run."
        )
    else:
        print("Kafka is an embedded broker, for evaluation only: its data is lost when the run ends.")


def _check_servers(settings: Path) -> None:
    """Let the consumer check whether it can work with these servers."""
    check = _run_consumer_program(plan.command("src.consumer", settings, "--check"))
    if check.returncode:
        print(check.stdout + check.stderr, file=sys.stderr)
        raise CannotRun("the consumer cannot work with these servers; see its check above")


def _stop_all(producer: Child, consumers: Sequence[Child], *, stopped: bool) -> bool:
    """Stop every process gracefully; whether none has failed.

    A stopped producer that could not deliver everything exits with an error, which is no failure of the run: the
    messages are in the undelivered folder.
    """
    children = [producer, *consumers]
    for child in children:
        child.terminate()
    late = [child for child in children if not child.wait()]
    for child in late:
        print(f"{child.name} did not stop in time and is killed. Its log: {child.log}")
    if producer.failed:
        print(describe_failure(producer))
    return not late and not any(child.failed for child in (consumers if stopped else children))


def _audit(progress: Progress, *, consumers: Sequence[ConsumerMetrics], settings: Path) -> bool:
    """Whether both the audit and the counts account for every message."""
    print("Auditing ...", flush=True)
    audit = _run_consumer_program(plan.command("src.audit", settings))
    print(audit.stdout + audit.stderr)
    stored = _run_consumer_program([sys.executable, "-c", _COUNT_STORED, str(settings)])
    if audit.returncode > 1 or stored.returncode:
        print(stored.stderr)
        return False
    counts = Counts(sum(progress.committed.values()), int(stored.stdout))
    if counts.missing:
        report = _run_consumer_program(plan.command("src.audit", settings, "--json"))
        counts = with_audit(counts, json.loads(report.stdout), consumers)
    print(f"Including messages that have left the topic: {counts}.")
    return audit.returncode == 0 and counts.missing == 0


def _run_consumer_program(command: Sequence[str]) -> CompletedProcess[str]:
    return run_program(command, plan.ROOT / "consumer", plan.environment(os.environ))


def _print_locations(options: Options, names: plan.Names, settings: Path) -> None:
    print(f"Logs and settings: {settings.parent}")
    for segment in (settings.parent / "undelivered").glob("*.jsonl"):
        print(f"Undelivered messages: {segment}")
    if options.mongodb:
        print(f"Messages: in MongoDB, database pubsub, collection {names.collection}. To show one of them:")
    else:
        print(f"Messages: {settings.parent / 'messages.db'}. To show one of them:")
    print(f"  {plan.shell_line('consumer', plan.command('src.get', settings, '--limit', '1'))}")
