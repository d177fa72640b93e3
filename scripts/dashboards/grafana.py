"""Builds panels, rows and dashboards in Grafana's classic JSON model, independent of what they show."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]

SCHEMA_VERSION: Final = 41  # classic model, loaded unchanged by Grafana 11 to 13
COLUMNS: Final = 24
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
TAG: Final = "kafka-pubsub"

GREEN, ORANGE, RED, BLUE, GREY = "green", "orange", "red", "blue", "text"

Queries = Mapping[str, str]
"""The legend of each series, with its PromQL expression."""

ValueMappings = Mapping[int | str, tuple[str, str]]
"""Value mappings: the text and color shown instead of a value."""

RUNNING: Final[ValueMappings] = {0: ("DOWN", RED), 1: ("UP", GREEN)}
READY: Final[ValueMappings] = {0: ("DOWN", RED), 1: ("NOT READY", ORANGE), 2: ("UP", GREEN)}


@dataclass(frozen=True)
class Column:
    """A table column: the value of a query, or a label if the expression is empty."""

    title: str
    expression: str = ""
    label: str = ""
    unit: str = "short"
    mappings: ValueMappings = field(default_factory=dict)
    threshold: float | None = None
    threshold_color: str = RED
    width: int | None = None


@dataclass(frozen=True)
class Panel:
    title: str
    width: int
    height: int
    body: Json


@dataclass(frozen=True)
class Row:
    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Variable:
    """A dashboard variable that filters by the values of a label."""

    name: str
    label: str
    query: str


@dataclass(frozen=True)
class Annotation:
    name: str
    expression: str
    color: str
    title: str
    text: str
    value_is_time: bool = False


@dataclass(frozen=True)
class Dashboard:
    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    variables: Sequence[Variable] = ()
    annotations: Sequence[Annotation] = ()

    def text(self) -> str:
        return json.dumps(self._model(), indent=2, ensure_ascii=False) + "\n"

    def _model(self) -> Json:
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": SCHEMA_VERSION,
            "editable": False,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "links": [_dashboard_links()],
            "annotations": {"list": [_annotation(annotation) for annotation in self.annotations]},
            "templating": {"list": [_datasource_variable(), *(_variable(variable) for variable in self.variables)]},
            "panels": place(self.rows),
        }


def place(rows: Sequence[Row]) -> list[Json]:
    """Lay out panels from left to right; one that does not fit starts a new line below the tallest panel before it."""
    placed: list[Json] = []
    y = 0
    for row in rows:
        placed.append(_row_header(row.title, y) | {"id": len(placed) + 1})
        y += 1
        x = line_height = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, line_height = 0, y + line_height, 0
            grid = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            placed.append({"id": len(placed) + 1, "title": panel.title, "gridPos": grid} | panel.body)
            x, line_height = x + panel.width, max(line_height, panel.height)
        y += line_height
    return placed


def stat(
    title: str,
    description: str,
    expression: str,
    unit: str = "short",
    *,
    threshold: float | None = None,
    threshold_color: str = RED,
    mappings: ValueMappings | None = None,
    no_value: str | None = "unknown",
    decimals: int | None = None,
    width: int = 4,
) -> Panel:
    """A single current value, or `no_value`. The query is instant, so a stale value is never shown."""
    defaults: Json = {"unit": unit, "color": {"mode": "thresholds"}, "mappings": _mappings(mappings or {})}
    if mappings:
        defaults["thresholds"] = _steps((None, RED))
    elif threshold is None:
        defaults["thresholds"] = _steps((None, ORANGE), (0, BLUE))  # the first step colors `no_value`
    else:
        defaults["thresholds"] = _steps((None, ORANGE), (0, GREEN), (threshold, threshold_color))
    defaults |= _without_none(noValue=no_value, decimals=decimals)
    options = {
        "colorMode": "background" if mappings else "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "value",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    return _panel("stat", title, description, [("", expression)], width, 4, defaults, options, instant=True)


def graph(
    title: str,
    description: str,
    queries: Queries,
    unit: str = "short",
    *,
    width: int = 12,
    height: int = 8,
    threshold: float | None = None,
    threshold_color: str = RED,
    stacked: bool = False,
    bars: bool = False,
    maximum: float | None = None,
    soft_maximum: float | None = None,
    colors: Mapping[str, str] | None = None,
    shades_of: str | None = None,
    no_value: str | None = None,
) -> Panel:
    """A time series. `no_value` is shown if there is no data, and says why."""
    defaults: Json = {
        "unit": unit,
        "min": 0,
        "color": {"mode": "shades", "fixedColor": shades_of} if shades_of else {"mode": "palette-classic"},
        "custom": {
            "drawStyle": "bars" if bars else "line",
            "lineWidth": 0 if bars else 2,
            "fillOpacity": 60 if bars else 25 if stacked else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "off" if threshold is None else "dashed"},
            **_without_none(axisSoftMax=soft_maximum),
        },
        "thresholds": _steps((None, GREEN))
        if threshold is None
        else _steps((None, GREEN), (threshold, threshold_color)),
    }
    defaults |= _without_none(max=maximum, noValue=no_value)
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    overrides = [
        _named(name, {"id": "color", "value": {"mode": "fixed", "fixedColor": color}})
        for name, color in (colors or {}).items()
    ]
    return _panel("timeseries", title, description, [*queries.items()], width, height, defaults, options, overrides)


def states(
    title: str,
    description: str,
    queries: Queries,
    mappings: ValueMappings,
    *,
    height: int = 8,
    no_value: str,
) -> Panel:
    """A state timeline: one colored band per series."""
    defaults: Json = {
        "color": {"mode": "thresholds"},
        "custom": {"fillOpacity": 80, "lineWidth": 0},
        "mappings": _mappings(mappings),
        "noValue": no_value,
        "thresholds": _steps((None, GREY)),
    }
    options = {
        "mergeValues": True,
        "showValue": "auto",
        "rowHeight": 0.8,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "single"},
    }
    return _panel("state-timeline", title, description, [*queries.items()], 12, height, defaults, options)


def table(
    title: str,
    description: str,
    columns: Sequence[Column],
    *,
    width: int = 24,
    height: int = 8,
    sorted_by: Sequence[str] = (),
) -> Panel:
    """One row per label set shared by the queries; only the given columns are shown, in this order."""
    queried = [column for column in columns if column.expression]
    names = [column.label or f"Value #{_letter(queried.index(column))}" for column in columns]
    if len(queried) == 1:
        names = [column.label or "Value" for column in columns]
    body = _panel(
        "table",
        title,
        description,
        [("", column.expression) for column in queried],
        width,
        height,
        {"custom": {"align": "left", "cellOptions": {"type": "auto"}}, "thresholds": _steps((None, GREY))},
        {
            "showHeader": True,
            "cellHeight": "sm",
            "sortBy": [{"displayName": name, "desc": False} for name in sorted_by],
        },
        [_named(column.title, *_column_properties(column)) for column in columns],
        instant=True,
    ).body
    for target in body["targets"]:
        target["format"] = "table"
    body["transformations"] = [
        {"id": "merge", "options": {}},
        {
            "id": "organize",
            "options": {
                "excludeByName": {"Time": True},
                "indexByName": {name: index for index, name in enumerate(names)},
                "renameByName": {name: column.title for name, column in zip(names, columns, strict=True)},
            },
        },
    ]
    return Panel(title, width, height, body)


def _panel(
    kind: str,
    title: str,
    description: str,
    queries: Sequence[tuple[str, str]],
    width: int,
    height: int,
    defaults: Json,
    options: Json,
    overrides: Sequence[Json] = (),
    *,
    instant: bool = False,
) -> Panel:
    body = {
        "type": kind,
        "description": description,
        "datasource": DATASOURCE,
        "targets": [_target(index, *query, instant) for index, query in enumerate(queries)],
        "fieldConfig": {"defaults": defaults, "overrides": list(overrides)},
        "options": options,
    }
    return Panel(title, width, height, body)


def _target(index: int, legend: str, expression: str, instant: bool) -> Json:
    return {
        "refId": _letter(index),
        "datasource": DATASOURCE,
        "expr": expression,
        "legendFormat": legend,
        "instant": instant,
        "range": not instant,
    }


def _without_none(**properties: object) -> Json:
    return {name: value for name, value in properties.items() if value is not None}


def _letter(index: int) -> str:
    return chr(ord("A") + index)


def _row_header(title: str, y: int) -> Json:
    grid = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
    return {"type": "row", "title": title, "gridPos": grid, "collapsed": False, "panels": []}


def _steps(*steps: tuple[float | None, str]) -> Json:
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in steps]}


def _mappings(mappings: ValueMappings) -> list[Json]:
    if not mappings:
        return []
    options = {
        str(value): {"text": text, "color": color, "index": index}
        for index, (value, (text, color)) in enumerate(mappings.items())
    }
    return [{"type": "value", "options": options}]


def _named(name: str, *properties: Json) -> Json:
    return {"matcher": {"id": "byName", "options": name}, "properties": list(properties)}


def _column_properties(column: Column) -> list[Json]:
    properties: list[Json] = [{"id": "unit", "value": column.unit}] if column.expression else []
    if column.width:
        properties.append({"id": "custom.width", "value": column.width})
    if column.mappings:
        properties.append({"id": "mappings", "value": _mappings(column.mappings)})
    if column.threshold is not None:
        properties.append(
            {"id": "thresholds", "value": _steps((None, GREEN), (column.threshold, column.threshold_color))}
        )
    if column.mappings or column.threshold is not None:
        properties.append({"id": "custom.cellOptions", "value": {"type": "color-text"}})
    return properties


def _dashboard_links() -> Json:
    return {
        "type": "dashboards",
        "title": "Dashboards",
        "tags": [TAG],
        "asDropdown": False,
        "icon": "external link",
        "includeVars": False,
        "keepTime": True,
        "targetBlank": False,
    }


def _annotation(annotation: Annotation) -> Json:
    return {
        "name": annotation.name,
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": annotation.color,
        "expr": annotation.expression,
        "step": "60s",
        "titleFormat": annotation.title,
        "textFormat": annotation.text,
        "useValueForTime": "on" if annotation.value_is_time else "off",
    }


def _datasource_variable() -> Json:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {"selected": False, "text": "Prometheus", "value": "prometheus"},
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "refresh": 1,
    }


def _variable(variable: Variable) -> Json:
    return {
        "name": variable.name,
        "label": variable.label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": variable.query,
        "query": {"query": variable.query, "refId": variable.name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }
