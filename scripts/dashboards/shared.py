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

FAILED_PERCENT = "max(producer:failed_percent:rate5m)"
DEAD_LETTERED_PERCENT = "max(consumer:dead_lettered_percent:rate5m)"

NO_MESSAGES = "no messages"
NO_PRODUCER = "no producer answers"
NO_CONSUMER = "no consumer answers"
NOTHING_SETTLED = "no message was settled"
NO_COMMIT = "no group has committed an offset, or kafka-exporter is silent"

Limits = dict[str, float]

STARTS = Annotation(
    "Starts",
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
    "The group gave its partitions out anew.",
)

RESULTS = {"delivered": BLUE, "stored": GREEN, "duplicate": ORANGE, "dead_lettered": RED, "failed": RED}

PAUSES: Texts = {0: ("reading", GREEN), 1: ("PAUSED", RED), 2: ("slowed", ORANGE)}


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
        missing=NO_MESSAGES,
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
        missing=NO_MESSAGES,
        width=width,
        decimals=1,
    )


def undelivered(*, width: int = 4) -> Panel:
    return stat(
        "Undelivered",
        "Messages in the undelivered folder, which replicas share: sent when Kafka is back, but for refused ones.",
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
        missing=NO_COMMIT,
    )


def percentiles(
    title: str, description: str, histogram: str, *, selector: str = "", width: int = 12, height: int = 8, missing: str
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
        missing=missing,
    )


def process_of(service: str, missing: str) -> list[Panel]:
    """What each replica takes of its machine, as it says itself: so in a container as outside of one."""
    of = f'{{job="{service}",instance=~"$instance"}}'
    legend = "{{instance}}"
    return [
        graph(
            "CPU",
            "Each replica, of one core.",
            [Query(f"100 * rate(process_cpu_seconds_total{of}[$__rate_interval])", legend)],
            "percent",
            width=8,
            missing=missing,
        ),
        graph(
            "Memory",
            "Resident, each replica. Its container's limit is on System Overview.",
            [Query(f"process_resident_memory_bytes{of}", legend)],
            "bytes",
            width=8,
            missing=missing,
        ),
        graph(
            "Open files",
            "Each replica's, connections to the servers among them. A number that only grows is a leak.",
            [Query(f"process_open_fds{of}", legend)],
            width=8,
            missing=missing,
        ),
    ]


def by_replica(expression: str) -> str:
    """A number a replica, with the host and the version that its metrics name."""
    labels = "job, instance, hostname, version"
    return f"sum by ({labels}) (({expression}) * on (instance) group_left (hostname, version) app_info)"


def average(histogram: str, selector: str = "") -> str:
    total, number = (f"sum(rate({histogram}_{part}{selector}[$__rate_interval]))" for part in ("sum", "count"))
    return f"{total} / ({number} > 0)"
