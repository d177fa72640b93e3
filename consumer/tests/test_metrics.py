"""Metrics of the process, and buckets."""

from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from src.utils.metrics import END_TO_END_SECONDS, STORAGE_SECONDS, ConsumerMetrics


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="a process is measured by /proc, on Linux")
@pytest.mark.parametrize(
    "name", ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"]
)
def test_process_metrics_are_exposed(name: str) -> None:
    registry = CollectorRegistry()

    ConsumerMetrics(registry, version="1", dead_letter_reasons=())

    assert (registry.get_sample_value(name) or 0) > 0


@pytest.mark.parametrize("bounds", [STORAGE_SECONDS, END_TO_END_SECONDS])
def test_no_quantile_is_shown_as_more_than_1_7_times_what_it_is(bounds: tuple[float, ...]) -> None:
    assert all(lower < upper <= 1.7 * lower for lower, upper in pairwise(bounds))
