"""`python -m chaos.producer`: the producer without a protection. Not part of the service."""

import argparse
import logging
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from src.jsonl_input import JsonlInput
from src.kafka.publisher import KafkaPublisher
from src.model.delivery_failure import DeliveryFailure
from src.producer import DataProducer
from src.settings import VERSION, KafkaSettings, Settings, load_settings
from src.undelivered.folder import UndeliveredFolder
from src.utils.logging import configure

logger = logging.getLogger("producer")

DELIVERY_TIMEOUT_MS = 1000
CLIENT_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "acks-all": {"acks": 1, "enable.idempotence": False},
    "socket-timeout": {"socket.timeout.ms": 300_000},
}
"""Protections that are a setting of librdkafka, with the values that disable them."""


class Dropping(UndeliveredFolder):
    def append(self, failures: Sequence[DeliveryFailure]) -> None:
        """Nothing is written."""


class Unprotected(KafkaPublisher):
    def __init__(self, settings: Settings, without: Collection[str]) -> None:
        self._without = without
        super().__init__(settings.kafka, delivery_timeout_ms=settings.producer.delivery_timeout_ms)

    def _client_settings(self, settings: KafkaSettings, delivery_timeout_ms: int) -> dict[str, Any]:
        found = super()._client_settings(settings, delivery_timeout_ms)
        for protection in self._without:
            found |= CLIENT_SETTINGS.get(protection, {})
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    settings = load_settings(options.config, os.environ)
    configure(service="producer", version=VERSION, level=settings.logging.level, style=settings.logging.format)
    producer = (
        _without_folder(settings)
        if "undelivered-folder" in options.without
        else DataProducer(settings=settings, publisher=Unprotected(settings, options.without))
    )
    with open(options.input, "rb") as stream:
        lines = JsonlInput(stream)
        complete = producer.send_from(lines, settings.producer.batch_interval, settings.producer.batch_size)
    logger.info("input delivered" if complete else "input not fully delivered", extra={"read": lines.read})
    return int(not complete)


def _without_folder(settings: Settings) -> DataProducer:
    """Drops what Kafka does not confirm at once."""
    impatient = replace(settings.producer, max_retries=0, delivery_timeout_ms=DELIVERY_TIMEOUT_MS)
    undelivered = Dropping(Path(settings.producer.undelivered_dir), settings.kafka.topic)
    return DataProducer(settings=replace(settings, producer=impatient), undelivered=undelivered)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos.producer")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--without", action="append", default=[], metavar="PROTECTION")
    return parser


if __name__ == "__main__":
    sys.exit(main())
