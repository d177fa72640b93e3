"""`python -m chaos.consumer`: the consumer with a crash point, a wrong clock, or without a protection."""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread

from chaos.consumer import unprotected
from chaos.consumer.crash_points import (
    DEAD_LETTERED,
    FREEZING,
    STALLING,
    STORED,
    STORING,
    Countdown,
    CrashingDeadLetters,
    CrashingStorage,
    StallingConsumer,
)
from src.consumer import DataConsumer
from src.settings import VERSION, Settings, load_settings
from src.utils.logging import configure

logger = logging.getLogger("consumer")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    settings = load_settings(options.config, os.environ)
    configure(service="consumer", version=VERSION, level=settings.logging.level, style=settings.logging.format)
    with build(settings, options) as consumer:
        consumer.run()
    return 0


def build(settings: Settings, options: argparse.Namespace) -> DataConsumer:
    without = options.without
    storage = unprotected.storage(settings, without)
    dead_letters = unprotected.dead_letters(settings, without)
    point, _, call = options.kill_at.partition(":")
    countdown = Countdown(int(call or 0))
    if not options.clock_back:
        countdown.start()
    StallingConsumer.stalls = countdown
    kind = StallingConsumer if point == STALLING else DataConsumer
    return kind(
        settings,
        group_member=unprotected.group_member(without),
        storage=CrashingStorage(storage, point, countdown) if point in (STORING, STORED, FREEZING) else storage,
        dead_letters=CrashingDeadLetters(dead_letters, countdown) if point == DEAD_LETTERED else dead_letters,
        processor=unprotected.processor(without)(settings.document),
        writer=unprotected.writer(without),
        wall_clock=_adjustable_clock(options.clock_back, countdown),
    )


def _adjustable_clock(seconds: float, countdown: Countdown) -> Callable[[], float]:
    """A wall clock that SIGUSR1 sets back by this much, which also starts the countdown.

    A thread waits for the signal: a handler could interrupt the logging of another message, and its own would be lost.
    """
    offset = 0.0

    def set_back_on_signal() -> None:
        nonlocal offset
        signal.sigwait([signal.SIGUSR1])
        offset = seconds
        logger.warning("clock set back", extra={"seconds": seconds})
        countdown.start()

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    Thread(target=set_back_on_signal, daemon=True).start()
    return lambda: time.time() - offset


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos.consumer")
    parser.add_argument("--config", type=Path, required=True)
    points = ", ".join((STORING, STORED, DEAD_LETTERED, FREEZING, STALLING))
    parser.add_argument("--kill-at", default="", metavar="POINT:N", help=f"one of {points}")
    parser.add_argument("--without", action="append", default=[], metavar="PROTECTION")
    parser.add_argument("--clock-back", type=float, default=0.0, metavar="SECONDS")
    return parser


if __name__ == "__main__":
    sys.exit(main())
