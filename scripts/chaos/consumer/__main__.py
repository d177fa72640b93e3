"""`python -m chaos.consumer`: the consumer as it is, but that it dies at a point, or lacks a protection."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from chaos.consumer import saboteurs
from chaos.consumer.deaths import PARKED, STORED, STORING, Countdown, DyingDeadLetters, DyingStorage
from src.consumer import DataConsumer
from src.settings import VERSION, Settings, load_settings
from src.utils.logging import configure

logger = logging.getLogger("consumer")


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
    if not options.clock_back:
        due.begin()
    return DataConsumer(
        settings,
        source=saboteurs.source(settings, without),
        storage=DyingStorage(storage, point, due) if point in (STORING, STORED) else storage,
        dead_letters=DyingDeadLetters(dead_letters, due) if point == PARKED else dead_letters,
        processor=saboteurs.processor(without)(_clock_back(options.clock_back, due)),
    )


def _clock_back(seconds: float, due: Countdown) -> Callable[[], datetime]:
    """A wall clock that SIGUSR1 sets back by so much; then the countdown begins."""
    back = timedelta()

    def set_back(*_: object) -> None:
        nonlocal back
        back = timedelta(seconds=seconds)
        logger.warning("clock set back", extra={"seconds": seconds})
        due.begin()

    signal.signal(signal.SIGUSR1, set_back)
    return lambda: datetime.now(UTC) - back


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos.consumer")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--die", default="", metavar="POINT:N", help=f"{STORING}, {STORED} or {PARKED}")
    parser.add_argument("--without", action="append", default=[], metavar="PROTECTION")
    parser.add_argument("--clock-back", type=float, default=0.0, metavar="SECONDS")
    return parser


if __name__ == "__main__":
    sys.exit(main())
