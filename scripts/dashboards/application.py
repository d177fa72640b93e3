"""Producer and consumer side by side: rate, errors, duration."""

from dashboards.grafana import BLUE, GREEN, READY, RED, Column, Dashboard, Query, Row, graph, stat, table
from dashboards.shared import (
    DEAD_LETTERED_PERCENT,
    FAILED_PERCENT,
    NO_MESSAGES,
    NOTHING_SETTLED,
    REBALANCES,
    STARTS,
    Limits,
    average,
    by_replica,
    dead_letter_share,
    failed_share,
    percentiles,
    ready,
    undelivered,
)

RATES = (
    "sum by (job, instance) (rate(producer_messages_total[$__rate_interval])) "
    "or sum by (job, instance) (rate(consumer_messages_total[$__rate_interval]))"
)


def dashboard(limits: Limits) -> Dashboard:
    return Dashboard(
        "application",
        "Application Monitoring",
        "Producer and consumer side by side: are they well, and do they lose pace with one another?",
        [_status(limits), _rates(), _errors(limits), _duration(), _programs()],
        annotations=[STARTS, REBALANCES],
    )


def _status(limits: Limits) -> Row:
    return Row(
        "Status",
        [
            ready("producer", "Producer"),
            ready("consumer", "Consumer"),
            stat(
                "Replicas",
                "Producers and consumers that answer.",
                'sum(up{job=~"producer|consumer"})',
                missing="none",
                decimals=0,
            ),
            failed_share(limits),
            dead_letter_share(limits),
            undelivered(),
        ],
    )


def _rates() -> Row:
    return Row(
        "Rate",
        [
            graph(
                "Produced and settled",
                "Messages a second. Settled: stored, a duplicate, or dead-lettered.",
                [
                    Query('sum(rate(producer_messages_total{result="delivered"}[$__rate_interval]))', "produced"),
                    Query("sum(rate(consumer_messages_total[$__rate_interval]))", "settled"),
                ],
                "mps",
                colours={"produced": BLUE, "settled": GREEN},
                missing=NO_MESSAGES,
            ),
            graph(
                "Batch sizes",
                "Messages in a batch, on average.",
                [
                    Query(
                        average(f"{service}_batch_size_messages"),
                        service,
                    )
                    for service in ("producer", "consumer")
                ],
                colours={"producer": BLUE, "consumer": GREEN},
                missing=NO_MESSAGES,
            ),
        ],
    )


def _errors(limits: Limits) -> Row:
    return Row(
        "Errors",
        [
            graph(
                "Error rates",
                "Share of messages not delivered, and of messages dead-lettered. The line is where the alerts fire.",
                [
                    Query(FAILED_PERCENT, "not delivered"),
                    Query(DEAD_LETTERED_PERCENT, "dead-lettered"),
                ],
                "percent",
                limit=min(limits["DeliveriesFailing"], limits["DeadLetterShareHigh"]),
                soft_highest=10,
                colours={"not delivered": BLUE, "dead-lettered": RED},
                missing=NO_MESSAGES,
            ),
            graph(
                "Retries",
                "A second: what did not work at first and is tried again.",
                [
                    Query("sum(rate(producer_retries_total[$__rate_interval]))", "producer"),
                    Query("sum(rate(consumer_retries_total[$__rate_interval])) or vector(0)", "consumer"),
                ],
                "cps",
                colours={"producer": BLUE, "consumer": GREEN},
            ),
        ],
    )


def _duration() -> Row:
    return Row(
        "Duration",
        [
            percentiles(
                "Producer: time to deliver a batch",
                "From handing a batch to the client to the last of its delivery reports.",
                "producer_send_latency_seconds",
                missing=NO_MESSAGES,
            ),
            percentiles(
                "Consumer: from Kafka to stored",
                "From a message's Kafka timestamp to its document.",
                "consumer_end_to_end_latency_seconds",
                missing=NOTHING_SETTLED,
            ),
        ],
    )


def _programs() -> Row:
    return Row(
        "Programs",
        [
            table(
                "Programs",
                "Host is the container's id, as docker ps shows it.",
                [
                    Column("Service", label="job", width=140),
                    Column("Replica", label="instance"),
                    Column("Host", label="hostname"),
                    Column("Version", label="version", width=100),
                    Column("State", by_replica("(1 + (producer_healthy or consumer_healthy))"), texts=READY),
                    Column("Messages a second", by_replica(RATES), unit="mps"),
                ],
                height=8,
            )
        ],
    )
