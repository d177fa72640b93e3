"""MongoDB: is it well, what does it do, how does it grow?"""

from dashboards.grafana import Dashboard, Query, Row, bars, graph, stat, states
from dashboards.shared import NO_CONSUMER, NOTHING_SETTLED, PAUSES, STARTS, Limits, percentiles, running

OPERATIONS = "sum by (legacy_op_type) (rate(mongodb_ss_opcounters[$__rate_interval]))"
LATENCY = (
    "max by (op_type) (rate(mongodb_ss_opLatencies_latency[$__rate_interval]) "
    "/ (rate(mongodb_ss_opLatencies_ops[$__rate_interval]) > 0))"
)
WRITE_LATENCY = (
    'rate(mongodb_ss_opLatencies_latency{op_type="writes"}[5m]) '
    '/ (rate(mongodb_ss_opLatencies_ops{op_type="writes"}[5m]) > 0)'
)
CACHE = "mongodb_ss_wt_cache_bytes_currently_in_the_cache / mongodb_ss_wt_cache_maximum_bytes_configured"


def dashboard(limits: Limits) -> Dashboard:
    return Dashboard(
        "persistence",
        "Persistence Monitoring",
        "Is MongoDB well, what does it do, and how does it grow?",
        [_now(limits), _operations(), _growth(), _resources()],
        annotations=[STARTS],
    )


def _now(limits: Limits) -> Row:
    return Row(
        "Now",
        [
            running("mongodb", "MongoDB"),
            stat("Up for", "Since its last start.", "max(mongodb_ss_uptime)", "s", missing="down", decimals=1),
            stat(
                "Connections in use",
                "Of those that it allows.",
                "max(mongodb:connections_percent:max)",
                "percent",
                limit=limits["MongoConnectionsHigh"],
                missing="unknown",
                decimals=2,
            ),
            stat(
                "Response time",
                "Of a write, on average.",
                f"max({WRITE_LATENCY})",
                "µs",
                missing="none",
                decimals=0,
            ),
            stat(
                "Documents",
                "Messages in the collection.",
                "sum(mongodb_collstats_storageStats_count)",
                missing="unknown",
                decimals=0,
            ),
            stat(
                "Data",
                "Bytes of the collection's documents.",
                "sum(mongodb_collstats_storageStats_size)",
                "bytes",
                missing="unknown",
            ),
        ],
    )


def _operations() -> Row:
    return Row(
        "Operations",
        [
            graph(
                "Operations a second",
                "By kind; inserting a batch counts every document.",
                [Query(OPERATIONS, "{{legacy_op_type}}")],
                "ops",
            ),
            graph(
                "Response times",
                "On average, by kind of operation.",
                [Query(LATENCY, "{{op_type}}")],
                "µs",
            ),
            percentiles(
                "Storing a batch, as the consumer sees it",
                "Network and journal included.",
                "consumer_storage_latency_seconds",
                missing=NOTHING_SETTLED,
            ),
            states(
                "Consumers waiting for MongoDB",
                "PAUSED: a consumer's store does not answer, so it does not read on.",
                [Query('max by (instance) (consumer_paused{reason="storage"})', "{{instance}}")],
                PAUSES,
                height=8,
                missing=NO_CONSUMER,
            ),
        ],
    )


def _growth() -> Row:
    return Row(
        "Growth",
        [
            graph(
                "Documents",
                "Messages in the collection.",
                [Query("sum by (collection) (mongodb_collstats_storageStats_count)", "{{collection}}")],
                width=8,
            ),
            graph(
                "Size",
                "Documents before compression, the space that they take on disk, and their indexes.",
                [
                    Query("sum(mongodb_collstats_storageStats_size)", "documents"),
                    Query("sum(mongodb_collstats_storageStats_storageSize)", "on disk"),
                    Query("sum(mongodb_collstats_storageStats_totalIndexSize)", "indexes"),
                ],
                "bytes",
                width=8,
            ),
            graph(
                "Growth of the data",
                "Bytes a second over the last hour.",
                [Query("sum by (collection) (deriv(mongodb_collstats_storageStats_size[1h]))", "{{collection}}")],
                "Bps",
                width=8,
            ),
        ],
    )


def _resources() -> Row:
    return Row(
        "Resources",
        [
            graph(
                "Connections",
                "current: open; active: at work just now.",
                [
                    Query(
                        'sum by (conn_type) (mongodb_ss_connections{conn_type=~"current|active"})',
                        "{{conn_type}}",
                    )
                ],
                width=8,
            ),
            graph(
                "Memory of the process",
                "Resident, beside the container's limit.",
                [
                    Query("1048576 * max(mongodb_ss_mem_resident)", "resident"),
                    Query(
                        'max(container_spec_memory_limit_bytes{service="mongodb"} > 0 '
                        "and on (project) compose:project:own)",
                        "limit",
                    ),
                ],
                "bytes",
                width=8,
            ),
            bars(
                "WiredTiger cache in use",
                "Of the size it is given; above 80 % MongoDB evicts, above 95 % it makes clients do so and slows down.",
                [
                    Query(
                        f"100 * max({CACHE})",
                        "cache",
                    )
                ],
                "percent",
                width=8,
                highest=100,
            ),
        ],
    )
