"""Runs every requested scenario with every seed, one after the other."""

import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from chaos import plan, report
from chaos.clusters import cluster
from chaos.options import Options
from chaos.report import ERROR, FAILED, PASSED, SKIPPED, Row
from chaos.scenarios.scenario import Scenario
from chaos.servers import Cluster
from chaos.trial import TimedOut, Trial, trial
from chaos.verdict import Counts, Exit, unexpected_exits
from local.errors import CannotRun
from local.plan import FOLDER, Names, timestamp


def run(options: Options, scenarios: Sequence[Scenario], folder: Path = FOLDER / "chaos") -> int:
    """The exit code. Raises CannotRun."""
    started = timestamp()
    heading = _heading(options)
    print(heading, flush=True)
    rows: list[Row] = []
    with cluster(options) as servers, _progress(options, len(scenarios)) as advance:
        for row in _rows(servers, options, scenarios, folder / started, started):
            print(report.line(row), flush=True)
            rows.append(row)
            advance(len(options.seeds) if row.verdict == SKIPPED else 1)
            if options.report:
                report.write(rows, options.report, heading, prove=options.prove)
    if sys.stdout.isatty():
        report.show(rows, Console())
    print(report.summary(rows, prove=options.prove))
    if any((folder / started).glob("*")):
        print(f"Logs, settings and audits: {folder / started}")
    return status(rows, prove=options.prove)


@contextmanager
def _progress(options: Options, scenarios: int) -> Iterator[Callable[[int], None]]:
    """On a terminal, below the lines of the trials: how many trials are done, and the time left."""
    columns = (TextColumn("{task.completed} of {task.total} trials"), BarColumn(), TimeElapsedColumn())
    remaining = (TextColumn("time left"), TimeRemainingColumn())
    disabled = options.quiet or not sys.stdout.isatty()
    with Progress(*columns, *remaining, speed_estimate_period=3600, transient=True, disable=disabled) as progress:
        task = progress.add_task("trials", total=scenarios * len(options.seeds))
        yield partial(progress.advance, task)


def status(rows: Sequence[Row], *, prove: bool) -> int:
    """0 if every trial passed, or with `prove` if every trial failed; otherwise 1. 2 if every scenario was skipped."""
    if all(row.verdict == SKIPPED for row in rows):
        return 2
    return int(any(row.verdict in {ERROR, PASSED if prove else FAILED} for row in rows))


def _rows(
    servers: Cluster, options: Options, scenarios: Sequence[Scenario], folder: Path, started: str
) -> Iterator[Row]:
    for scenario in scenarios:
        missing = [reason for need in scenario.requires if (reason := servers.missing(need))]
        if missing:
            yield Row(scenario.name, options.seeds[0], SKIPPED, notes=tuple(missing))
            continue
        for seed in options.seeds:
            names = plan.names(started, scenario.name, seed)
            yield _run_trial(servers, options, scenario, seed, folder / f"{scenario.name}-{seed}", names)


def _run_trial(servers: Cluster, options: Options, scenario: Scenario, seed: int, folder: Path, names: Names) -> Row:
    without = scenario.protections if options.prove else options.without
    began = time.monotonic()
    notes: list[str] = []
    try:
        with trial(servers, names, folder, options, seed=seed, without=without) as current:
            notes = current.notes
            counts = _inject_faults(scenario, current)
            if not options.keep:
                current.clean_up()
    except CannotRun as error:  # the other scenarios may still run
        return Row(scenario.name, seed, ERROR, seconds=time.monotonic() - began, notes=(*notes, str(error)))
    row = _row(scenario, seed, current, counts, time.monotonic() - began, without)
    if row.verdict == PASSED and not options.keep:
        shutil.rmtree(folder)
    return row


def _inject_faults(scenario: Scenario, current: Trial) -> Counts:
    try:
        scenario.run(current)
    except TimedOut as error:
        current.failures.append(str(error))
    return current.finish()


def _row(scenario: Scenario, seed: int, current: Trial, counts: Counts, seconds: float, without: Sequence[str]) -> Row:
    failures, exits = current.all_failures(counts), current.processes.exits()
    history, healed = current.watcher.history, current.healed_at
    return Row(
        scenario.name,
        seed,
        verdict(failures, crashed=bool(without and unexpected_exits(exits))),
        messages=current.accepted.size,
        lost=counts.lost,
        twice=counts.twice,
        dead_lettered=counts.dead_lettered,
        repeated=counts.repeated,
        progress_seconds=None if healed is None else history.progress_after(healed),
        rebalances=current.processes.rebalances,
        longest_pause_seconds=history.longest_pause,
        exits=_exit_codes(exits),
        seconds=seconds,
        without=tuple(without),
        notes=(*current.notes, *failures),
    )


def verdict(failures: Sequence[str], *, crashed: bool) -> str:
    """A process that crashed because its protection was removed proves nothing."""
    if crashed:
        return ERROR
    return FAILED if failures else PASSED


def _exit_codes(exits: Sequence[Exit]) -> str:
    return " ".join(str(each.code) for each in exits)


def _heading(options: Options) -> str:
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    seeds = f"seeds {options.seeds[0]} to {options.seeds[-1]}" if len(options.seeds) > 1 else f"seed {options.seeds[0]}"
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    protocol = f"group protocol {options.group_protocol}"
    return f"{date}, on {options.on} servers, {protocol}, {seeds}, {options.messages:,} messages per trial. {machine}."
