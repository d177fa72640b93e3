"""The results: shown as a table, and written as Markdown or JSON."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from local.table import seconds

PASSED, FAILED, ERROR, SKIPPED = "pass", "FAIL", "error", "skipped"
"""A trial with an error could not be completed: it says nothing about the system, and never counts as passed."""


@dataclass(frozen=True)
class Row:
    """One scenario with one seed. Durations are None if there was nothing to measure."""

    scenario: str
    seed: int
    verdict: str
    messages: int = 0
    lost: int = 0
    twice: int = 0
    dead_lettered: int = 0
    repeated: int = 0
    progress_seconds: float | None = None
    rebalances: int = 0
    longest_pause_seconds: float | None = None
    exits: str = ""
    seconds: float = 0.0
    without: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


_COUNTS: Mapping[str, Callable[[Row], object]] = {
    "messages": lambda row: f"{row.messages:,}",
    "lost": lambda row: row.lost,
    "twice": lambda row: row.twice,
    "dead-lettered": lambda row: row.dead_lettered,
    "repeated": lambda row: row.repeated,
    "progress after": lambda row: seconds(row.progress_seconds),
    "rebalances": lambda row: row.rebalances,
    "longest pause": lambda row: seconds(row.longest_pause_seconds),
    "exit codes": lambda row: row.exits,
}
_HEADINGS = ("scenario", "seed", *_COUNTS, "verdict", "notes")


def counts(row: Row) -> list[str]:
    """Empty for a trial that was not completed."""
    return ["" if row.verdict in (SKIPPED, ERROR) else str(count(row)) for count in _COUNTS.values()]


def cells(row: Row) -> tuple[str, ...]:
    notes = "; ".join([*(f"without {protection}" for protection in row.without), *row.notes])
    return (row.scenario, str(row.seed), *counts(row), row.verdict, notes)


def show(rows: Sequence[Row], console: Console) -> None:
    """Without the notes, which are in each row's line."""
    table = Table(*_HEADINGS[:-1], box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*cells(row)[:-1])
    console.print(table)


def line(row: Row) -> str:
    """Printed after each trial."""
    numbers = ", ".join(f"{name} {cell}" for name, cell in zip(_COUNTS, counts(row), strict=True) if cell)
    duration = f"{row.seconds:.0f} s" if row.seconds else ""
    details = "; ".join(text for text in (numbers, duration, cells(row)[-1]) if text)
    return f"{row.verdict:<8} {row.scenario} {row.seed}: {details}"


def summary(rows: Sequence[Row], *, prove: bool = False) -> str:
    """With `prove`, every row has to fail."""
    count = Counter(row.verdict for row in rows)
    lost, twice = sum(row.lost for row in rows), sum(row.twice for row in rows)
    errors = f"{count[ERROR]} with errors, " if count[ERROR] else ""
    counts = f"{count[PASSED]} passed, {count[FAILED]} failed, {errors}{count[SKIPPED]} skipped"
    if count[SKIPPED] == len(rows):
        return f"NOTHING RUN: {counts}."
    if prove:
        verdict = "NOT PROVED" if count[PASSED] + count[ERROR] else "PROVED"
    else:
        verdict = "FAIL" if count[FAILED] + count[ERROR] else "PASS"
    return f"{verdict}: {counts}; {lost} lost, {twice} twice."


def write(rows: Sequence[Row], path: Path, heading: str, *, prove: bool = False) -> None:
    text = _as_json(rows, heading) if path.suffix == ".json" else _as_markdown(rows, heading, prove=prove)
    path.write_text(text, encoding="utf-8")


def _as_json(rows: Sequence[Row], heading: str) -> str:
    return json.dumps({"run": heading, "rows": [asdict(row) for row in rows]}, indent=2) + "\n"


def _as_markdown(rows: Sequence[Row], heading: str, *, prove: bool) -> str:
    lines = [_HEADINGS, ["---"] * len(_HEADINGS), *map(cells, rows)]
    table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |" for cells in lines)
    return f"{heading}\n\n{table}\n\n{summary(rows, prove=prove)}\n"
