"""Runs the parts one after the other, and writes the results."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench import document, machine, table
from bench.kafka import kafka
from bench.options import Options
from bench.parts import audit, consumer, instructions, latency, producer
from bench.plots import plots
from bench.process_tree import is_supported
from bench.results import Row, as_json
from bench.stores import MongoStore, SqliteStore, acknowledging_store
from bench.workbench import Workbench
from local.connectivity import require_kafka_reachable, require_mongodb_reachable
from local.errors import CannotRun
from local.plan import FOLDER, timestamp

OUTPUT_WIDTH = 200  # columns, where the output is not a terminal

Part = Callable[[Workbench], Sequence[Row]]

PARTS: Mapping[str, Part] = {
    "consumer": consumer.run,
    "replicas": consumer.replicas,
    "growth": consumer.growth,
    "producer": producer.run,
    "latency": latency.run,
    "catch-up": consumer.catch_up,
    "audit": audit.run,
    "instructions": instructions.run,
}


def run(options: Options, arguments: Sequence[str]) -> int:
    """The exit code. Raises CannotRun."""
    _require(options)
    folder = options.folder or FOLDER / "bench" / timestamp()
    folder.mkdir(parents=True, exist_ok=True)
    about = machine.describe(arguments)
    rows: list[Row] = []
    with workbench(options, folder) as bench:
        for name in options.parts:
            rows += PARTS[name](bench)
            _write(folder, about, rows)
    if options.document:
        document.update(about, rows, plots(rows))
    table.show(rows, Console(width=None if sys.stdout.isatty() else OUTPUT_WIDTH))
    print(f"Results: {folder}")
    failed = any(row.failed for row in rows)
    if not failed:
        shutil.rmtree(folder / "runs")
    return int(failed)


def _require(options: Options) -> None:
    if not is_supported():
        raise CannotRun("CPU time and memory of processes are read from /proc, which this system does not have")
    if options.kafka:
        require_kafka_reachable(options.kafka)
    if options.mongodb:
        require_mongodb_reachable(options.mongodb)


@contextmanager
def workbench(options: Options, folder: Path) -> Iterator[Workbench]:
    further = [MongoStore(options.mongodb)] if options.mongodb else []
    runs = folder / "runs"
    runs.mkdir(exist_ok=True)
    with acknowledging_store() as store, kafka(options.kafka, runs) as found, _progress(options) as show:
        yield Workbench(options, found, store, SqliteStore(runs), further, folder, show)


@contextmanager
def _progress(options: Options) -> Iterator[Callable[[str], None]]:
    """On a terminal a line with what is being measured; elsewhere a line for each measurement."""
    if options.quiet:
        yield lambda _text: None
    elif not sys.stderr.isatty():
        yield lambda text: print(text, file=sys.stderr, flush=True)
    else:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("starting")
            yield lambda text: progress.update(task, description=text)


def _write(folder: Path, about: Mapping[str, Any], rows: Sequence[Row]) -> None:
    for name, plot in plots(rows).items():
        (folder / name).write_text(plot, encoding="utf-8")
    content = {"machine": about, "rows": [as_json(row) for row in rows]}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (folder / "results.json").write_text(text, encoding="utf-8")
