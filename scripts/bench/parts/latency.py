"""From the creation of a message until it is stored, by the clocks of one machine."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event

from bench import consumers
from bench.producers import producer_command, settings_file
from bench.results import Row, failures_noted, percentile
from bench.running import environment
from bench.workbench import Workbench
from local.children import Child
from local.errors import CannotRun
from local.plan import ROOT, command

BATCH = 5_000  # the default of the consumer
RATES = (28, 500, 5_000)  # messages per second; the first is 100,000 per hour
BATCHES_PER_SECOND = 100  # of the producer, at most
START_TIMEOUT = 60.0  # seconds
WARM_UP_SECONDS = 2


def run(bench: Workbench) -> list[Row]:
    rows = {rate: Row("latency", "our consumer", f"{rate:,} messages/s", bench.acknowledging.name) for rate in RATES}
    for number, (rate, row) in bench.turns(list(rows.items()), 1 if bench.options.quick else 2):
        bench.show(f"{row.title}, round {number}")
        with failures_noted(row):
            latencies = [1000 * seconds for seconds in _latencies(bench, rate)]
            row.add(p50_ms=percentile(latencies, 0.5), p99_ms=percentile(latencies, 0.99))
            row.add(p999_ms=percentile(latencies, 0.999))
    return list(rows.values())


def _latencies(bench: Workbench, rate: int) -> list[float]:
    """A consumer that has its partitions, then a producer that starts as its messages' clock does."""
    store, topic = bench.acknowledging, bench.kafka.create_topic()
    job, folder = bench.job(topic, store, BATCH)
    folder.mkdir(parents=True, exist_ok=True)
    messages = rate * (bench.sizes.latency_seconds + WARM_UP_SECONDS)
    with ExitStack() as running:
        settings = consumers.settings_file(job, folder, embedded=bench.kafka.embedded)
        consumer = running.enter_context(_child("consumer", command("src.consumer", settings), folder))
        _wait_until(lambda: bool(consumer.partitions), "the consumer has no partitions")
        store.latencies(job.collection)
        batch = max(1, rate // BATCHES_PER_SECOND)
        settings = settings_file(bench.kafka.address, topic, folder, interval_ms=1000 / rate, batch_size=batch)
        running.enter_context(_child("producer", producer_command(settings, "--count", str(messages)), folder))
        duration = messages / rate
        _wait_until(lambda: store.progress(job.collection).documents >= messages, "messages are missing", duration)
    return store.latencies(job.collection)[rate * WARM_UP_SECONDS :]


def _child(service: str, arguments: Sequence[str], folder: Path) -> Child:
    return Child(service, arguments, ROOT / service, folder / f"{service}.log", environment=environment({}))


def _wait_until(condition: Callable[[], bool], problem: str, duration: float = 0.0) -> None:
    deadline = time.monotonic() + duration + START_TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise CannotRun(f"{problem} after {duration + START_TIMEOUT:.0f} s")
        Event().wait(0.05)
