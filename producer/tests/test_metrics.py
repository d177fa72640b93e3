"""Metrics of the process, and buckets."""

from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from src.utils.metrics import SEND_SECONDS, ProducerMetrics


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="a process is measured by /proc, on Linux")
@pytest.mark.parametrize(
    "name", ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"]
)
def test_process_metrics_are_exposed(name: str) -> None:
    registry = CollectorRegistry()

    ProducerMetrics(registry, version="1")

    assert (registry.get_sample_value(name) or 0) > 0


def test_no_quantile_is_shown_as_more_than_1_7_times_what_it_is() -> None:
    assert all(lower < upper <= 1.7 * lower for lower, upper in pairwise(SEND_SECONDS))
