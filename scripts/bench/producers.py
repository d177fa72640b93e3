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


def produce(kafka: str, topic: str, messages: int, folder: Path, padding: int = 0) -> CompletedProcess[str]:
    """Fill a topic as fast as possible. With `padding`, the messages are read from a file."""
    settings = settings_file(kafka, topic, folder, client=_LARGE_BATCHES)
    source = ("--input", str(input_file(folder, messages, padding))) if padding else ("--count", str(messages))
    return run_program(producer_command(settings, *source), ROOT / "producer", environment({}), FILL_TIMEOUT)


def input_file(folder: Path, messages: int, padding: int = 0) -> Path:
    """Messages without ids, as a user's may be: each gets one."""
    file = folder / f"{messages}-{padding}.jsonl"
    further = f', "text": "{"x" * padding}"' if padding else ""
    if not file.exists():
        with file.open("w", encoding="utf-8") as lines:
            lines.writelines(
                f'{{"name": "item_{number:08d}", "created_at": "2026-01-31T12:00:00.000Z",'
                f' "metadata": {{"source": "system-a", "version": "1.0.0"}}{further}}}\n'
                for number in range(messages)
            )
    return file
