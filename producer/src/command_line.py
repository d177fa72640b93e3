"""The options of `python -m src.producer`."""

import argparse
from pathlib import Path

from src.settings import DEFAULT_FILE


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m src.producer",
        description="Generate messages at a configured rate and send them to Kafka, until SIGTERM or Ctrl-C. A message"
        " that Kafka does not acknowledge is written to the undelivered folder: see python -m src.undelivered --help.",
        epilog="Environment variables take precedence over the settings file; docs/configuration.md lists the settings."
        " Exit codes: 0 stopped by a signal, or all messages delivered; 1 failed, or not all delivered; 2 wrong"
        " configuration.",
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE, metavar="PATH", help="settings file (%(default)s)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--check",
        action="store_true",
        help="check the settings, Kafka and the undelivered folder, print the results, and exit with 0, or with 2 if a"
        " check fails; sends nothing",
    )
    mode.add_argument(
        "--count",
        type=_positive_integer,
        metavar="N",
        help="send N messages, then exit: with 0 if all of them were delivered",
    )
    mode.add_argument(
        "--input",
        metavar="FILE",
        help="send the messages in FILE, or in standard input for -: one JSON object per line. Its id is the key;"
        " an object without an id gets a UUID. Rate and retries are the same; the metrics port is a free one. Exits"
        " with 0 only if every line was delivered",
    )
    return parser


def _positive_integer(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)
