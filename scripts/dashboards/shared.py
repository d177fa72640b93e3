"""Questions that more than one dashboard asks, in one wording."""

from dashboards.grafana import (
    BLUE,
    GREEN,
    ORANGE,
    READY,
    RED,
    RUNNING,
    Annotation,
    Choice,
    Panel,
    Query,
    Texts,
    graph,
    stat,
)

FAILED_PERCENT = "max(producer:failed_percent:rate5m) or vector(0)"
DEAD_LETTERED_PERCENT = "max(consumer:dead_lettered_percent:rate5m) or vector(0)"

Limits = dict[str, float]

STARTS = Annotation(
    "Starts",
    'container_start_time_seconds{service=~"zookeeper|kafka|mongodb|producer|consumer"} * 1000',
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
    "The group gave its partitions out anew.",
)

RESULTS = {"delivered": BLUE, "stored": GREEN, "duplicate": ORANGE, "dead_lettered": RED, "failed": RED}

PAUSES: Texts = {0: ("reading", GREEN), 1: ("PAUSED", RED)}


def replicas_of(job: str) -> Choice:
    return Choice("instance", "Replica", f'label_values(up{{job="{job}"}}, instance)')


def running(job: str, title: str, *, width: int = 4) -> Panel:
    """A server that answers, or does not."""
    return stat(
        title,
        "DOWN when it does not answer Prometheus, or when nothing is known of it.",
        f'service:up:min{{job="{job}"}}',
        texts=RUNNING,
        missing="DOWN",
        width=width,
    )


def ready(job: str, title: str, *, width: int = 4) -> Panel:
    """A service of ours, which also says itself whether it can work."""
    return stat(
        title,
        "DOWN: a replica does not answer, or none is left. NOT READY: /ready says what it waits for.",
        f'service:up:min{{job="{job}"}} * on () (1 + min({job}_healthy))',
        texts=READY,
        missing="DOWN",
        width=width,
    )


def failed_share(limits: Limits, *, width: int = 4) -> Panel:
    return stat(
        "Not delivered",
        "Share of messages given up after all retries, last 5 minutes. They are kept in the undelivered folder.",
        FAILED_PERCENT,
        "percent",
        limit=limits["DeliveriesFailing"],
        width=width,
        decimals=1,
    )


def dead_letter_share(limits: Limits, *, width: int = 4) -> Panel:
    return stat(
        "Dead-lettered",
        "Share of messages parked in the dead-letter topic, last 5 minutes.",
        DEAD_LETTERED_PERCENT,
        "percent",
        limit=limits["DeadLetterShareHigh"],
        width=width,
        decimals=1,
    )


def undelivered(*, width: int = 4) -> Panel:
    return stat(
        "Undelivered",
        "Messages in the undelivered folder, which replicas share; src.undelivered resend sends them again.",
        "max(producer_undelivered_messages)",
        limit=1,
        limit_colour=ORANGE,
        missing="unknown",
        width=width,
        decimals=0,
    )


def highest_lag(limits: Limits, *, width: int = 4) -> Panel:
    return stat(
        "Consumer lag",
        "Messages between the end of the topic and what the slowest group has committed.",
        "max(group_topic:lag:sum)",
        limit=limits["HighConsumerLag"],
        missing="unknown",
        width=width,
        decimals=0,
    )


def lag_by_group(limits: Limits, *, width: int = 12, height: int = 8) -> Panel:
    return graph(
        "Consumer lag",
        "Messages that wait, by group. The line is where HighConsumerLag fires.",
        [Query("group_topic:lag:sum", "{{consumergroup}}: {{topic}}")],
        limit=limits["HighConsumerLag"],
        width=width,
        height=height,
    )


def percentiles(
    title: str, description: str, histogram: str, *, selector: str = "", width: int = 12, height: int = 8
) -> Panel:
    return graph(
        title,
        description,
        [
            Query(
                f"histogram_quantile({share}, sum by (le) (rate({histogram}_bucket{selector}[$__rate_interval])))", name
            )
            for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
        ],
        "s",
        width=width,
        height=height,
        colours={"p50": GREEN, "p95": ORANGE, "p99": RED},
    )


def memory_of(service: str, *, width: int = 12) -> Panel:
    return graph(
        "Memory",
        "Of each replica's container.",
        [Query(f'sum by (name) (container_memory_working_set_bytes{{service="{service}"}})', "{{name}}")],
        "bytes",
        width=width,
        height=9,
    )


def processor_of(service: str, *, width: int = 12) -> Panel:
    return graph(
        "CPU",
        "Of one core, each replica's container.",
        [
            Query(
                "100 * sum by (name) "
                f'(rate(container_cpu_usage_seconds_total{{service="{service}"}}[$__rate_interval]))',
                "{{name}}",
            )
        ],
        "percent",
        width=width,
        height=9,
    )


def by_replica(expression: str) -> str:
    """A number a replica, with the host and the version that its metrics name."""
    labels = "job, instance, hostname, version"
    return f"sum by ({labels}) (({expression}) * on (instance) group_left (hostname, version) app_info)"


def average(histogram: str, selector: str = "") -> str:
    total, number = (f"sum(rate({histogram}_{part}{selector}[$__rate_interval]))" for part in ("sum", "count"))
    return f"{total} / ({number} > 0)"
