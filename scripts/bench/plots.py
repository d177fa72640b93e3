"""Plots of the results as SVG, which a browser shows and a repository keeps small. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

from bench.results import METRICS, Row
from bench.stores import AcknowledgingStore

WIDTH, LABELS, BAR, GAP, TOP, MARGIN = 860, 300, 16, 9, 62, 24
OURS, OTHERS, RANGE, TEXT = "#1f77b4", "#9aa5b1", "#24292f", "#24292f"
OUTLIER = 4.0  # times the second largest value


@dataclass(frozen=True)
class Bar:
    label: str
    middle: float
    low: float
    high: float
    ours: bool


def plots(rows: Sequence[Row]) -> dict[str, str]:
    """File names and contents; only those for which something was measured."""
    consumers = [row for row in rows if row.part == "consumer" and row.store in ("", AcknowledgingStore.name)]
    producers = [row for row in rows if row.part == "producer"]
    found = {
        "consumer-throughput.svg": _bars(consumers, "messages_per_second", "Consumers: messages per second"),
        "consumer-cpu.svg": _bars(consumers, "cpu_us", "Consumers: CPU time per message, µs"),
        "producer-throughput.svg": _bars(producers, "messages_per_second", "Producers: messages per second"),
        "producer-cpu.svg": _bars(producers, "cpu_us", "Producers: CPU time per message, µs"),
        "latency.svg": _latency([row for row in rows if row.part == "latency" and row.metrics]),
    }
    return {name: text for name, text in found.items() if text}


def _bars(rows: Sequence[Row], metric: str, title: str) -> str:
    bars = [_bar(row, metric) for row in rows if metric in row.metrics]
    return bar_chart(title, bars, METRICS[metric].digits) if bars else ""


def _bar(row: Row, metric: str) -> Bar:
    values = row.metrics[metric]
    label = f"{row.contender}, {row.setting}" if row.setting else row.contender
    return Bar(label, row.median(metric) or 0.0, min(values), max(values), row.contender.startswith("our "))


def bar_chart(title: str, bars: Sequence[Bar], digits: int) -> str:
    """Horizontal bars of the medians, with a line from the minimum to the maximum."""
    end = _end_of_scale([bar.high for bar in bars])
    parts = [_text(MARGIN, 34, title, size=17, weight="bold")]
    for number, bar in enumerate(bars):
        parts += _bar_with_range(bar, TOP + number * (BAR + GAP), end, digits)
    return _svg(TOP + len(bars) * (BAR + GAP) + MARGIN // 2, parts)


def _bar_with_range(bar: Bar, y: float, end: float, digits: int) -> list[str]:
    def x(value: float) -> float:
        return LABELS + min(value / end, 1.0) * (WIDTH - LABELS - 110)

    middle, color = y + BAR / 2, OURS if bar.ours else OTHERS
    return [
        _text(LABELS - 8, middle + 4, bar.label, anchor="end"),
        f'<rect x="{LABELS}" y="{y}" width="{x(bar.middle) - LABELS:.1f}" height="{BAR}" fill="{color}"/>',
        f'<path d="M{x(bar.low):.1f} {middle}H{x(bar.high):.1f}" stroke="{RANGE}" stroke-width="1.5"/>',
        _text(x(bar.high) + 8, middle + 4, f"{bar.middle:,.{digits}f}" + (" »" if bar.high > end else "")),
    ]


def _end_of_scale(values: Sequence[float]) -> float:
    """A value that is far larger than all others is cut off, or these could not be compared."""
    *others, largest = sorted(values)
    return others[-1] * 1.2 if others and largest > OUTLIER * others[-1] else largest or 1.0


def _latency(rows: Sequence[Row]) -> str:
    names = {"p50_ms": "p50", "p99_ms": "p99", "p999_ms": "p99.9"}
    bars = [
        replace(_bar(row, metric), label=f"{row.setting}, {name}") for row in rows for metric, name in names.items()
    ]
    return bar_chart("From creation to stored, by load, milliseconds", bars, 1) if bars else ""


def _text(x: float, y: float, text: str, **style: object) -> str:
    values = {"anchor": "start", "size": 13, "weight": "normal", "fill": TEXT, **style}
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{values["anchor"]}" font-size="{values["size"]}"'
        f' font-weight="{values["weight"]}" fill="{values["fill"]}">{escape(text)}</text>'
    )


def _svg(height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" font-family="sans-serif">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"
