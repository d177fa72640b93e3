"""Application Monitoring: producer and consumer side by side, by rate, errors and duration (RED)."""

from dashboards.grafana import BLUE, GREEN, READY, RED, Column, Dashboard, Row, graph, stat
from dashboards.shared import (
    DEAD_LETTERED_PERCENT,
    FAILED_PERCENT,
    NO_MESSAGES,
    NOTHING_SETTLED,
    REBALANCES,
    STARTS,
    Thresholds,
    average,
    by_replica,
    dead_letter_share,
    failed_share,
    percentiles,
    rate,
    ready,
    replicas_table,
    undelivered,
)

PER_REPLICA = " or ".join(rate(f"{service}_messages_total", by="job, instance") for service in ("producer", "consumer"))


def dashboard(thresholds: Thresholds) -> Dashboard:
    return Dashboard(
        "application",
        "Application Monitoring",
        "Producer and consumer side by side: status, rate, errors and latency.",
        [_status(thresholds), _rates(), _errors(thresholds), _latency(), _replicas()],
        annotations=[STARTS, REBALANCES],
    )


def _status(thresholds: Thresholds) -> Row:
    return Row(
        "Status",
        [
            ready("producer", "Producer", no_value="NONE"),
            ready("consumer", "Consumer"),
            stat(
                "Replicas up",
                "Producer and consumer replicas that Prometheus can scrape.",
                'sum(up{job=~"producer|consumer"})',
                no_value="none",
            ),
            failed_share(thresholds),
            dead_letter_share(thresholds),
            undelivered(),
        ],
    )


def _rates() -> Row:
    return Row(
        "Rate",
        [
            graph(
                "Produced and settled messages",
                "Messages per second. Settled: stored, recognized as a duplicate, skipped, or dead-lettered.",
                {
                    "produced": rate('producer_messages_total{result="delivered"}'),
                    "settled": rate("consumer_messages_total"),
                },
                "mps",
                colors={"produced": BLUE, "settled": GREEN},
                no_value=NO_MESSAGES,
            ),
            graph(
                "Batch size",
                "Average number of messages per batch.",
                {service: average(f"{service}_batch_size_messages") for service in ("producer", "consumer")},
                colors={"producer": BLUE, "consumer": GREEN},
                no_value=NO_MESSAGES,
            ),
        ],
    )


def _errors(thresholds: Thresholds) -> Row:
    return Row(
        "Errors",
        [
            graph(
                "Error rates",
                "Share of failed deliveries and of dead-lettered messages. Dashed line: alert threshold.",
                {"failed deliveries": FAILED_PERCENT, "dead-lettered": DEAD_LETTERED_PERCENT},
                "percent",
                threshold=min(thresholds["DeliveriesFailing"], thresholds["DeadLetterShareHigh"]),
                soft_maximum=10,
                colors={"failed deliveries": BLUE, "dead-lettered": RED},
                no_value=NO_MESSAGES,
            ),
            graph(
                "Retries",
                "Retries per second. Producer: messages resent. Consumer: failed operations retried.",
                {
                    "producer": rate("producer_retries_total"),
                    "consumer": f"{rate('consumer_retries_total')} or vector(0)",
                },
                "ops",
                colors={"producer": BLUE, "consumer": GREEN},
            ),
        ],
    )


def _latency() -> Row:
    return Row(
        "Latency",
        [
            percentiles(
                "Producer: batch delivery time",
                "From handing a batch to the Kafka client until its last delivery report, retries included.",
                "producer_send_latency_seconds",
                no_value=NO_MESSAGES,
            ),
            percentiles(
                "Consumer: end-to-end latency",
                "From a message's Kafka timestamp until it is stored.",
                "consumer_end_to_end_latency_seconds",
                no_value=NOTHING_SETTLED,
            ),
        ],
    )


def _replicas() -> Row:
    return Row(
        "Replicas",
        [
            replicas_table(
                Column("State", by_replica("(1 + (producer_healthy or consumer_healthy))"), mappings=READY),
                Column("Message rate", by_replica(PER_REPLICA), unit="mps"),
                height=8,
            )
        ],
    )
