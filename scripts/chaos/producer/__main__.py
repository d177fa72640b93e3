"""`python -m chaos.producer`: the producer as it is, but that what Kafka does not confirm at once is forgotten."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from src.jsonl_input import UserLines
from src.kafka.produce_request import Failure
from src.producer import DataProducer
from src.settings import VERSION, Settings, load_settings
from src.undelivered.segments import Undelivered
from src.utils.logging import configure

logger = logging.getLogger("producer")

SHORT = 1000  # ms


class Forgetful(Undelivered):
    def keep(self, failures: Sequence[Failure]) -> None:
        """Nothing is kept."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    settings = _impatient(load_settings(options.config, os.environ))
    configure(service="producer", version=VERSION, level=settings.logging.level, style=settings.logging.format)
    forgetful = Forgetful(Path(settings.producer.undelivered_dir), settings.kafka.topic)
    producer = DataProducer(settings=settings, undelivered=forgetful)
    with open(options.input, "rb") as stream:
        lines = UserLines(stream)
        complete = producer.send_all(lines, settings.producer.batch_interval, settings.producer.batch_size)
    logger.info("input sent" if complete else "input not sent completely", extra={"read": lines.read})
    return int(not complete)


def _impatient(settings: Settings) -> Settings:
    return replace(settings, producer=replace(settings.producer, max_retries=0, delivery_timeout_ms=SHORT))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos.producer")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--input", required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
