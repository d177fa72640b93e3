"""Persistence Monitoring: health, operations, growth and resources of MongoDB."""

from dashboards.grafana import Dashboard, Row, graph, stat, states
from dashboards.shared import NO_CONSUMER, NOTHING_SETTLED, PAUSES, STARTS, Thresholds, percentiles, rate, running

LATENCY = (
    "max by (op_type) (rate(mongodb_ss_opLatencies_latency[$__rate_interval]) "
    "/ (rate(mongodb_ss_opLatencies_ops[$__rate_interval]) > 0))"
)
WRITE_LATENCY = (
    'rate(mongodb_ss_opLatencies_latency{op_type="writes"}[5m]) '
    '/ (rate(mongodb_ss_opLatencies_ops{op_type="writes"}[5m]) > 0)'
)
CACHE = "mongodb_ss_wt_cache_bytes_currently_in_the_cache / mongodb_ss_wt_cache_maximum_bytes_configured"
MEMORY_LIMIT = 'max(container_spec_memory_limit_bytes{service="mongodb"} > 0 and on (project) compose:project:own)'


def dashboard(thresholds: Thresholds) -> Dashboard:
    return Dashboard(
        "persistence",
        "Persistence Monitoring",
        "Health, operations, growth and resources of MongoDB.",
        [_status(thresholds), _operations(), _growth(), _resources()],
        annotations=[STARTS],
    )


def _status(thresholds: Thresholds) -> Row:
    return Row(
        "Status",
        [
            running("mongodb", "MongoDB"),
            stat("Uptime", "Time since MongoDB started.", "max(mongodb_ss_uptime)", "s", no_value="down", decimals=1),
            stat(
                "Connections in use",
                "Share of the connection limit.",
                "max(mongodb:connections_percent:max)",
                "percent",
                threshold=thresholds["MongoConnectionsHigh"],
                decimals=2,
            ),
            stat(
                "Write latency",
                "Average of the last 5 minutes.",
                f"max({WRITE_LATENCY})",
                "µs",
                no_value="none",
                decimals=0,
            ),
            stat("Documents", "Documents in the collection.", "sum(mongodb_collstats_storageStats_count)"),
            stat(
                "Data size",
                "Uncompressed size of the documents in the collection.",
                "sum(mongodb_collstats_storageStats_size)",
                "bytes",
            ),
        ],
    )


def _operations() -> Row:
    return Row(
        "Operations",
        [
            graph(
                "Operations",
                "Operations per second, by type. A batch insert counts every document.",
                {"{{legacy_op_type}}": rate("mongodb_ss_opcounters", by="legacy_op_type")},
                "ops",
            ),
            graph("Operation latency", "Average latency, by type of operation.", {"{{op_type}}": LATENCY}, "µs"),
            percentiles(
                "Storage latency measured by the consumer",
                "Time to store a batch, including network and journal.",
                "consumer_storage_latency_seconds",
                no_value=NOTHING_SETTLED,
            ),
            states(
                "Consumers paused for MongoDB",
                "PAUSED: MongoDB is unavailable, so the consumer has stopped reading.",
                {"{{instance}}": 'max by (instance) (consumer_paused{reason="storage"})'},
                PAUSES,
                no_value=NO_CONSUMER,
            ),
        ],
    )


def _growth() -> Row:
    return Row(
        "Growth",
        [
            graph(
                "Documents",
                "Documents in the collection.",
                {"{{collection}}": "sum by (collection) (mongodb_collstats_storageStats_count)"},
                width=8,
            ),
            graph(
                "Size",
                "Uncompressed documents, disk space that they use, and indexes.",
                {
                    "documents": "sum(mongodb_collstats_storageStats_size)",
                    "on disk": "sum(mongodb_collstats_storageStats_storageSize)",
                    "indexes": "sum(mongodb_collstats_storageStats_totalIndexSize)",
                },
                "bytes",
                width=8,
            ),
            graph(
                "Growth rate",
                "Bytes per second, averaged over the last hour.",
                {"{{collection}}": "sum by (collection) (deriv(mongodb_collstats_storageStats_size[1h]))"},
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
                "current: open connections. active: connections that are executing an operation.",
                {"{{conn_type}}": 'sum by (conn_type) (mongodb_ss_connections{conn_type=~"current|active"})'},
                width=8,
            ),
            graph(
                "Memory",
                "Resident memory of mongod, and the memory limit of its container.",
                {"resident": "1048576 * max(mongodb_ss_mem_resident)", "limit": MEMORY_LIMIT},
                "bytes",
                width=8,
            ),
            graph(
                "WiredTiger cache in use",
                "Share of the configured cache size. Eviction starts above 80%; above 95% it slows client operations.",
                {"cache": f"100 * max({CACHE})"},
                "percent",
                width=8,
                maximum=100,
            ),
        ],
    )
