"""`python -m src.status`: whether the running producer is live and ready, and its most important metrics."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from src.settings import DEFAULT_FILE, VERSION, load_metrics_settings
from src.utils import status
from src.utils.status import Address, Figure

FIGURES = (
    Figure("delivered", "messages delivered to Kafka", "producer_messages_total", 'result="delivered"'),
    Figure("failed", "messages failed after all retries", "producer_messages_total", 'result="failed"'),
    Figure("in_flight", "messages in flight", "producer_queue_messages"),
    Figure("undelivered", "messages in the undelivered folder", "producer_undelivered_messages"),
    Figure("retries", "messages resent", "producer_retries_total"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Exit codes: 0 ready, 1 not ready, 2 not reached."""
    return status.main("producer", FIGURES, _address, DEFAULT_FILE, VERSION, arguments)


def _address(path: Path) -> Address:
    metrics = load_metrics_settings(path, os.environ)
    return Address(metrics.host, metrics.port)


if __name__ == "__main__":
    sys.exit(main())
