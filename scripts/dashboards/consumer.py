"""Consumer: message rate, errors, lag, latency and partition assignment."""

from dashboards.grafana import GREEN, ORANGE, READY, RED, Column, Dashboard, Row, graph, stat, states
from dashboards.shared import (
    DEAD_LETTERED_PERCENT,
    NO_CONSUMER,
    NO_MESSAGES,
    NOTHING_SETTLED,
    OF,
    PAUSES,
    REBALANCES,
    RESULTS,
    STARTS,
    Thresholds,
    average,
    by_replica,
    dead_letter_share,
    highest_lag,
    lag_by_group,
    message_rate,
    percentiles,
    process_of,
    rate,
    ready,
    replicas_of,
    replicas_table,
)

PAUSED = (
    'max by (reason) (consumer_paused{reason!="backpressure",instance=~"$instance"}) '
    'or 2 * max by (reason) (consumer_paused{reason="backpressure",instance=~"$instance"})'
)

PAUSED_PARTITIONS = f"topk(10, max by (topic, partition) (consumer_partition_paused{OF}))"


def dashboard(thresholds: Thresholds) -> Dashboard:
    return Dashboard(
        "consumer",
        "Consumer",
        "Message rate, errors, lag, latency and partition assignment of the consumer.",
        [_status(thresholds), _rate(thresholds), _lag(thresholds), _latency(), _group(), _replicas()],
        variables=[replicas_of("consumer")],
        annotations=[STARTS, REBALANCES],
    )


def _status(thresholds: Thresholds) -> Row:
    return Row(
        "Status",
        [
            ready("consumer", "Consumer"),
            message_rate(
                "Stored",
                "Messages stored in MongoDB per second.",
                'consumer_messages_total{result="stored",instance=~"$instance"}',
            ),
            highest_lag(thresholds),
            dead_letter_share(thresholds),
            stat(
                "Dead letters, last hour",
                "Messages dead-lettered by all consumers in the last hour.",
                'sum(increase(consumer_messages_total{result="dead_lettered"}[1h]))',
                threshold=1,
                threshold_color=ORANGE,
                decimals=0,
            ),
            stat(
                "Offsets skipped",
                "Messages skipped because Kafka no longer had them, since the consumers started.",
                "sum(consumer_skipped_offsets_total)",
                threshold=1,
            ),
        ],
    )


def _rate(thresholds: Thresholds) -> Row:
    return Row(
        "Rate and errors",
        [
            graph(
                "Message rate",
                "Settled messages per second, by result. A duplicate was already stored; a transform skips.",
                {"{{result}}": rate(f"consumer_messages_total{OF}", by="result")},
                "mps",
                colors=RESULTS,
                no_value=NO_CONSUMER,
            ),
            graph(
                "Dead-lettered",
                "Share of messages dead-lettered. Dashed line: alert threshold (DeadLetterShareHigh).",
                {"dead-lettered": DEAD_LETTERED_PERCENT},
                "percent",
                threshold=thresholds["DeadLetterShareHigh"],
                soft_maximum=10,
                colors={"dead-lettered": RED},
                no_value=NO_MESSAGES,
            ),
            graph(
                "Dead letters by reason",
                "Dead letters per minute, for the ten most frequent reasons.",
                {
                    "{{reason}}": f"topk(10, 60 * {rate(f'consumer_dead_letters_total{OF}', by='reason')} > 0) "
                    'or label_replace(vector(0), "reason", "none", "", "")'
                },
                "cpm",
                bars=True,
                stacked=True,
                colors={"none": GREEN},
                shades_of=RED,
            ),
            graph(
                "Offset commits and retries",
                "Per second: offset commits, by result, and retries of failed operations.",
                {
                    "commit: {{result}}": rate(f"consumer_offset_commits_total{OF}", by="result"),
                    "retries": f"{rate(f'consumer_retries_total{OF}')} or vector(0)",
                },
                "ops",
                colors={"commit: success": GREEN, "commit: failure": RED, "retries": ORANGE},
            ),
        ],
    )


def _lag(thresholds: Thresholds) -> Row:
    return Row(
        "Lag and pauses",
        [
            lag_by_group(thresholds),
            states(
                "Pauses by reason",
                "storage: MongoDB is unavailable. schema_registry: a schema registry returns no schema. "
                "dead_letters: the dead-letter topic is unavailable. "
                "dead_letter_storm: nearly all messages of a partition are rejected. offset_gap: a partition needs an "
                "operator. backpressure: MongoDB is slower than Kafka, which is normal under load.",
                {"{{reason}}": PAUSED, "{{topic}}/{{partition}}": PAUSED_PARTITIONS},
                PAUSES,
                no_value=NO_CONSUMER,
            ),
            graph(
                "Time since last progress",
                "Time since a batch was last settled. It also grows while a consumer is idle, "
                "so it is a problem only if there is lag.",
                {"{{instance}}": f"time() - (consumer_last_progress_timestamp_seconds{OF} > 0)"},
                "s",
                height=7,
                no_value=NOTHING_SETTLED,
            ),
            graph(
                "Lag by partition",
                "The ten partitions with the highest lag, as reported by their consumer; "
                "updated every 10 seconds while it is paused.",
                {"{{topic}}/{{partition}}": f"topk(10, max by (topic, partition) (consumer_lag_messages{OF}))"},
                height=7,
                no_value=NO_CONSUMER,
            ),
        ],
    )


def _latency() -> Row:
    return Row(
        "Latency and batch size",
        [
            percentiles(
                "End-to-end latency",
                "From a message's Kafka timestamp until it is stored, including time spent in a backlog.",
                "consumer_end_to_end_latency_seconds",
                selector=OF,
                width=8,
                no_value=NOTHING_SETTLED,
            ),
            percentiles(
                "Storage latency",
                "Time to store a batch in MongoDB.",
                "consumer_storage_latency_seconds",
                selector=OF,
                width=8,
                no_value=NOTHING_SETTLED,
            ),
            graph(
                "Batch size",
                "Average number of messages per batch; it grows with the lag.",
                {"average": average("consumer_batch_size_messages", OF)},
                width=8,
                no_value=NOTHING_SETTLED,
            ),
        ],
    )


def _group() -> Row:
    return Row(
        "Consumer group",
        [
            graph(
                "Assigned partitions",
                "Each partition has one owner; replicas in excess of the number of partitions are idle.",
                {"{{instance}}": f"consumer_assigned_partitions{OF}"},
                stacked=True,
                no_value=NO_CONSUMER,
            ),
            graph(
                "Rebalances",
                "Changes of the partition assignment, by event.",
                {"{{event}}": f"sum by (event) (increase(consumer_rebalances_total{OF}[$__rate_interval]))"},
                bars=True,
                colors={"assigned": GREEN, "revoked": ORANGE, "lost": RED},
                no_value=NO_CONSUMER,
            ),
        ],
    )


def _replicas() -> Row:
    return Row(
        "Replicas",
        [
            replicas_table(
                Column("State", by_replica(f"1 + consumer_healthy{OF}"), mappings=READY),
                Column("Partitions", by_replica(f"consumer_assigned_partitions{OF}")),
                Column("Lag", by_replica(f"sum by (job, instance) (consumer_lag_messages{OF})")),
                Column(
                    "Message rate", by_replica(rate(f"consumer_messages_total{OF}", by="job, instance")), unit="mps"
                ),
                height=7,
            ),
            *process_of("consumer", NO_CONSUMER),
        ],
    )
