"""Alerts, dashboards and runbook agree with each other and with the metrics of the services; promtool accepts them."""

import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from dashboards.__main__ import main as dashboards
from dashboards.grafana import Panel, Row, place
from dashboards.thresholds import expressions, read_thresholds

from tests.docker_engine import image, require_images

ROOT = Path(__file__).parents[1]
MONITORING = ROOT / "monitoring"
PROMETHEUS = MONITORING / "prometheus"
PAGES = {"system-overview", "kafka", "producer", "consumer", "application", "persistence"}

Json = dict[str, Any]

RULE = re.compile(r"^ +- alert: (\w+)$(.*?)(?=^ +- alert: |^ +- name: |\Z)", re.MULTILINE | re.DOTALL)
ALERTS = dict(RULE.findall((PROMETHEUS / "alerts.yml").read_text("utf-8")))
RECORDED = re.findall(r"- record: (\S+)", (PROMETHEUS / "recording.yml").read_text("utf-8"))
PROMTOOL_TESTS = "\n".join(path.read_text("utf-8") for path in sorted((PROMETHEUS / "tests").glob("*.yml")))
RUNBOOK = (ROOT / "docs" / "operations.md").read_text("utf-8")
RULES = "\n".join((PROMETHEUS / name).read_text("utf-8") for name in ("alerts.yml", "recording.yml"))


def models() -> dict[str, Json]:
    files = (MONITORING / "grafana" / "dashboards").glob("*.json")
    return {path.stem: json.loads(path.read_text("utf-8")) for path in files}


def panels(page: str) -> list[Json]:
    return [panel for panel in models()[page]["panels"] if panel["type"] != "row"]


def every_panel() -> list[tuple[str, Json]]:
    return [(f"{page}: {panel['title']}", panel) for page in sorted(PAGES) for panel in panels(page)]


def queries(panel: Json) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def threshold(panel: Json) -> float:
    return float(panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"])


def column_threshold(panel: Json, column: str) -> float:
    overrides = {item["matcher"]["options"]: item["properties"] for item in panel["fieldConfig"]["overrides"]}
    (steps,) = [entry["value"]["steps"] for entry in overrides[column] if entry["id"] == "thresholds"]
    return float(steps[-1]["value"])


def metrics_of(service: str) -> dict[str, set[str]]:
    """The metrics declared in a service's metrics.py, each with the names it exposes."""
    source = (ROOT / service / "src" / "utils" / "metrics.py").read_text("utf-8")
    declared = re.findall(r'(Counter|Gauge|Histogram)\(\s*"(\w+)"', source)
    suffixes = {"Counter": ("_total",), "Gauge": ("",), "Histogram": ("_bucket", "_sum", "_count")}
    return {name: {name + suffix for suffix in suffixes[kind]} for kind, name in declared}


# --- alerts


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_severity_summary_description_and_runbook(alert: str) -> None:
    rule = ALERTS[alert]

    assert re.search(r"severity: (critical|warning)\b", rule)
    assert re.search(r'summary: "\S', rule)
    assert re.search(r'description: "\S', rule)
    assert f"runbook: docs/operations.md#{alert.lower()}" in rule


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_a_runbook_entry(alert: str) -> None:
    assert f"### {alert}\n\n*{_severity(alert)}. " in RUNBOOK


def _severity(alert: str) -> str:
    return "Critical" if "severity: critical" in ALERTS[alert] else "Warning"


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_promtool_tests_for_firing_and_not_firing(alert: str) -> None:
    silent = rf"alertname: {alert}, eval_time: \w+, exp_alerts: \[\]"
    firing = rf"alertname: {alert}\n +eval_time: \w+\n +exp_alerts:\n +- exp_labels"

    assert re.search(silent, PROMTOOL_TESTS)
    assert re.search(firing, PROMTOOL_TESTS)


def test_the_runbook_covers_exactly_the_existing_alerts_in_order() -> None:
    section = RUNBOOK.split("\n## Alerts\n")[1].split("\n### Not covered by alerts")[0]

    assert re.findall(r"^### (\w+)$", section, re.MULTILINE) == list(ALERTS)


def test_every_log_entry_named_in_the_runbook_exists() -> None:
    sources = "\n".join(path.read_text("utf-8") for path in ROOT.glob("*er/src/**/*.py"))
    named = re.findall(r"log\s+entry\s+`([^`]+)`", RUNBOOK)

    assert len(named) > 5
    assert [message for message in named if f'"{message}"' not in sources] == []


def test_the_specified_alerts_fire_at_the_specified_values() -> None:
    assert expressions()["HighConsumerLag"] == "group_topic:lag:sum > 10000"
    assert "for: 5m" in ALERTS["HighConsumerLag"]
    assert "for: 1m" in ALERTS["ServiceUnavailable"]
    assert expressions()["DiskSpaceLow"] == "instance:disk_used_percent:max > 80"


def test_no_rule_hard_codes_a_group_or_topic() -> None:
    assert re.findall(r'\b(?:topic|group|consumergroup|collection|database)=~?"[^"]', RULES) == []


def test_alertmanager_inhibits_only_existing_alerts() -> None:
    text = (MONITORING / "alertmanager" / "alertmanager.yml").read_text("utf-8")

    named = {name for names in re.findall(r'alertname=~?"([\w|]+)"', text) for name in names.split("|")}

    assert named
    assert named - set(ALERTS) == set()


# --- dashboards


def test_the_dashboards_are_up_to_date_with_the_generator() -> None:
    assert dashboards(["--check"]) == 0
    assert set(models()) == PAGES


def test_check_reports_a_manually_edited_dashboard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dashboards(["--folder", str(tmp_path)])
    edited = tmp_path / "kafka.json"
    edited.write_text(edited.read_text("utf-8").replace("Kafka Monitoring", "Mine"), "utf-8")

    code = dashboards(["--check", "--folder", str(tmp_path)])

    assert code == 1
    assert capsys.readouterr().out.startswith("kafka.json is out of date")


@pytest.mark.parametrize("page", sorted(PAGES))
def test_a_dashboard_uses_the_classic_model_that_grafana_11_to_13_load(page: str) -> None:
    model = models()[page]

    assert model["uid"] == page
    assert 39 <= model["schemaVersion"] <= 42
    assert not {"id", "__inputs", "__requires"} & set(model)
    assert model["editable"] is False
    assert model["templating"]["list"][0]["name"] == "datasource"
    assert model["links"][0]["tags"] == model["tags"]


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_data_source_reference_uses_the_variable(page: str) -> None:
    text = json.dumps(models()[page])

    references = re.findall(r'"datasource": (\{[^{}]*(?:\{\w+\}[^{}]*)*\}|"[^"]*")', text)

    assert set(references) == {'{"type": "prometheus", "uid": "${datasource}"}'}


def test_dashboard_titles_are_unique() -> None:
    assert max(Counter(model["title"] for model in models().values()).values()) == 1


def test_every_panel_has_a_description_and_queries() -> None:
    kinds = {"timeseries", "stat", "table", "state-timeline"}

    assert [name for name, panel in every_panel() if len(panel["description"]) < 10] == []
    assert [name for name, panel in every_panel() if not all(queries(panel))] == []
    assert {panel["type"] for _, panel in every_panel()} <= kinds


@pytest.mark.parametrize("page", sorted(PAGES))
def test_panels_do_not_overlap(page: str) -> None:
    cells = Counter(
        (x, y)
        for grid in (panel["gridPos"] for panel in models()[page]["panels"])
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    )

    assert max(cells.values()) == 1
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize(
    ("page", "title", "alert"),
    [
        ("system-overview", "Consumer lag", "HighConsumerLag"),
        ("system-overview", "Dead-lettered", "DeadLetterShareHigh"),
        ("system-overview", "Failed deliveries", "DeliveriesFailing"),
        ("system-overview", "Memory usage", "HostMemoryLow"),
        ("system-overview", "Disk usage", "DiskSpaceLow"),
        ("kafka", "Consumer lag", "HighConsumerLag"),
        ("kafka", "Consumer lag by group", "HighConsumerLag"),
        ("producer", "Failed deliveries", "DeliveriesFailing"),
        ("consumer", "Consumer lag", "HighConsumerLag"),
        ("consumer", "Dead-lettered", "DeadLetterShareHigh"),
        ("application", "Error rates", "DeadLetterShareHigh"),
        ("persistence", "Connections in use", "MongoConnectionsHigh"),
    ],
)
def test_a_panel_threshold_equals_the_alert_threshold(page: str, title: str, alert: str) -> None:
    found = [panel for panel in panels(page) if panel["title"] == title]

    assert found
    assert {threshold(panel) for panel in found} == {read_thresholds()[alert]}


def test_column_thresholds_equal_the_alert_thresholds() -> None:
    (containers,) = [panel for panel in panels("system-overview") if panel["title"] == "Containers"]

    assert column_threshold(containers, "% of limit") == read_thresholds()["ContainerMemoryHigh"]
    assert (
        column_threshold(containers, "Restarts") == read_thresholds()["ContainerRestarting"] + 1
    )  # the alert fires above the value


@pytest.mark.parametrize("page", sorted(PAGES))
def test_status_panels_use_instant_queries_and_show_missing_data_as_down(page: str) -> None:
    states = [
        panel for panel in panels(page) if panel["type"] == "stat" and panel["fieldConfig"]["defaults"]["mappings"]
    ]

    assert states
    for panel in states:
        assert all(target["instant"] for target in panel["targets"])
        assert panel["fieldConfig"]["defaults"]["noValue"] in {"DOWN", "LOST", "NONE"}
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"] == [{"value": None, "color": "red"}]


def test_every_stat_panel_has_a_text_for_missing_data() -> None:
    silent = [
        name
        for name, panel in every_panel()
        if panel["type"] == "stat"
        and "noValue" not in panel["fieldConfig"]["defaults"]
        and not queries(panel)[0].endswith("or vector(0)")
    ]

    assert silent == []


def test_containers_of_other_projects_are_excluded() -> None:
    unfiltered = [
        name
        for name, panel in every_panel()
        for query in queries(panel)
        if "container_" in query and "compose:project:own" not in query
    ]

    assert unfiltered == []
    assert [name for name, query in expressions().items() if "container_" in query and ":own" not in query] == []


def test_a_panel_that_does_not_fit_starts_a_new_line_below_the_tallest() -> None:
    row = Row("r", [Panel("a", 12, 8, {}), Panel("b", 12, 4, {}), Panel("c", 6, 4, {})])

    placed = [(panel["title"], panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in place([row, row])]

    assert placed[:5] == [("r", 0, 0), ("a", 0, 1), ("b", 12, 1), ("c", 0, 9), ("r", 0, 13)]


# --- names


def all_queries() -> str:
    """All PromQL of rules and dashboards."""
    return RULES + "\n".join(query for _, panel in every_panel() for query in queries(panel))


@pytest.mark.parametrize("service", ["producer", "consumer"])
def test_every_service_metric_that_is_queried_exists(service: str) -> None:
    names = set(re.findall(rf"\b{service}_\w+\b", all_queries()))

    assert names
    assert names - set().union(*metrics_of(service).values()) == set()


@pytest.mark.parametrize("service", ["producer", "consumer"])
def test_every_service_metric_is_queried(service: str) -> None:
    names = set(re.findall(r"\b\w+\b", all_queries()))

    assert [metric for metric, exposed in metrics_of(service).items() if not exposed & names] == []


def test_recording_rules_and_their_uses_match() -> None:
    names = set(re.findall(r"\b[a-z_]+:[a-z0-9_]+:[a-z0-9]+\b", all_queries()))

    assert names - set(RECORDED) == set()
    assert set(RECORDED) - names == set()


def test_panels_allowed_to_be_empty_exist_and_have_a_reason() -> None:
    blocks = (MONITORING / "grafana" / "allow-empty.txt").read_text("utf-8").strip().split("\n\n")[1:]

    allowed = [block.splitlines() for block in blocks]

    titles = {panel["title"] for _, panel in every_panel()}
    assert all(lines[0].startswith("# ") and lines[-1] in titles for lines in allowed)


def test_an_alert_without_an_expression_is_an_error(tmp_path: Path) -> None:
    rules = tmp_path / "alerts.yml"
    rules.write_text("groups:\n  - name: g\n    rules:\n      - alert: Empty\n        for: 1m\n", "utf-8")

    with pytest.raises(ValueError, match="has no expression"):
        read_thresholds(rules)


# --- promtool and amtool


@pytest.fixture(scope="module")
def docker() -> None:
    require_images("promtool and amtool in containers", "PROMETHEUS_IMAGE", "ALERTMANAGER_IMAGE")


def promtool(*arguments: str) -> None:
    mount = ["-v", f"{PROMETHEUS}:/etc/prometheus:ro", "-w", "/etc/prometheus"]
    command = ["docker", "run", "--rm", *mount, "--entrypoint", "promtool", image("PROMETHEUS_IMAGE"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.docker
@pytest.mark.usefixtures("docker")
def test_promtool_accepts_the_configuration_and_rules() -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("check", "config", "prometheus-cluster.yml")
    promtool("check", "config", "prometheus-services.yml")


@pytest.mark.docker
@pytest.mark.usefixtures("docker")
def test_the_promtool_tests_of_the_alerts_pass() -> None:
    promtool("test", "rules", *sorted(f"tests/{path.name}" for path in (PROMETHEUS / "tests").glob("*.yml")))


@pytest.mark.docker
@pytest.mark.usefixtures("docker")
@pytest.mark.parametrize("address", ["", "https://example.org/hook", "https://example.org/a&b|c/'$HOME\"#%41?x={y}"])
def test_amtool_accepts_the_configuration_with_any_webhook_url(address: str) -> None:
    written = "sed '/^exec /d' /etc/alertmanager/start.sh | sh && amtool check-config /tmp/alertmanager.yml >&2"
    mount = ["-v", f"{MONITORING / 'alertmanager'}:/etc/alertmanager:ro", "-e", f"ALERT_WEBHOOK_URL={address}"]
    command = ["docker", "run", "--rm", *mount, "--entrypoint", "sh", image("ALERTMANAGER_IMAGE"), "-c"]

    done = subprocess.run(
        [*command, f"{written}; code=$?; cat /tmp/webhook_url 2>/dev/null; exit $code"], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == address
