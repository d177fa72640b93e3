"""`python -m src.status` of the producer."""

import json
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from src import status
from src.settings import VERSION
from src.utils.health_server import HealthServer
from src.utils.metrics import ProducerMetrics


def test_each_figure_has_a_metric_and_the_address_is_that_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = CollectorRegistry()
    metrics = ProducerMetrics(registry, version=VERSION)
    metrics.watch(queue=lambda: 1, undelivered=lambda: 2, healthy=lambda: True)
    metrics.delivered.inc(3)
    metrics.failed.inc(4)
    metrics.retries.inc(5)
    (tmp_path / "config.json").write_text('{"metrics": {"host": "::", "port": 1}}')
    monkeypatch.setenv("KAFKA_SASL_PASSWORD_FILE", "/nonexistent")

    with HealthServer(
        "127.0.0.1", 0, registry=registry, liveness_failures=lambda: (), readiness_failures=lambda: ()
    ) as server:
        monkeypatch.setenv("METRICS_PORT", str(server.port))
        code = status.main(["--config", str(tmp_path / "config.json"), "--json"])

    assert code == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == {
        "delivered": 3,
        "failed": 4,
        "in_flight": 1,
        "undelivered": 2,
        "retries": 5,
    }
