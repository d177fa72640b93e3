"""The rows of the proof: shown as a table, and written as Markdown or JSON."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

PASSED, FAILED, BROKEN, NOT_HERE = "pass", "FAIL", "broken", "not here"
"""Broken is a trial that could not be carried out: it says nothing about the system, and is never taken for good."""


@dataclass(frozen=True)
class Row:
    """One scenario with one seed. Seconds are None where there was nothing to measure."""

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


_HEADINGS = (
    "scenario",
    "seed",
    "messages",
    "lost",
    "twice",
    "dead-lettered",
    "repeated",
    "progress after",
    "rebalances",
    "longest pause",
    "exit codes",
    "verdict",
    "",
)


def cells(row: Row) -> tuple[str, ...]:
    """A row as people read it."""
    if row.verdict in (NOT_HERE, BROKEN):
        return (row.scenario, str(row.seed), *[""] * (len(_HEADINGS) - 4), row.verdict, "; ".join(row.notes))
    return (
        row.scenario,
        str(row.seed),
        f"{row.messages:,}",
        str(row.lost),
        str(row.twice),
        str(row.dead_lettered),
        str(row.repeated),
        _seconds(row.progress_seconds),
        str(row.rebalances),
        _seconds(row.longest_pause_seconds),
        row.exits,
        row.verdict,
        "; ".join([*(f"without {protection}" for protection in row.without), *row.notes]),
    )


def show(rows: Sequence[Row], console: Console) -> None:
    """Without the notes, which stand in each row's line."""
    table = Table(*_HEADINGS[:-1], box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*cells(row)[:-1])
    console.print(table)


def line(row: Row) -> str:
    """A row as soon as it is known."""
    counts = ", ".join(f"{name} {cell}" for name, cell in zip(_HEADINGS[2:11], cells(row)[2:11], strict=True) if cell)
    took = f"{row.seconds:.0f} s" if row.seconds else ""
    told = "; ".join(text for text in (counts, took, cells(row)[-1]) if text)
    return f"{row.verdict:<8} {row.scenario} {row.seed}: {told}"


def sentence(rows: Sequence[Row], *, prove: bool = False) -> str:
    """To prove is to see every row fail."""
    count = Counter(row.verdict for row in rows)
    lost, twice = sum(row.lost for row in rows), sum(row.twice for row in rows)
    broken = f"{count[BROKEN]} could not be carried out, " if count[BROKEN] else ""
    told = f"{count[PASSED]} passed, {count[FAILED]} failed, {broken}{count[NOT_HERE]} not here"
    if count[NOT_HERE] == len(rows):
        return f"NOTHING TRIED: {told}."
    if prove:
        verdict = "NOT PROVED" if count[PASSED] + count[BROKEN] else "PROVED"
    else:
        verdict = "FAIL" if count[FAILED] + count[BROKEN] else "PASS"
    return f"{verdict}: {told}; {lost} lost, {twice} twice."


def write(rows: Sequence[Row], path: Path, heading: str, *, prove: bool = False) -> None:
    text = _as_json(rows, heading) if path.suffix == ".json" else _as_markdown(rows, heading, prove=prove)
    path.write_text(text, encoding="utf-8")


def _as_json(rows: Sequence[Row], heading: str) -> str:
    return json.dumps({"run": heading, "rows": [asdict(row) for row in rows]}, indent=2) + "\n"


def _as_markdown(rows: Sequence[Row], heading: str, *, prove: bool) -> str:
    lines = [_HEADINGS, ["---"] * len(_HEADINGS), *map(cells, rows)]
    table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |" for cells in lines)
    return f"{heading}\n\n{table}\n\n{sentence(rows, prove=prove)}\n"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} s"
