"""Panel thresholds, read from the alert rules so that both agree."""

import re
from collections.abc import Mapping
from pathlib import Path

ALERTS = Path(__file__).parents[2] / "monitoring" / "prometheus" / "alerts.yml"

ALERT = re.compile(r"^ +- alert: (?P<name>\w+)$(?P<rule>.*?)(?=^ +- alert: |\Z)", re.MULTILINE | re.DOTALL)
EXPRESSION = re.compile(r"^ +expr: (?:\|\n(?P<block>(?:^ {10,}.*\n)+)|(?P<line>.*))", re.MULTILINE)
COMPARISON = re.compile(r"[<>] (\d+)\b")


def read_thresholds(path: Path = ALERTS) -> dict[str, float]:
    """The threshold of each alert; alerts that compare with 0 or with nothing are left out."""
    return {name: value for name, text in expressions(path).items() if (value := _threshold(text))}


def expressions(path: Path = ALERTS) -> Mapping[str, str]:
    return {match["name"]: _expression(match["rule"]) for match in ALERT.finditer(path.read_text("utf-8"))}


def _expression(rule: str) -> str:
    match = EXPRESSION.search(rule)
    if match is None:
        raise ValueError(f"alert rule has no expression: {rule.strip()[:60]}")
    return (match["block"] or match["line"]).strip()


def _threshold(expression: str) -> float | None:
    values = [float(value) for value in COMPARISON.findall(expression) if value != "0"]
    return values[0] if values else None
