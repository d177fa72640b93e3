"""`python -m chaos.producer`: the producer without undelivered folder, which drops what Kafka does not confirm."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from src.jsonl_input import JsonlInput
from src.model.delivery_failure import DeliveryFailure
from src.producer import DataProducer
from src.settings import VERSION, Settings, load_settings
from src.undelivered.folder import UndeliveredFolder
from src.utils.logging import configure

logger = logging.getLogger("producer")

DELIVERY_TIMEOUT_MS = 1000


class Dropping(UndeliveredFolder):
    def append(self, failures: Sequence[DeliveryFailure]) -> None:
        """Nothing is written."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    settings = _without_retries(load_settings(options.config, os.environ))
    configure(service="producer", version=VERSION, level=settings.logging.level, style=settings.logging.format)
    undelivered = Dropping(Path(settings.producer.undelivered_dir), settings.kafka.topic)
    producer = DataProducer(settings=settings, undelivered=undelivered)
    with open(options.input, "rb") as stream:
        lines = JsonlInput(stream)
        complete = producer.send_from(lines, settings.producer.batch_interval, settings.producer.batch_size)
    logger.info("input delivered" if complete else "input not fully delivered", extra={"read": lines.read})
    return int(not complete)


def _without_retries(settings: Settings) -> Settings:
    return replace(
        settings, producer=replace(settings.producer, max_retries=0, delivery_timeout_ms=DELIVERY_TIMEOUT_MS)
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos.producer")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--input", required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
