"""Metrics of the process."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from src.utils.metrics import ConsumerMetrics

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="a process is measured by /proc, on Linux")


@pytest.mark.parametrize(
    "name", ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"]
)
def test_process_metrics_are_exposed(name: str) -> None:
    registry = CollectorRegistry()

    ConsumerMetrics(registry, version="1", dead_letter_reasons=())

    assert (registry.get_sample_value(name) or 0) > 0
