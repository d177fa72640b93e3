"""Instructions per message: they do not depend on the load of the machine, as times do.

Each program runs with two numbers of messages; the difference is without start and stop.
"""

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
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

SIZES = (2_000, 22_000)
BATCH = 5_000
TIMEOUT = 900.0  # seconds

Command = Sequence[str]


@dataclass(frozen=True)
class Counter:
    """`wrap` makes a command count into a file, `read` gets the count from it."""

    metric: str
    wrap: Callable[[Command, Path], Command]
    read: Callable[[str], int]


PYTHON = Counter(
    "bytecodes",
    lambda command, file: [command[0], "-m", "bench.programs.counted", str(file), *command[2:]],
    int,
)
MACHINE = Counter(
    "instructions",
    lambda command, file: ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null",
                           f"--log-file={file}", *command],
    lambda text: int(re.findall(r"I\s+refs:\s+([\d,]+)", text)[0].replace(",", "")),
)  # fmt: skip


def run(bench: Workbench) -> list[Row]:
    limit, *_ = consumers.limits()
    ours = consumers.ours(embedded=bench.kafka.embedded)
    rows = [
        _measured(bench, _consumer_row(bench, contender), partial(_consumer, bench, contender))
        for contender in (ours, limit)
    ]
    for name, count in (("our producer", _producer), ("bare produce", _bare_produce)):
        rows.append(_measured(bench, Row("instructions", name, "generated messages"), partial(count, bench)))
    return rows


def _consumer_row(bench: Workbench, contender: Contender) -> Row:
    return Row("instructions", contender.name, f"batch {BATCH:,}", bench.acknowledging.name)


def counters() -> list[Counter]:
    return [PYTHON, MACHINE] if shutil.which("valgrind") else [PYTHON]


def _measured(bench: Workbench, row: Row, count: Callable[[Counter, int], int]) -> Row:
    for counter in counters():
        bench.show(f"{row.title}, {counter.metric}")
        with failures_noted(row):
            small, large = (count(counter, messages) for messages in SIZES)
            row.add(**{counter.metric: (large - small) / (SIZES[1] - SIZES[0])})
    if not shutil.which("valgrind"):
        row.note = row.note or "machine instructions are not counted: valgrind is not installed"
    return row


def _consumer(bench: Workbench, contender: Contender, counter: Counter, messages: int) -> int:
    job, folder = bench.job(bench.kafka.filled(messages), bench.acknowledging, BATCH)
    bench.kafka.expect_members(1)
    file = folder / counter.metric
    counting = replace(contender, command=_counted(contender, counter, file))
    run_contender(counting, job, bench.acknowledging, messages, folder, stop_timeout=TIMEOUT)
    return _read(counter, file)


def _counted(contender: Contender, counter: Counter, file: Path) -> Callable[[Job, Path], Command]:
    return lambda job, folder: counter.wrap(contender.command(job, folder), file)


def _producer(bench: Workbench, counter: Counter, messages: int) -> int:
    topic, folder = bench.kafka.create_topic(), bench.folder / "runs" / f"produce-{counter.metric}-{messages}"
    settings = settings_file(bench.kafka.address, topic, folder, batch_size=500)
    command = counter.wrap(producer_command(settings, "--count", str(messages)), folder / counter.metric)
    return _run(command, ROOT / "producer", {}, counter, folder / counter.metric)


def _bare_produce(bench: Workbench, counter: Counter, messages: int) -> int:
    folder = bench.folder / "runs" / f"bare-produce-{counter.metric}-{messages}"
    folder.mkdir(parents=True, exist_ok=True)
    variables = {
        "BENCH_BOOTSTRAP": bench.kafka.address,
        "BENCH_TOPIC": bench.kafka.create_topic(),
        "BENCH_MESSAGES": str(messages),
        "BENCH_GENERATE": "1",
    }
    command = counter.wrap(program("bare_produce"), folder / counter.metric)
    return _run(command, ROOT, variables, counter, folder / counter.metric)


def _run(command: Command, cwd: Path, variables: dict[str, str], counter: Counter, file: Path) -> int:
    done = run_program(command, cwd, environment(variables), TIMEOUT)
    if done.returncode:
        raise CannotRun(f"exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    return _read(counter, file)


def _read(counter: Counter, file: Path) -> int:
    try:
        return counter.read(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, IndexError) as error:
        raise CannotRun(f"no count in {file}") from error
