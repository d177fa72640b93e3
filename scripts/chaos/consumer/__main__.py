"""`python -m chaos.consumer`: the consumer as it is, but that it dies at a point, or lacks a protection."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from chaos.consumer import saboteurs
from chaos.consumer.deaths import PARKED, STORED, STORING, Countdown, DyingDeadLetters, DyingStorage
from src.consumer import DataConsumer
from src.settings import VERSION, Settings, load_settings
from src.utils.logging import configure


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    settings = load_settings(options.config, os.environ)
    configure(service="consumer", version=VERSION, level=settings.logging.level, style=settings.logging.format)
    with composed(settings, options) as consumer:
        consumer.run()
    return 0


def composed(settings: Settings, options: argparse.Namespace) -> DataConsumer:
    without = options.without
    storage = saboteurs.storage(settings, without)
    dead_letters = saboteurs.dead_letters(settings, without)
    point, _, call = options.die.partition(":")
    due = Countdown(int(call or 0))
    return DataConsumer(
        settings,
        source=saboteurs.source(settings, without),
        storage=DyingStorage(storage, point, due) if point in (STORING, STORED) else storage,
        dead_letters=DyingDeadLetters(dead_letters, due) if point == PARKED else dead_letters,
        processor=saboteurs.processor(without)(_clock_back(options.clock_back)),
    )


def _clock_back(seconds: float) -> Callable[[], datetime]:
    """A wall clock that is set back by so much once it has been read a few hundred times."""
    readings = 0

    def now() -> datetime:
        nonlocal readings
        readings += 1
        return datetime.now(UTC) - timedelta(seconds=seconds if readings > 300 else 0)

    return now


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos.consumer")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--die", default="", metavar="POINT:N", help=f"{STORING}, {STORED} or {PARKED}")
    parser.add_argument("--without", action="append", default=[], metavar="PROTECTION")
    parser.add_argument("--clock-back", type=float, default=0.0, metavar="SECONDS")
    return parser


if __name__ == "__main__":
    sys.exit(main())
