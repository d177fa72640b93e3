"""The results as tables, one for each part."""

from collections.abc import Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table

from bench.results import METRICS, Row

SHOWN = 0.5  # instructions per message


def show(rows: Sequence[Row], console: Console) -> None:
    for part, group in groupby(rows, key=lambda row: row.part):
        members = list(group)
        console.print(table(part, members))
        for note in dict.fromkeys(f"{row.contender}: {row.note}" for row in members if row.note):
            console.print(f"  {note}", highlight=False)
        for row in members:
            if row.profile:
                console.print(f"  {row.contender}, instructions by function: {profile(row)}\n", highlight=False)


def table(part: str, rows: Sequence[Row]) -> Table:
    """The median of each metric and, where there were several rounds, its range."""
    metrics = metrics_of(rows)
    titles = [name for name in ("store", "guarantee") if any(getattr(row, name) for row in rows)]
    result = Table("contender", "setting", title=part, title_justify="left", box=box.SIMPLE_HEAD)
    for name in metrics:
        result.add_column(METRICS[name].title, justify="right")
    for name in titles:
        result.add_column(name)
    for row in rows:
        numbers = (cell(row, name) for name in metrics)
        result.add_row(row.contender, row.setting, *numbers, *(getattr(row, name) for name in titles))
    return result


def profile(row: Row, quote: str = "") -> str:
    """The functions with the most instructions."""
    shown = {name.replace(".<locals>", ""): number for name, number in row.profile.items() if number >= SHOWN}
    return ", ".join(f"{quote}{name}{quote} {number:,.1f}" for name, number in shown.items())


def metrics_of(rows: Sequence[Row]) -> list[str]:
    """Those that were measured for any of the rows."""
    return [name for name in METRICS if any(name in row.metrics for row in rows)]


def cell(row: Row, metric: str) -> str:
    values, digits = row.metrics.get(metric), METRICS[metric].digits
    if not values:
        return ""
    middle, least, most = (f"{value:,.{digits}f}" for value in (row.median(metric), min(values), max(values)))
    return middle if least == most else f"{middle} ({least}..{most})"
