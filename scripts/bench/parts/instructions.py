"""Instructions per message: they do not depend on the load of the machine, as times do.

Each program runs with two numbers of messages; the difference is without start and stop.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from heapq import nlargest
from pathlib import Path

from bench import consumers
from bench.contender import Contender, Job
from bench.producers import producer_command, settings_file
from bench.results import Row, failures_noted
from bench.running import environment, program, run_contender
from bench.workbench import Workbench
from local.children import run_program
from local.errors import CannotRun
from local.plan import ROOT

SIZES = (1_000, 21_000)
BATCH = 5_000
TIMEOUT = 900.0  # seconds
PROFILE = 12  # functions that are shown

Command = Sequence[str]


@dataclass(frozen=True)
class Counter:
    """`wrap` makes a command count into a file, `read` gets the count from it."""

    metric: str
    wrap: Callable[[Command, Path], Command]
    read: Callable[[str], Mapping[str, int]]
    """By function, where it is known."""


PYTHON = Counter(
    "bytecodes",
    lambda command, file: [command[0], "-m", "bench.programs.counted", str(file), *command[2:]],
    json.loads,
)
MACHINE = Counter(
    "instructions",
    lambda command, file: ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null",
                           f"--log-file={file}", *command],
    lambda text: {"all": int(re.findall(r"I\s+refs:\s+([\d,]+)", text)[0].replace(",", ""))},
)  # fmt: skip


Count = Callable[[Counter, int], Mapping[str, int]]
"""All instructions of a run with this number of messages."""


def run(bench: Workbench) -> list[Row]:
    has_valgrind = shutil.which("valgrind") is not None
    rows: list[Row] = []
    for contender, (setting, count) in programs(bench).items():
        note = "" if has_valgrind or rows else "machine instructions are not counted: valgrind is not installed"
        row = Row("instructions", contender, setting, note=note)
        for counter in [PYTHON, MACHINE] if has_valgrind else [PYTHON]:
            bench.show(f"{row.title}, {counter.metric}")
            with failures_noted(row):
                found = per_message(partial(count, counter))
                row.add(**{counter.metric: sum(found.values())})
                if counter is PYTHON:
                    row.profile = dict(nlargest(PROFILE, found.items(), key=lambda item: item[1]))
        rows.append(row)
    return rows


def programs(bench: Workbench) -> dict[str, tuple[str, Count]]:
    """By name: the setting, and how the instructions for a number of messages are counted."""
    ours, limit = consumers.ours(embedded=bench.kafka.embedded), consumers.limits()[0]
    return {
        ours.name: (f"batch {BATCH:,}", partial(_consumer, bench, ours)),
        limit.name: (f"batch {BATCH:,}", partial(_consumer, bench, limit)),
        "our producer": ("generated messages", partial(_producer, bench)),
        "bare produce": ("generated messages", partial(_bare_produce, bench)),
    }


def per_message(count: Callable[[int], Mapping[str, int]]) -> dict[str, float]:
    """By function, without start and stop. Raises CannotRun."""
    small, large = SIZES
    before, after = count(small), count(large)
    return {name: (number - before.get(name, 0)) / (large - small) for name, number in after.items()}


def _consumer(bench: Workbench, contender: Contender, counter: Counter, messages: int) -> Mapping[str, int]:
    job, folder = bench.job(bench.kafka.filled(messages), bench.acknowledging, BATCH)
    bench.kafka.expect_members(1)
    file = folder / counter.metric
    counting = replace(contender, command=_counted(contender, counter, file))
    run_contender(counting, job, bench.acknowledging, messages, folder, stop_timeout=TIMEOUT)
    return _read(counter, file)


def _counted(contender: Contender, counter: Counter, file: Path) -> Callable[[Job, Path], Command]:
    return lambda job, folder: counter.wrap(contender.command(job, folder), file)


def _producer(bench: Workbench, counter: Counter, messages: int) -> Mapping[str, int]:
    topic, folder = bench.kafka.create_topic(), bench.runs / f"produce-{counter.metric}-{messages}"
    settings = settings_file(bench.kafka.address, topic, folder, batch_size=500)
    command = counter.wrap(producer_command(settings, "--count", str(messages)), folder / counter.metric)
    return _run(command, ROOT / "producer", {}, counter, folder / counter.metric)


def _bare_produce(bench: Workbench, counter: Counter, messages: int) -> Mapping[str, int]:
    folder = bench.runs / f"bare-produce-{counter.metric}-{messages}"
    folder.mkdir(parents=True, exist_ok=True)
    variables = {
        "BENCH_BOOTSTRAP": bench.kafka.address,
        "BENCH_TOPIC": bench.kafka.create_topic(),
        "BENCH_MESSAGES": str(messages),
        "BENCH_GENERATE": "1",
    }
    command = counter.wrap(program("bare_produce"), folder / counter.metric)
    return _run(command, ROOT, variables, counter, folder / counter.metric)


def _run(command: Command, cwd: Path, variables: dict[str, str], counter: Counter, file: Path) -> Mapping[str, int]:
    done = run_program(command, cwd, environment(variables), TIMEOUT)
    if done.returncode:
        raise CannotRun(f"exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    return _read(counter, file)


def _read(counter: Counter, file: Path) -> Mapping[str, int]:
    try:
        return counter.read(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, IndexError) as error:
        raise CannotRun(f"no count in {file}") from error
