"""The producer: its rate, its errors, its duration."""

from dashboards.grafana import ORANGE, READY, RED, Column, Dashboard, Query, Row, graph, stat, table
from dashboards.shared import (
    FAILED_PERCENT,
    NO_MESSAGES,
    NO_PRODUCER,
    RESULTS,
    STARTS,
    Limits,
    average,
    by_replica,
    failed_share,
    percentiles,
    process_of,
    ready,
    replicas_of,
    undelivered,
)

OF = '{instance=~"$instance"}'


def dashboard(limits: Limits) -> Dashboard:
    return Dashboard(
        "producer",
        "Producer",
        "Does the producer deliver, how fast, and what is left?",
        [_now(limits), _rate(limits), _duration(), _replicas()],
        choices=[replicas_of("producer")],
        annotations=[STARTS],
    )


def _now(limits: Limits) -> Row:
    return Row(
        "Now",
        [
            ready("producer", "Producer"),
            stat(
                "Delivered",
                "Messages that Kafka has confirmed, a second.",
                'sum(rate(producer_messages_total{result="delivered",instance=~"$instance"}[$__rate_interval]))',
                "mps",
                missing="none",
                decimals=1,
            ),
            stat(
                "An hour",
                "The same, as messages an hour; the default pace is 100,000.",
                '3600 * sum(rate(producer_messages_total{result="delivered",instance=~"$instance"}[5m]))',
                missing="none",
            ),
            failed_share(limits),
            undelivered(),
            stat(
                "On their way",
                "Handed to Kafka's client, delivery report not yet there.",
                f"sum(producer_queue_messages{OF})",
                missing="none",
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
                "Settled messages: delivered, or given up and kept in the undelivered folder.",
                [
                    Query(
                        'sum by (result) (rate(producer_messages_total{instance=~"$instance"}[$__rate_interval]))',
                        "{{result}}",
                    )
                ],
                "mps",
                colours=RESULTS,
                missing=NO_PRODUCER,
            ),
            graph(
                "Not delivered",
                "Share of messages given up. The line is where DeliveriesFailing fires.",
                [Query(FAILED_PERCENT, "not delivered")],
                "percent",
                limit=limits["DeliveriesFailing"],
                soft_highest=10,
                colours={"not delivered": RED},
                missing=NO_MESSAGES,
            ),
            graph(
                "Tried again",
                "Messages sent again, a second; they go up while the broker is away.",
                [Query(f"sum(rate(producer_retries_total{OF}[$__rate_interval]))", "retries")],
                "mps",
                colours={"retries": ORANGE},
                missing=NO_PRODUCER,
            ),
            graph(
                "On their way, and undelivered",
                "On their way: in Kafka's client. Undelivered: in the folder, waiting for resend.",
                [
                    Query(f"sum(producer_queue_messages{OF})", "on their way"),
                    Query("max(producer_undelivered_messages)", "undelivered"),
                ],
                colours={"undelivered": RED},
                missing=NO_PRODUCER,
            ),
        ],
    )


def _duration() -> Row:
    return Row(
        "Duration and size",
        [
            percentiles(
                "Time to deliver a batch",
                "From handing a batch to the client to the last of its delivery reports, retries included.",
                "producer_send_latency_seconds",
                selector=OF,
                missing=NO_MESSAGES,
            ),
            graph(
                "Messages in a batch",
                "On average.",
                [
                    Query(
                        average("producer_batch_size_messages", OF),
                        "average",
                    )
                ],
                missing=NO_MESSAGES,
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
                    Column(
                        "State",
                        by_replica(f"1 + producer_healthy{OF}"),
                        texts=READY,
                    ),
                ],
                width=24,
                height=5,
            ),
            *process_of("producer", NO_PRODUCER),
        ],
    )
