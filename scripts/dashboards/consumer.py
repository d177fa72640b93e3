"""The consumer: what comes in, where it ends, and who has which partition."""

from dashboards.grafana import GREEN, ORANGE, READY, RED, Column, Dashboard, Query, Row, graph, stat, states, table
from dashboards.shared import (
    DEAD_LETTERED_PERCENT,
    NO_CONSUMER,
    NO_MESSAGES,
    NOTHING_SETTLED,
    PAUSES,
    REBALANCES,
    RESULTS,
    STARTS,
    Limits,
    average,
    by_replica,
    dead_letter_share,
    highest_lag,
    lag_by_group,
    percentiles,
    process_of,
    ready,
    replicas_of,
)

OF = '{instance=~"$instance"}'


def dashboard(limits: Limits) -> Dashboard:
    return Dashboard(
        "consumer",
        "Consumer",
        "Is every message settled, how soon, and who has which partition?",
        [_now(limits), _rate(limits), _waiting(limits), _duration(), _group(), _replicas()],
        choices=[replicas_of("consumer")],
        annotations=[STARTS, REBALANCES],
    )


def _now(limits: Limits) -> Row:
    return Row(
        "Now",
        [
            ready("consumer", "Consumer"),
            stat(
                "Stored",
                "Messages stored in MongoDB, a second.",
                'sum(rate(consumer_messages_total{result="stored",instance=~"$instance"}[$__rate_interval]))',
                "mps",
                missing="none",
                decimals=1,
            ),
            highest_lag(limits),
            dead_letter_share(limits),
            stat(
                "Dead letters, 1 h",
                "Messages parked in the last hour, by any consumer.",
                'sum(increase(consumer_messages_total{result="dead_lettered"}[1h]))',
                limit=1,
                limit_colour=ORANGE,
                missing="unknown",
                decimals=0,
            ),
            stat(
                "Offsets skipped",
                "Messages that were gone from Kafka before they could be read, and were passed over; since the start.",
                "sum(consumer_skipped_offsets_total)",
                limit=1,
                missing="unknown",
                decimals=0,
            ),
        ],
    )


def _rate(limits: Limits) -> Row:
    return Row(
        "Rate and errors",
        [
            graph(
                "Messages a second",
                "Settled messages. A duplicate was there already: it came twice and is stored once.",
                [
                    Query(
                        'sum by (result) (rate(consumer_messages_total{instance=~"$instance"}[$__rate_interval]))',
                        "{{result}}",
                    )
                ],
                "mps",
                colours=RESULTS,
                missing=NO_CONSUMER,
            ),
            graph(
                "Dead-lettered",
                "Share of messages parked. The line is where DeadLetterShareHigh fires.",
                [Query(DEAD_LETTERED_PERCENT, "dead-lettered")],
                "percent",
                limit=limits["DeadLetterShareHigh"],
                soft_highest=10,
                colours={"dead-lettered": RED},
                missing=NO_MESSAGES,
            ),
            graph(
                "Dead letters by reason",
                "How many a minute, the ten most frequent reasons.",
                [
                    Query(
                        f"topk(10, sum by (reason) (60 * rate(consumer_dead_letters_total{OF}[$__rate_interval])) > 0) "
                        'or label_replace(vector(0), "reason", "none", "", "")',
                        "{{reason}}",
                    )
                ],
                "cpm",
                bars=True,
                stacked=True,
                colours={"none": GREEN},
                shades_of=RED,
            ),
            graph(
                "Offset commits and retries",
                "Commits a second, by Kafka's answer; tries again of what did not work at first.",
                [
                    Query(
                        f"sum by (result) (rate(consumer_offset_commits_total{OF}[$__rate_interval]))",
                        "commit: {{result}}",
                    ),
                    Query(f"sum(rate(consumer_retries_total{OF}[$__rate_interval])) or vector(0)", "retries"),
                ],
                "cps",
                colours={"commit: success": GREEN, "commit: failure": RED, "retries": ORANGE},
            ),
        ],
    )


def _waiting(limits: Limits) -> Row:
    return Row(
        "Waiting",
        [
            lag_by_group(limits),
            states(
                "Paused, and why",
                "storage: MongoDB does not answer. dead_letters: the dead-letter topic does not. "
                "dead_letter_storm: too many messages are broken. offset_gap: a partition waits for a decision. "
                "backpressure: the store is slower than Kafka, which is no fault.",
                [
                    Query(
                        'max by (reason) (consumer_paused{reason!="backpressure",instance=~"$instance"})', "{{reason}}"
                    ),
                    Query(
                        '2 * max by (reason) (consumer_paused{reason="backpressure",instance=~"$instance"})',
                        "{{reason}}",
                    ),
                ],
                PAUSES,
                height=8,
                missing=NO_CONSUMER,
            ),
            graph(
                "Since the last batch was settled",
                "Grows while a consumer is idle, too: it is a fault only while there is lag.",
                [Query(f"time() - (consumer_last_progress_timestamp_seconds{OF} > 0)", "{{instance}}")],
                "s",
                height=7,
                missing=NOTHING_SETTLED,
            ),
            graph(
                "Lag by partition",
                "The ten furthest behind, as their owner sees them; while it is paused it looks every 10 s.",
                [Query(f"topk(10, max by (topic, partition) (consumer_lag_messages{OF}))", "{{topic}}/{{partition}}")],
                height=7,
                missing=NO_CONSUMER,
            ),
        ],
    )


def _duration() -> Row:
    return Row(
        "Duration and size",
        [
            percentiles(
                "From Kafka to stored",
                "From a message's Kafka timestamp to its document; a backlog shows here.",
                "consumer_end_to_end_latency_seconds",
                selector=OF,
                width=8,
                missing=NOTHING_SETTLED,
            ),
            percentiles(
                "Time to store a batch",
                "What MongoDB takes.",
                "consumer_storage_latency_seconds",
                selector=OF,
                width=8,
                missing=NOTHING_SETTLED,
            ),
            graph(
                "Messages in a batch",
                "On average; it grows with the lag.",
                [
                    Query(
                        average("consumer_batch_size_messages", OF),
                        "average",
                    )
                ],
                width=8,
                missing=NOTHING_SETTLED,
            ),
        ],
    )


def _group() -> Row:
    return Row(
        "Group",
        [
            graph(
                "Partitions by replica",
                "Each partition has one owner; a replica beyond the number of partitions has none.",
                [Query(f"consumer_assigned_partitions{OF}", "{{instance}}")],
                stacked=True,
                missing=NO_CONSUMER,
            ),
            graph(
                "Rebalances",
                "Changes of the assignment within a minute.",
                [Query(f"sum by (event) (increase(consumer_rebalances_total{OF}[$__rate_interval]))", "{{event}}")],
                bars=True,
                colours={"assigned": GREEN, "revoked": ORANGE, "lost": RED},
                missing=NO_CONSUMER,
            ),
        ],
    )


def _replicas() -> Row:
    return Row(
        "Replicas",
        [
            table(
                "Replicas",
                "Host is the container's id, as docker ps shows it.",
                [
                    Column("Service", label="job", width=140),
                    Column("Replica", label="instance"),
                    Column("Host", label="hostname"),
                    Column("Version", label="version"),
                    Column("State", by_replica(f"1 + consumer_healthy{OF}"), texts=READY),
                    Column("Partitions", by_replica(f"consumer_assigned_partitions{OF}")),
                    Column("Lag", by_replica(f"sum by (job, instance) (consumer_lag_messages{OF})"), unit="short"),
                    Column(
                        "Messages a second",
                        by_replica(f"sum by (job, instance) (rate(consumer_messages_total{OF}[$__rate_interval]))"),
                        unit="mps",
                    ),
                ],
                height=7,
            ),
            *process_of("consumer", NO_CONSUMER),
        ],
    )
