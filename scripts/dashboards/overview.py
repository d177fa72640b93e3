"""System Overview: health of all services, message flow, containers and host."""

from dashboards.grafana import BLUE, GREEN, ORANGE, RED, Column, Dashboard, Row, ValueMappings, graph, stat, table
from dashboards.shared import (
    NO_MESSAGES,
    REBALANCES,
    STARTS,
    Thresholds,
    dead_letter_share,
    failed_share,
    highest_lag,
    lag_by_group,
    message_rate,
    rate,
    ready,
    running,
    undelivered,
    zookeeper_or_quorum,
)

CONTAINERS: ValueMappings = {
    1: ("healthy", GREEN),
    0: ("UNHEALTHY", RED),
    -1: ("running", GREEN),  # the image has no health check
    -2: ("stopped", ORANGE),
}
LONG_RUNNING = '{service!~"topics|mongodb-users|logs-.+"}'  # excludes setup jobs, which exit when done
FIRING = 'ALERTS{alertstate="firing"}'
AFFECTED = f'label_join({FIRING}, "affected", " ", "job", "service", "consumergroup", "device", "reason")'
OK = 'label_replace(label_replace(vector(0), "alertname", "none", "", ""), "severity", "OK", "", "")'
SEVERITIES: ValueMappings = {"critical": ("critical", RED), "warning": ("warning", ORANGE), "OK": ("OK", GREEN)}

PRODUCED = 'producer_messages_total{result="delivered"}'
STORED = 'consumer_messages_total{result="stored"}'
DEAD_LETTERED = 'consumer_messages_total{result="dead_lettered"}'


def dashboard(thresholds: Thresholds) -> Dashboard:
    return Dashboard(
        "system-overview",
        "System Overview",
        "Health of all services, message flow, containers and host.",
        [_health(), _messages(thresholds), _containers(thresholds), _host(thresholds)],
        annotations=[STARTS, REBALANCES],
    )


def _health() -> Row:
    return Row(
        "Health",
        [
            stat(
                "Alerts firing",
                "Number of firing alerts, listed in the table below.",
                f"count({FIRING}) or vector(0)",
                threshold=1,
                no_value=None,
            ),
            zookeeper_or_quorum(),
            running("kafka", "Kafka"),
            running("mongodb", "MongoDB"),
            ready("producer", "Producer", no_value="NONE"),
            ready("consumer", "Consumer"),
            table(
                "Firing alerts",
                "The runbook entry for each alert is in docs/operations.md.",
                [
                    Column("Severity", label="severity", mappings=SEVERITIES, width=90),
                    Column("Alert", label="alertname", width=215),
                    Column("Affected", label="affected", width=205),
                    Column(
                        "Count",
                        f"sum by (alertname, severity, affected) ({AFFECTED}) or {OK} unless on () count({FIRING})",
                        width=80,
                    ),
                ],
                width=12,
                height=10,
                sorted_by=["Severity", "Alert"],
            ),
            graph(
                "Alerts over time",
                "Number of firing alerts, by severity.",
                {"{{severity}}": f"count by (severity) ({FIRING}) or {OK} unless on () count({FIRING})"},
                stacked=True,
                bars=True,
                height=10,
                colors={"critical": RED, "warning": ORANGE, "OK": GREEN},
            ),
        ],
    )


def _messages(thresholds: Thresholds) -> Row:
    return Row(
        "Message flow",
        [
            message_rate("Produced", "Messages confirmed by Kafka per second.", PRODUCED),
            message_rate("Stored", "Messages stored in MongoDB per second.", STORED),
            highest_lag(thresholds),
            dead_letter_share(thresholds),
            failed_share(thresholds),
            undelivered(),
            graph(
                "Message rate",
                "Messages per second. In a steady state, produced equals stored plus dead-lettered.",
                {"produced": rate(PRODUCED), "stored": rate(STORED), "dead-lettered": rate(DEAD_LETTERED)},
                "mps",
                colors={"produced": BLUE, "stored": GREEN, "dead-lettered": RED},
                no_value=NO_MESSAGES,
            ),
            lag_by_group(thresholds),
        ],
    )


def _containers(thresholds: Thresholds) -> Row:
    by = "by (service)"
    return Row(
        "Containers",
        [
            table(
                "Containers",
                "Containers of this Compose project. A stopped service stays listed for one hour. "
                "Restarts: of one replica, in the last 15 minutes. CPU: 100% is one core. "
                "% of limit: of the container's memory limit.",
                [
                    Column("Service", label="service", width=160),
                    Column(
                        "State",
                        f"min {by} ({_own('container_health_state')}) "
                        f"or 0 * max {by} ({_own(f'max_over_time(container_last_seen{LONG_RUNNING}[1h])')}) - 2",
                        mappings=CONTAINERS,
                        width=120,
                    ),
                    Column("Replicas", f"count {by} ({_own('container_last_seen')})", width=110),
                    Column(
                        "Uptime", f"time() - max {by} ({_own('container_start_time_seconds')})", unit="s", width=130
                    ),
                    Column(
                        "Restarts",
                        f"max {by} (service:restarts:changes15m{LONG_RUNNING})",
                        threshold=thresholds["ContainerRestarting"] + 1,
                        width=110,
                    ),
                    Column(
                        "CPU",
                        f"100 * sum {by} ({_own('rate(container_cpu_usage_seconds_total[$__rate_interval])')})",
                        unit="percent",
                        width=120,
                    ),
                    Column(
                        "Memory", f"sum {by} ({_own('container_memory_working_set_bytes')})", unit="bytes", width=130
                    ),
                    Column(
                        "% of limit",
                        f"max {by} (service:memory_percent:max)",
                        unit="percent",
                        threshold=thresholds["ContainerMemoryHigh"],
                        threshold_color=ORANGE,
                    ),
                ],
                height=16,
                sorted_by=["State", "Service"],
            )
        ],
    )


def _own(series: str) -> str:
    """Excludes containers of other projects on the host, which cAdvisor reports too."""
    return f"{series} and on (project) compose:project:own"


def _host(thresholds: Thresholds) -> Row:
    return Row(
        "Host",
        [
            graph(
                "CPU usage",
                "All cores combined.",
                {"CPU": '100 * (1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[$__rate_interval])))'},
                "percent",
                width=8,
                maximum=100,
            ),
            graph(
                "Memory usage",
                "Memory that is not available to processes. Dashed line: alert threshold (HostMemoryLow).",
                {"memory": "instance:memory_used_percent:max"},
                "percent",
                width=8,
                maximum=100,
                threshold=thresholds["HostMemoryLow"],
                threshold_color=ORANGE,
            ),
            graph(
                "Disk usage",
                "Dashed line: alert threshold (DiskSpaceLow).",
                {"{{device}}": "instance:disk_used_percent:max"},
                "percent",
                width=8,
                maximum=100,
                threshold=thresholds["DiskSpaceLow"],
                threshold_color=ORANGE,
            ),
        ],
    )
