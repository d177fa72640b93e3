"""The proof: every scenario that was asked for, with every seed, one after the other."""

import platform
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from chaos import plan, report
from chaos.clusters import cluster
from chaos.options import Options
from chaos.report import BROKEN, FAILED, NOT_HERE, PASSED, Row
from chaos.scenarios.scenario import Scenario
from chaos.servers import Cluster
from chaos.trial import Stalled, Trial, trial
from chaos.verdict import Counts, Exit, wrong_ends
from local.errors import CannotRun
from local.plan import FOLDER


def run(options: Options, scenarios: Sequence[Scenario], folder: Path = FOLDER / "chaos") -> int:
    """The exit status. Raises CannotRun."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    heading = _heading(options)
    print(heading, flush=True)
    rows: list[Row] = []
    with cluster(options) as servers:
        for row in _rows(servers, options, scenarios, folder / stamp, stamp):
            print(report.line(row), flush=True)
            rows.append(row)
            if options.report:
                report.write(rows, options.report, heading, prove=options.prove)
    if sys.stdout.isatty():
        report.show(rows, Console())
    print(report.sentence(rows, prove=options.prove))
    if any((folder / stamp).glob("*")):
        print(f"Logs, settings and audits: {folder / stamp}")
    return status(rows, prove=options.prove)


def status(rows: Sequence[Row], *, prove: bool) -> int:
    """1 where a row failed; or, where the protections were taken out, where one did not. 2 where nothing was tried."""
    if all(row.verdict == NOT_HERE for row in rows):
        return 2
    unwanted = {BROKEN, PASSED if prove else FAILED}
    return int(any(row.verdict in unwanted for row in rows))


def _rows(servers: Cluster, options: Options, scenarios: Sequence[Scenario], folder: Path, stamp: str) -> Iterator[Row]:
    for scenario in scenarios:
        lacking = [reason for need in scenario.needs if (reason := servers.lacks(need))]
        if lacking:
            yield Row(scenario.name, options.seeds[0], NOT_HERE, notes=tuple(lacking))
            continue
        for seed in options.seeds:
            yield _tried(servers, options, scenario, seed, folder / f"{scenario.name}-{seed}", stamp)


def _tried(servers: Cluster, options: Options, scenario: Scenario, seed: int, folder: Path, stamp: str) -> Row:
    without = scenario.protection if options.prove else options.without
    names = plan.names(stamp, scenario.name, seed)
    began = time.monotonic()
    found: list[str] = []
    try:
        with trial(servers, names, folder, options, seed=seed, without=without) as attempt:
            found = attempt.notes
            counts = _attacked(scenario, attempt)
            if not options.keep:
                attempt.clean_up()
    except CannotRun as error:  # the others may run all the same
        return Row(scenario.name, seed, BROKEN, seconds=time.monotonic() - began, notes=(*found, str(error)))
    row = _row(scenario, seed, attempt, counts, time.monotonic() - began, without)
    if row.verdict == PASSED and not options.keep:
        shutil.rmtree(folder)
    return row


def _attacked(scenario: Scenario, attempt: Trial) -> Counts:
    try:
        scenario.attack(attempt)
    except Stalled as error:
        attempt.broken.append(str(error))
    return attempt.finish()


def _row(scenario: Scenario, seed: int, attempt: Trial, counts: Counts, seconds: float, without: Sequence[str]) -> Row:
    complaints, exits = attempt.complaints(counts), attempt.processes.exits()
    course, healed = attempt.watch.course, attempt.healed_at
    return Row(
        scenario.name,
        seed,
        judged(complaints, died=bool(without and wrong_ends(exits))),
        messages=attempt.accepted.size,
        lost=counts.lost,
        twice=counts.twice,
        dead_lettered=counts.dead_lettered,
        repeated=counts.repeated,
        progress_seconds=None if healed is None else course.progress_after(healed),
        rebalances=attempt.processes.rebalances,
        longest_pause_seconds=course.longest_pause,
        exits=_exit_codes(exits),
        seconds=seconds,
        without=tuple(without),
        notes=(*attempt.notes, *complaints),
    )


def judged(complaints: Sequence[str], *, died: bool) -> str:
    """A process that died of the lack of its protection shows nothing."""
    if died:
        return BROKEN
    return FAILED if complaints else PASSED


def _exit_codes(exits: Sequence[Exit]) -> str:
    return " ".join(str(end.code) for end in exits)


def _heading(options: Options) -> str:
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    seeds = f"seeds {options.seeds[0]} to {options.seeds[-1]}" if len(options.seeds) > 1 else f"seed {options.seeds[0]}"
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{date}, on {options.on} servers, {seeds}, {options.messages:,} messages a trial. {machine}."
