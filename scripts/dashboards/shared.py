"""Queries and panels used by several dashboards."""

from collections.abc import Sequence

from dashboards.grafana import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    READY,
    RED,
    RUNNING,
    Annotation,
    Column,
    Panel,
    ValueMappings,
    Variable,
    graph,
    stat,
    table,
)

OF = '{instance=~"$instance"}'

FAILED_PERCENT = "max(producer:failed_percent:rate5m)"
DEAD_LETTERED_PERCENT = "max(consumer:dead_lettered_percent:rate5m)"

NO_MESSAGES = "no messages"
NO_PRODUCER = "no producer is up"
NO_CONSUMER = "no consumer is up"
NOTHING_SETTLED = "no messages settled"
NO_COMMIT = "no committed offsets, or kafka-exporter is down"

Thresholds = dict[str, float]

STARTS = Annotation(
    "Container starts",
    '1000 * (container_start_time_seconds{service=~"zookeeper|kafka|mongodb|producer|consumer"} '
    "and on (project) compose:project:own)",
    ORANGE,
    "{{service}} started",
    "{{name}}",
    value_is_time=True,
)
REBALANCES = Annotation(
    "Rebalances",
    "sum by (event) (increase(consumer_rebalances_total[1m])) > 0",
    BLUE,
    "Partitions {{event}}",
    "The consumer group rebalanced.",
)

RESULTS = {
    "delivered": BLUE,
    "stored": GREEN,
    "duplicate": ORANGE,
    "skipped": GREY,
    "dead_lettered": RED,
    "failed": RED,
}

PAUSES: ValueMappings = {0: ("reading", GREEN), 1: ("PAUSED", RED), 2: ("throttled", ORANGE)}


def replicas_of(job: str) -> Variable:
    return Variable("instance", "Replica", f'label_values(up{{job="{job}"}}, instance)')


def running(job: str, title: str, *, width: int = 4) -> Panel:
    return stat(
        title,
        "DOWN if it is unreachable or if no target exists.",
        f'service:up:min{{job="{job}"}}',
        mappings=RUNNING,
        no_value="DOWN",
        width=width,
    )


def zookeeper_or_quorum(*, width: int = 4) -> Panel:
    return stat(
        "ZooKeeper or quorum",
        "DOWN: ZooKeeper is unreachable, or the controllers of Kafka have no leader.",
        'service:up:min{job="zookeeper"} or max(kafka_server_raft_current_leader >= bool 0)',
        mappings=RUNNING,
        no_value="DOWN",
        width=width,
    )


def ready(job: str, title: str, *, no_value: str = "DOWN") -> Panel:
    return stat(
        title,
        "DOWN: a replica is unreachable, or none exists. NOT READY: /ready fails and lists the reasons.",
        f'service:up:min{{job="{job}"}} * on () (1 + min({job}_healthy))',
        mappings=READY,
        no_value=no_value,
    )


def message_rate(title: str, description: str, selector: str) -> Panel:
    return stat(title, description, rate(selector), "mps", no_value="none", decimals=1)


def failed_share(thresholds: Thresholds) -> Panel:
    return stat(
        "Failed deliveries",
        "Share of messages that failed after all retries, last 5 minutes. They are kept in the undelivered folder.",
        FAILED_PERCENT,
        "percent",
        threshold=thresholds["DeliveriesFailing"],
        no_value=NO_MESSAGES,
        decimals=1,
    )


def dead_letter_share(thresholds: Thresholds) -> Panel:
    return stat(
        "Dead-lettered",
        "Share of messages written to the dead-letter topic, last 5 minutes.",
        DEAD_LETTERED_PERCENT,
        "percent",
        threshold=thresholds["DeadLetterShareHigh"],
        no_value=NO_MESSAGES,
        decimals=1,
    )


def undelivered() -> Panel:
    return stat(
        "Undelivered",
        "Messages in the undelivered folder, which replicas share. Once Kafka recovers they are resent, "
        "except those that Kafka rejected.",
        "max(producer_undelivered_messages)",
        threshold=1,
        threshold_color=ORANGE,
    )


def highest_lag(thresholds: Thresholds) -> Panel:
    return stat(
        "Consumer lag",
        "Messages after the last committed offset, for the consumer group with the highest lag.",
        "max(group_topic:lag:sum)",
        threshold=thresholds["HighConsumerLag"],
    )


def lag_by_group(thresholds: Thresholds) -> Panel:
    return graph(
        "Consumer lag by group",
        "Messages after the last committed offset. Dashed line: alert threshold (HighConsumerLag).",
        {"{{consumergroup}}: {{topic}}": "group_topic:lag:sum"},
        threshold=thresholds["HighConsumerLag"],
        no_value=NO_COMMIT,
    )


def percentiles(
    title: str, description: str, histogram: str, *, selector: str = "", width: int = 12, no_value: str
) -> Panel:
    buckets = rate(f"{histogram}_bucket{selector}", by="le")
    return graph(
        title,
        description,
        {
            name: f"histogram_quantile({quantile}, {buckets})"
            for name, quantile in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
        },
        "s",
        width=width,
        colors={"p50": GREEN, "p95": ORANGE, "p99": RED},
        no_value=no_value,
    )


def replicas_table(*columns: Column, height: int) -> Panel:
    return table(
        "Replicas",
        "Host is the container ID shown by docker ps.",
        [
            Column("Service", label="job", width=140),
            Column("Replica", label="instance"),
            Column("Host", label="hostname"),
            Column("Version", label="version", width=100),
            *columns,
        ],
        height=height,
    )


def process_of(service: str, no_value: str) -> Sequence[Panel]:
    """Resource usage as the process itself reports it, so it works outside of containers too."""
    of = f'{{job="{service}",instance=~"$instance"}}'
    return [
        graph(
            "CPU",
            "CPU usage per replica; 100% is one core.",
            {"{{instance}}": f"100 * rate(process_cpu_seconds_total{of}[$__rate_interval])"},
            "percent",
            width=8,
            no_value=no_value,
        ),
        graph(
            "Memory",
            "Resident memory per replica. Memory limits are shown on System Overview.",
            {"{{instance}}": f"process_resident_memory_bytes{of}"},
            "bytes",
            width=8,
            no_value=no_value,
        ),
        graph(
            "Open files",
            "Open file descriptors per replica, including connections. Steady growth indicates a leak.",
            {"{{instance}}": f"process_open_fds{of}"},
            width=8,
            no_value=no_value,
        ),
    ]


def rate(selector: str, *, by: str = "") -> str:
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({selector}[$__rate_interval]))"


def average(histogram: str, selector: str = "") -> str:
    return f"{rate(f'{histogram}_sum{selector}')} / ({rate(f'{histogram}_count{selector}')} > 0)"


def by_replica(expression: str) -> str:
    """The expression per replica, with the host and version labels of app_info."""
    labels = "job, instance, hostname, version"
    return f"sum by ({labels}) (({expression}) * on (instance) group_left (hostname, version) app_info)"
