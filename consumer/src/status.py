"""`python -m src.status`: whether the running consumer is live and ready, and its most important metrics."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from src.settings import DEFAULT_FILE, VERSION, load_metrics_settings
from src.utils import status
from src.utils.status import Address, Figure

FIGURES = (
    Figure("stored", "messages stored", "consumer_messages_total", 'result="stored"'),
    Figure("duplicates", "duplicates, already stored", "consumer_messages_total", 'result="duplicate"'),
    Figure("skipped", "messages skipped", "consumer_messages_total", 'result="skipped"'),
    Figure("dead_lettered", "messages dead-lettered", "consumer_messages_total", 'result="dead_lettered"'),
    Figure("lag", "messages of lag", "consumer_lag_messages"),
    Figure("assigned_partitions", "partitions assigned", "consumer_assigned_partitions"),
    Figure("retries", "retries", "consumer_retries_total"),
    Figure("skipped_offsets", "offsets skipped", "consumer_skipped_offsets_total"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Exit codes: 0 ready, 1 not ready, 2 not reached."""
    return status.main("consumer", FIGURES, _address, DEFAULT_FILE, VERSION, arguments)


def _address(path: Path) -> Address:
    metrics = load_metrics_settings(path, os.environ)
    return Address(metrics.host, metrics.port)


if __name__ == "__main__":
    sys.exit(main())
