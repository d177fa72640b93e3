"""`python -m src.status` of the consumer."""

import json
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from src import status
from src.settings import VERSION
from src.utils.health_server import HealthServer
from src.utils.metrics import ConsumerMetrics


def test_each_figure_has_a_metric_and_the_address_is_that_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = CollectorRegistry()
    metrics = ConsumerMetrics(registry, version=VERSION, dead_letter_reasons=())
    metrics.stored.inc(1)
    metrics.duplicates.inc(2)
    metrics.dead_lettered.inc(3)
    metrics.lag.labels("t", "0").set(4)
    metrics.lag.labels("t", "1").set(5)
    metrics.assigned_partitions.set(6)
    metrics.retries.labels("throttled").inc(7)
    metrics.skipped_offsets.inc(8)
    metrics.skipped.inc(10)
    (tmp_path / "config.json").write_text('{"metrics": {"host": "::", "port": 1}}')
    monkeypatch.setenv("MONGODB_URI_FILE", "/nonexistent")

    with HealthServer(
        "127.0.0.1", 0, registry=registry, liveness_failures=lambda: (), readiness_failures=lambda: ()
    ) as server:
        monkeypatch.setenv("METRICS_PORT", str(server.port))
        code = status.main(["--config", str(tmp_path / "config.json"), "--json"])

    assert code == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == {
        "stored": 1,
        "duplicates": 2,
        "skipped": 10,
        "dead_lettered": 3,
        "lag": 9,
        "assigned_partitions": 6,
        "retries": 7,
        "skipped_offsets": 8,
    }
