"""`python -m src.dead_letters`: list, show, replay and discard the messages in the dead-letter topic."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from src.dead_letters.commands import Commands, Streams
from src.dead_letters.options import parse_arguments
from src.dead_letters.reader import DeadLetterReader
from src.kafka.topic_reader import TopicReader
from src.model.errors import ConsumerError
from src.settings import VERSION, load_settings
from src.utils import command_line
from src.utils.config import ConfigurationError
from src.utils.logging import configure
from src.utils.progress import ProgressLine


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 success, 1 failure, 2 wrong configuration or arguments."""
    failures: dict[type[Exception], int] = {ConfigurationError: 2, ConsumerError: 1}
    return command_line.run("dead_letters", lambda: _run(parse_arguments(arguments)), failures)


def _run(options: argparse.Namespace) -> int:
    streams = Streams(sys.stdout, sys.stderr)
    settings = load_settings(options.config, os.environ)
    configure(
        service="dead_letters", version=VERSION, level="WARNING", style=settings.logging.format, stream=streams.err
    )
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL)  # the error text of the program has its last error
    with TopicReader(settings.kafka) as reader:
        progress = ProgressLine("dead_letters", quiet=options.quiet)
        dead_letters = DeadLetterReader(settings.kafka, reader, progress=progress)
        return Commands(settings.kafka, dead_letters, streams).run(options)


if __name__ == "__main__":
    sys.exit(main())
