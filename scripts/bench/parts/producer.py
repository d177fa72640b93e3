"""Producers: ours, generating or reading a file, and Kafka's client alone."""

import os
import resource
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.producers import input_file, producer_command, settings_file
from bench.results import Row, failures_noted
from bench.running import SelfMeasured, environment, self_measured
from bench.workbench import Workbench
from local.errors import CannotRun
from local.plan import ROOT

SMALL = 1_000
"""Messages of a run whose times are those of start and stop, and subtracted."""


@dataclass
class Entry:
    row: Row
    run: Callable[[int], SelfMeasured]
    start: SelfMeasured | None = None


def run(bench: Workbench) -> list[Row]:
    entries = [entry for entry in _entries(bench) if bench.options.includes(entry.row.contender)]
    for entry in entries:
        bench.show(f"{entry.row.title}, warm-up")
        with failures_noted(entry.row):
            starts = [entry.run(SMALL) for _ in range(1 + bench.sizes.starts)]
            entry.start = min(starts[1:], key=lambda start: start.cpu_seconds)
    for number, entry in bench.turns(entries):
        bench.show(f"{entry.row.title}, round {number}")
        with failures_noted(entry.row):
            _measure(entry, bench.sizes.messages)
    return [entry.row for entry in entries]


def _measure(entry: Entry, messages: int) -> None:
    if entry.start is None:
        return
    done, start = entry.run(messages), entry.start
    sent = done.messages - start.messages
    entry.row.add(
        messages_per_second=sent / (done.seconds - start.seconds),
        cpu_us=(done.cpu_seconds - start.cpu_seconds) / sent * 1e6,
        peak_mib=done.peak_bytes / 2**20,
    )


def _entries(bench: Workbench) -> list[Entry]:
    topic = bench.kafka.create_topic()
    return [
        *(Entry(_row("our producer", f"batch {batch:,}"), _ours(bench, topic, batch)) for batch in (100, 500, 5_000)),
        Entry(_row("our producer", "batch 500, --input"), _ours(bench, topic, 500, from_file=True)),
        Entry(_row("bare produce", "prepared messages"), _bare(bench, topic, generate=False)),
        Entry(_row("bare produce", "generated messages"), _bare(bench, topic, generate=True)),
    ]


def _row(contender: str, setting: str) -> Row:
    return Row("producer", contender, setting, guarantee="each message delivered" if "our" in contender else "none")


def _bare(bench: Workbench, topic: str, *, generate: bool) -> Callable[[int], SelfMeasured]:
    def run(messages: int) -> SelfMeasured:
        variables = {
            "BENCH_BOOTSTRAP": bench.kafka.address,
            "BENCH_TOPIC": topic,
            "BENCH_MESSAGES": str(messages),
            "BENCH_GENERATE": str(int(generate)),
        }
        return self_measured("bare produce", variables, bench.runs / f"produce-{topic}")

    return run


def _ours(bench: Workbench, topic: str, batch: int, *, from_file: bool = False) -> Callable[[int], SelfMeasured]:
    folder = bench.runs / f"producer-{batch}{'-input' if from_file else ''}"

    def run(messages: int) -> SelfMeasured:
        settings = settings_file(bench.kafka.address, topic, folder, batch_size=batch)
        arguments = ("--input", str(input_file(folder, messages))) if from_file else ("--count", str(messages))
        return measured_process(producer_command(settings, *arguments), ROOT / "producer", folder, messages)

    return run


def measured_process(command: Sequence[str], cwd: Path, folder: Path, messages: int) -> SelfMeasured:
    """A program that ends by itself, start and stop included. Raises CannotRun."""
    start = time.monotonic()
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment({}), stdout=log, stderr=log, start_new_session=True
        )
    usage = _wait(process)
    if process.returncode:
        raise CannotRun(f"exit code {process.returncode}; see {folder}")
    cpu = usage.ru_utime + usage.ru_stime
    return SelfMeasured(messages, time.monotonic() - start, cpu, usage.ru_maxrss * 1024)


def _wait(process: subprocess.Popen[bytes]) -> resource.struct_rusage:
    """Its times and memory, once it has ended; it is killed if the bench is interrupted."""
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage
