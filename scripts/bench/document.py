"""Writes the results into docs/performance.md: the tables between its markers, and the plots beside it."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from bench.results import METRICS, Row
from bench.table import cell, metrics_of, profile
from local.errors import CannotRun
from local.plan import ROOT

DOCUMENT = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"
COLUMNS = 100


def update(about: Mapping[str, Any], rows: Sequence[Row], plots: Mapping[str, str]) -> None:
    """Parts that were not measured keep their tables."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for part, group in groupby(rows, key=lambda row: row.part):
        members = list(group)
        text = replaced(text, part, f"{machine(about)}\n\n{markdown(members)}")
    DOCUMENT.write_text(text, encoding="utf-8")
    for name, plot in plots.items():
        (IMAGES / name).write_text(plot, encoding="utf-8")


def replaced(text: str, part: str, content: str) -> str:
    """The document with this content between the part's markers."""
    pattern = re.compile(rf"(<!-- bench: {part} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(text):
        raise CannotRun(f"{DOCUMENT.name} has no markers for the part {part}")
    return pattern.sub(lambda match: f"{match[1]}\n{content}\n\n{match[2]}", text)


def machine(about: Mapping[str, Any]) -> str:
    """When, where and how a table was measured. Options that do not change the numbers are left out."""
    command = re.sub(r" --(document|quiet|folder \S+)", "", about["command"])
    return wrapped(
        f"{about['date'][:10]}, commit {about['commit']}, {about['cpu']}, {about['cores']} cores, {about['kernel']},"
        f" Python {about['python']}: `{command}`"
    )


def markdown(rows: Sequence[Row]) -> str:
    """A table of one part."""
    metrics = metrics_of(rows)
    texts = [name for name in ("setting", "store") if any(getattr(row, name) for row in rows)]
    headings = ["contender", *texts, *(METRICS[name].title for name in metrics)]
    lines = [headings, ["---"] * (1 + len(texts)) + ["--:"] * len(metrics)]
    for row in rows:
        lines.append([row.contender, *(getattr(row, name) for name in texts), *(cell(row, name) for name in metrics)])
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    notes = dict.fromkeys(f"{row.contender}: {row.note}." for row in rows if row.note)
    profiles = [f"{row.contender}, by function: {profile(row, quote='`')}." for row in rows if row.profile]
    return "\n".join([table, *(f"\n{wrapped(text)}" for text in (*notes, *profiles))])


def wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, COLUMNS, break_long_words=False, break_on_hyphens=False))
