"""One local run, from the first process to the verdict."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from rich.console import Console

from local import plan
from local.accounts import Accounts, explained
from local.children import Child
from local.errors import CannotRun
from local.folder import Folder, reserved
from local.kafka import Kafka, kafka
from local.measure import ConsumerSample, Moment, Recent, consumer_sample, scrape, together
from local.options import Options
from local.progress import Progress
from local.reach import in_mongodb, reach_one_of
from local.table import LiveTable, Picture, PlainLines, Row, View

LOOK_EVERY = 0.1  # seconds; the gate opens at each look
DRAW_EVERY = 0.5
PATIENCE = 45.0  # seconds without any progress before waiting is given up; a killed consumer's group needs 10
DRAIN_WITHIN = 120.0  # seconds after Ctrl-C

_COUNT = (
    "import json, sys; from src.storage import DataStorage; settings = json.load(open(sys.argv[1]));"
    " messages = DataStorage(settings['mongodb']).scan();"
    " print(sum(message.topic == settings['kafka']['topic'] for message in messages))"
)


def run(options: Options, stop: Event, path: Path = plan.FOLDER) -> int:
    """Run until the messages asked for are settled, or `stop` is set; the exit status. Raises CannotRun."""
    names = plan.names(options, datetime.now(UTC).strftime("%Y%m%d-%H%M%S"))
    if options.mongodb:
        addresses = in_mongodb(options.mongodb)
        reach_one_of("MongoDB", ", ".join(f"{host}:{port}" for host, port in addresses), addresses)
    with reserved(path) as folder, kafka(options, names) as broker:
        folder.begin(keep=options.keep)
        producing = folder.write_settings("producer.json", plan.producer_settings(options, names, broker.address, path))
        consuming = folder.write_settings("consumer.json", plan.consumer_settings(options, names, broker.address, path))
        _introduce(options, names)
        if options.kafka or options.mongodb:
            _check_servers(consuming)
        with ExitStack() as processes:
            start = _Starter(folder, processes)
            consumers = [
                start(f"consumer-{number}", "consumer", plan.command("src.consumer", consuming))
                for number in range(1, options.consumers + 1)
            ]
            count = ["--count", str(options.messages)] if options.messages else []
            producer = start("producer", "producer", plan.command("src.producer", producing, *count))
            folder.note([os.getpid(), producer.pid, *(consumer.pid for consumer in consumers)])
            with _view() as view:
                flow = Flow(broker, producer, consumers, view=view, settings=consuming)
                settled = flow.run(stop)
            healthy = _farewell(producer, consumers, stopped=stop.is_set())
            good = _judge(broker.progress(), consumers=flow.samples, settings=consuming)
        _tell_where(options, names, consuming)
        return 0 if settled and healthy and good else 1


class Flow:
    """Messages flowing, watched and shown."""

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
        self._began = clock()
        self._drawn = self._began
        self._recent = Recent()
        self._samples = {consumer.name: ConsumerSample() for consumer in consumers}
        self._announced = False
        self._flowing = False
        self._reported: set[str] = set()

    @property
    def samples(self) -> Sequence[ConsumerSample]:
        """What each consumer last said of itself."""
        return list(self._samples.values())

    def run(self, stop: Event) -> bool:
        """Until the producer has ended and all is settled; whether it is."""
        self._produce(stop)
        self._view.say(
            "The producer has ended; the consumers settle what is left." if not stop.is_set() else "Stopping."
        )
        settled = self._drain(stop)
        self._draw(self._kafka.progress(), last=True)
        return settled

    def _produce(self, stop: Event) -> None:
        while self._producer.exit_code is None and not stop.is_set():
            self._look()
            stop.wait(LOOK_EVERY)
            if any(consumer.failed for consumer in self._consumers):
                break
        self._producer.ask_to_stop()

    def _drain(self, stop: Event) -> bool:
        """Whether everything was settled before the patience was at its end. A second Ctrl-C cuts this short."""
        pause = Event()
        progress = self._look()
        moved, deadline = self._clock(), self._clock() + DRAIN_WITHIN
        while self._producer.exit_code is None or progress.lag:
            pause.wait(LOOK_EVERY)
            before, progress = progress, self._look()
            now = self._clock()
            if progress != before:
                moved = now
            if now > moved + PATIENCE or (stop.is_set() and now > deadline) or self._nobody_can_go_on():
                self._view.say(f"Given up waiting: {progress.lag:,} messages are not settled.")
                return stop.is_set()
        return True

    def _nobody_can_go_on(self) -> bool:
        ended = [consumer for consumer in self._consumers if consumer.exit_code is not None]
        return len(ended) == len(self._consumers) and any(consumer.failed for consumer in ended)

    def _look(self) -> Progress:
        progress = self._kafka.progress()
        self._report_ended()
        self._announce_when_all_serve()
        self._note_first_stored(progress)
        if self._clock() >= self._drawn + DRAW_EVERY:
            self._draw(progress)
        return progress

    def _draw(self, progress: Progress, *, last: bool = False) -> None:
        self._drawn = self._clock()
        self._sample()
        latency = together(sample.latency for sample in self._samples.values())
        self._recent.add(Moment(self._drawn, progress.settled, latency))
        self._view.show(self._picture(progress, last))

    def _sample(self) -> None:
        for consumer in self._consumers:
            metrics = scrape(consumer.port) if consumer.exit_code is None else None
            if metrics is not None:
                self._samples[consumer.name] = consumer_sample(metrics)

    def _picture(self, progress: Progress, last: bool) -> Picture:
        parked = min(progress.settled, sum(sample.dead_lettered for sample in self._samples.values()))
        return Picture(
            elapsed=self._drawn - self._began,
            produced=progress.delivered,
            stored=progress.settled - parked,
            dead_lettered=parked,
            lag=progress.lag,
            rate=self._recent.rate,
            p50=self._recent.quantile(0.5),
            p99=self._recent.quantile(0.99),
            producer=self._producer.state,
            consumers=[self._row(consumer) for consumer in self._consumers],
            last=last,
        )

    def _row(self, consumer: Child) -> Row:
        sample = self._samples[consumer.name]
        return Row(
            name=consumer.name,
            process=consumer.pid,
            state=consumer.state,
            partitions=consumer.partitions,
            stored=sample.stored,
            duplicates=sample.duplicates,
            dead_lettered=sample.dead_lettered,
        )

    def _report_ended(self) -> None:
        for consumer in self._consumers:
            if consumer.exit_code is not None and consumer.name not in self._reported:
                self._reported.add(consumer.name)
                self._view.say(ending(consumer))

    def _announce_when_all_serve(self) -> None:
        children = [self._producer, *self._consumers]
        if self._announced or not all(child.port for child in children):
            return
        self._announced = True
        for child in children:
            self._view.say(f"  {child.name}: process {child.pid}, http://127.0.0.1:{child.port}/metrics")
        more = plan.shell_line("consumer", plan.command("src.consumer", self._settings))
        self._view.say(f"One more consumer, from another terminal:\n  {more}")

    def _note_first_stored(self, progress: Progress) -> None:
        if not self._flowing and progress.settled:
            self._flowing = True
            self._view.say(f"The first messages are stored, {self._clock() - self._began:.1f} s after the start.")


def ending(consumer: Child) -> str:
    """How a consumer ended."""
    if consumer.failed:
        return last_words(consumer)
    return f"{consumer.name} is {consumer.state}; within about ten seconds the others have its partitions."


def last_words(child: Child) -> str:
    return "\n  ".join([f"{child.name} has {child.state}. The last lines of {child.log}:", *child.last_lines()])


class _Starter:
    """Starts processes that end with the run, whatever happens."""

    def __init__(self, folder: Folder, processes: ExitStack) -> None:
        self._folder = folder
        self._processes = processes

    def __call__(self, name: str, service: str, command: Sequence[str]) -> Child:
        child = Child(
            name,
            command,
            plan.ROOT / service,
            self._folder.path / "logs" / f"{name}.log",
            environment=plan.environment(os.environ),
            lock=self._folder.lock,
        )
        return self._processes.enter_context(child)


def _view() -> View:
    return LiveTable(Console()) if sys.stdout.isatty() else PlainLines()


def _introduce(options: Options, names: plan.Names) -> None:
    rate = f"{options.rate:,.1f} messages a second" if options.rate else "as many messages a second as it goes"
    end = f"{options.messages:,} messages" if options.messages else "until Ctrl-C"
    print(f"{options.consumers} consumers, {rate}, {end}.")
    if not options.kafka:
        print("Kafka is an embedded broker here: for trying out, it forgets everything when the run ends.")
    if options.kafka:
        print(
            f"Kafka {options.kafka}: topic {names.topic}, dead letters in {names.dead_letter_topic}; both stay there."
        )


def _check_servers(settings: Path) -> None:
    """Have the consumer look whether it could work with these servers, and repeat its answers if not."""
    check = _ask(plan.command("src.consumer", settings, "--check"))
    if check.returncode:
        print(check.stdout + check.stderr, file=sys.stderr)
        raise CannotRun("the consumer can't work with these servers; its answers stand above")


def _farewell(producer: Child, consumers: Sequence[Child], *, stopped: bool) -> bool:
    """End every process in good order; whether none was in trouble.

    A producer that was stopped and had to keep messages back is in none: they are in a file, and it is told which.
    """
    children = [producer, *consumers]
    for child in children:
        child.ask_to_stop()
    late = [child for child in children if not child.wait()]
    for child in late:
        print(f"{child.name} did not end in time; it is killed. Its log: {child.log}")
    if producer.failed:
        print(last_words(producer))
    troubled = consumers if stopped else children
    return not late and not any(child.failed for child in troubled)


def _judge(progress: Progress, *, consumers: Sequence[ConsumerSample], settings: Path) -> bool:
    """The audit's verdict and the run's own count; whether both are good."""
    print("Auditing ...", flush=True)
    audit = _ask(plan.command("src.audit", settings))
    print(audit.stdout + audit.stderr)
    counted = _ask([sys.executable, "-c", _COUNT, str(settings)])
    if audit.returncode > 1 or counted.returncode:
        print(counted.stderr)
        return False
    accounts = Accounts(sum(progress.committed.values()), int(counted.stdout))
    if accounts.missing:
        report = _ask(plan.command("src.audit", settings, "--json"))
        accounts = explained(accounts, json.loads(report.stdout), consumers)
    print(f"Counted, whatever the topic still holds: {accounts}.")
    return audit.returncode == 0 and accounts.balanced


def _ask(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """What one of the consumer's own programs answers."""
    return subprocess.run(
        command,
        cwd=plan.ROOT / "consumer",
        env=plan.environment(os.environ),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def _tell_where(options: Options, names: plan.Names, settings: Path) -> None:
    print(f"Logs and settings: {settings.parent}")
    for kept in (settings.parent / "undelivered").glob("*.jsonl"):
        print(f"Messages that the producer could not deliver: {kept}")
    if options.mongodb:
        print(f"Messages: in MongoDB, database pubsub, collection {names.collection}. One of them:")
    else:
        print(f"Messages: {settings.parent / 'messages.db'}. One of them:")
    print(f"  {plan.query_line(settings)}")
