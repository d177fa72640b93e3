"""Producer: delivery rate, errors and latency."""

from dashboards.grafana import ORANGE, READY, RED, Column, Dashboard, Row, graph, stat
from dashboards.shared import (
    FAILED_PERCENT,
    NO_MESSAGES,
    NO_PRODUCER,
    OF,
    RESULTS,
    STARTS,
    Thresholds,
    average,
    by_replica,
    failed_share,
    message_rate,
    percentiles,
    process_of,
    rate,
    ready,
    replicas_of,
    replicas_table,
    undelivered,
)

DELIVERED = 'producer_messages_total{result="delivered",instance=~"$instance"}'


def dashboard(thresholds: Thresholds) -> Dashboard:
    return Dashboard(
        "producer",
        "Producer",
        "Delivery rate, errors and latency of the producer.",
        [_status(thresholds), _rate(thresholds), _latency(), _replicas()],
        variables=[replicas_of("producer")],
        annotations=[STARTS],
    )


def _status(thresholds: Thresholds) -> Row:
    return Row(
        "Status",
        [
            ready("producer", "Producer", no_value="NONE"),
            message_rate("Delivered", "Messages confirmed by Kafka per second.", DELIVERED),
            stat(
                "Delivered per hour",
                "The rate of the last 5 minutes, extrapolated to one hour. The default rate is 100,000.",
                f"3600 * sum(rate({DELIVERED}[5m]))",
                no_value="none",
                decimals=1,
            ),
            failed_share(thresholds),
            undelivered(),
            stat(
                "In flight",
                "Messages handed to the Kafka client that have no delivery report yet.",
                f"sum(producer_queue_messages{OF})",
                no_value="none",
            ),
        ],
    )


def _rate(thresholds: Thresholds) -> Row:
    return Row(
        "Rate and errors",
        [
            graph(
                "Message rate",
                "Messages per second: delivered, or failed after all retries and kept in the undelivered folder.",
                {"{{result}}": rate(f"producer_messages_total{OF}", by="result")},
                "mps",
                colors=RESULTS,
                no_value=NO_PRODUCER,
            ),
            graph(
                "Failed deliveries",
                "Share of messages that failed after all retries. Dashed line: alert threshold (DeliveriesFailing).",
                {"failed deliveries": FAILED_PERCENT},
                "percent",
                threshold=thresholds["DeliveriesFailing"],
                soft_maximum=10,
                colors={"failed deliveries": RED},
                no_value=NO_MESSAGES,
            ),
            graph(
                "Retries",
                "Messages resent per second; rises while the broker is unavailable.",
                {"retries": rate(f"producer_retries_total{OF}")},
                "mps",
                colors={"retries": ORANGE},
                no_value=NO_PRODUCER,
            ),
            graph(
                "In flight and undelivered messages",
                "In flight: no delivery report yet. Undelivered: in the undelivered folder, waiting to be resent.",
                {
                    "in flight": f"sum(producer_queue_messages{OF})",
                    "undelivered": "max(producer_undelivered_messages)",
                },
                colors={"undelivered": RED},
                no_value=NO_PRODUCER,
            ),
        ],
    )


def _latency() -> Row:
    return Row(
        "Latency and batch size",
        [
            percentiles(
                "Batch delivery time",
                "From handing a batch to the Kafka client until its last delivery report, retries included.",
                "producer_send_latency_seconds",
                selector=OF,
                no_value=NO_MESSAGES,
            ),
            graph(
                "Batch size",
                "Average number of messages per batch.",
                {"average": average("producer_batch_size_messages", OF)},
                no_value=NO_MESSAGES,
            ),
        ],
    )


def _replicas() -> Row:
    return Row(
        "Replicas",
        [
            replicas_table(Column("State", by_replica(f"1 + producer_healthy{OF}"), mappings=READY), height=5),
            *process_of("producer", NO_PRODUCER),
        ],
    )
