"""System overview: is everything up, do messages flow, does the machine suffice?"""

from dashboards.grafana import BLUE, GREEN, ORANGE, RED, Column, Dashboard, Query, Row, Texts, graph, stat, table
from dashboards.shared import (
    NO_MESSAGES,
    REBALANCES,
    STARTS,
    Limits,
    dead_letter_share,
    failed_share,
    highest_lag,
    lag_by_group,
    ready,
    running,
    undelivered,
)

CONTAINERS: Texts = {
    1: ("healthy", GREEN),
    0: ("UNHEALTHY", RED),
    -1: ("running", GREEN),  # its image allows no healthcheck
    -2: ("stopped", ORANGE),
}
LASTING = '{service!~"topics|mongodb-users|logs-.+"}'  # not the set-ups, which end
FIRING = 'ALERTS{alertstate="firing"}'
NAMED = f'label_join({FIRING}, "about", " ", "job", "service", "consumergroup", "device", "reason")'
NONE = 'label_replace(label_replace(vector(0), "alertname", "none", "", ""), "severity", "all is well", "", "")'
SEVERITIES: Texts = {
    "critical": ("critical", RED),
    "warning": ("warning", ORANGE),
    "all is well": ("all is well", GREEN),
}


def dashboard(limits: Limits) -> Dashboard:
    return Dashboard(
        "system-overview",
        "System Overview",
        "Is everything up, do messages flow, does the machine suffice?",
        [_health(), _messages(limits), _containers(limits), _machine(limits)],
        annotations=[STARTS, REBALANCES],
    )


def _health() -> Row:
    return Row(
        "Is everything up?",
        [
            stat(
                "Alerts firing",
                "How many alerts fire now; the table below names them.",
                f"count({FIRING}) or vector(0)",
                limit=1,
                decimals=0,
            ),
            running("zookeeper", "ZooKeeper"),
            running("kafka", "Kafka"),
            running("mongodb", "MongoDB"),
            ready("producer", "Producer"),
            ready("consumer", "Consumer"),
            table(
                "Firing alerts",
                "Each has an entry in docs/operations.md.",
                [
                    Column("Severity", label="severity", texts=SEVERITIES, width=90),
                    Column("Alert", label="alertname", width=215),
                    Column("About", label="about", width=205),
                    Column(
                        "Number",
                        f"sum by (alertname, severity, about) ({NAMED}) or {NONE} unless on () count({FIRING})",
                        width=80,
                    ),
                ],
                height=8,
                width=12,
                sorted_by=["Severity", "Alert"],
            ),
            graph(
                "Alerts over time",
                "How many fired when, by severity.",
                [Query(f"count by (severity) ({FIRING}) or {NONE} unless on () count({FIRING})", "{{severity}}")],
                stacked=True,
                bars=True,
                colours={"critical": RED, "warning": ORANGE, "all is well": GREEN},
                height=8,
            ),
        ],
    )


def _messages(limits: Limits) -> Row:
    return Row(
        "Do messages flow?",
        [
            stat(
                "Produced",
                "Messages that Kafka has confirmed, a second.",
                'sum(rate(producer_messages_total{result="delivered"}[$__rate_interval]))',
                "mps",
                missing="none",
                decimals=1,
            ),
            stat(
                "Stored",
                "Messages stored in MongoDB, a second.",
                'sum(rate(consumer_messages_total{result="stored"}[$__rate_interval]))',
                "mps",
                missing="none",
                decimals=1,
            ),
            highest_lag(limits),
            dead_letter_share(limits),
            failed_share(limits),
            undelivered(),
            graph(
                "Messages a second",
                "What goes in and what comes out; in the long run the two are equal.",
                [
                    Query('sum(rate(producer_messages_total{result="delivered"}[$__rate_interval]))', "produced"),
                    Query('sum(rate(consumer_messages_total{result="stored"}[$__rate_interval]))', "stored"),
                    Query(
                        'sum(rate(consumer_messages_total{result="dead_lettered"}[$__rate_interval]))', "dead-lettered"
                    ),
                ],
                "mps",
                colours={"produced": BLUE, "stored": GREEN, "dead-lettered": RED},
                missing=NO_MESSAGES,
            ),
            lag_by_group(limits),
        ],
    )


def _containers(limits: Limits) -> Row:
    by = "by (service)"
    return Row(
        "Containers",
        [
            table(
                "Containers",
                "Every service of the compose file; one that stopped within the last hour is still listed. "
                "Restarts: in 15 minutes. CPU: 100 % is one core. Memory: of the container's own limit.",
                [
                    Column("Service", label="service", width=160),
                    Column(
                        "State",
                        f"min {by} ({_own('container_health_state')}) "
                        f"or 0 * max {by} ({_own(f'max_over_time(container_last_seen{LASTING}[1h])')}) - 2",
                        texts=CONTAINERS,
                        width=120,
                    ),
                    Column("Running", f"count {by} ({_own('container_last_seen')})", width=110),
                    Column(
                        "Up for", f"time() - max {by} ({_own('container_start_time_seconds')})", unit="s", width=130
                    ),
                    Column(
                        "Restarts",
                        f"max {by} (service:restarts:changes15m{LASTING})",
                        limit=limits["ContainerRestarting"] + 1,
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
                        "Of its limit",
                        f"max {by} (service:memory_percent:max)",
                        unit="percent",
                        limit=limits["ContainerMemoryHigh"],
                        limit_colour=ORANGE,
                    ),
                ],
                height=16,
                sorted_by=["State", "Service"],
            )
        ],
    )


def _own(series: str) -> str:
    """Without the containers of other projects on the machine, all of which cadvisor tells of."""
    return f"{series} and on (project) compose:project:own"


def _machine(limits: Limits) -> Row:
    return Row(
        "Machine",
        [
            graph(
                "CPU in use",
                "All cores together.",
                [
                    Query(
                        '100 * (1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[$__rate_interval])))',
                        "CPU",
                    )
                ],
                "percent",
                width=8,
                highest=100,
            ),
            graph(
                "Memory in use",
                "What could not be had without taking it from somebody. The line is where HostMemoryLow fires.",
                [Query("instance:memory_used_percent:max", "memory")],
                "percent",
                width=8,
                highest=100,
                limit=limits["HostMemoryLow"],
                limit_colour=ORANGE,
            ),
            graph(
                "Disk in use",
                "The line is where DiskSpaceLow fires.",
                [Query("instance:disk_used_percent:max", "{{device}}")],
                "percent",
                width=8,
                highest=100,
                limit=limits["DiskSpaceLow"],
                limit_colour=ORANGE,
            ),
        ],
    )
