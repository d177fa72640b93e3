"""Runs our producer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from bench.running import environment
from local.children import run_program, write_settings
from local.plan import ROOT, command

FILL_TIMEOUT = 900.0  # seconds
_LARGE_BATCHES = {"linger.ms": 100, "batch.size": 1_000_000}  # so that a topic is read fast


def settings_file(
    kafka: str, topic: str, folder: Path, *, client: Mapping[str, Any] | None = None, **producer: Any
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "kafka": {"bootstrap_servers": kafka, "topic": topic, "client": dict(client or {})},
        "producer": {"interval_ms": 0, "batch_size": 500, "undelivered_dir": str(folder / "undelivered"), **producer},
        "metrics": {"port": 0},
    }
    return write_settings(folder / "producer.json", settings)


def producer_command(settings: Path, *more: str) -> Sequence[str]:
    return command("src.producer", settings, *more)


def produce(kafka: str, topic: str, messages: int, folder: Path) -> CompletedProcess[str]:
    """Fill a topic as fast as possible."""
    settings = settings_file(kafka, topic, folder, client=_LARGE_BATCHES)
    arguments = producer_command(settings, "--count", str(messages))
    return run_program(arguments, ROOT / "producer", environment({}), FILL_TIMEOUT)
