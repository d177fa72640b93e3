"""`python -m src.dead_letters`: list, show and replay the messages in the dead-letter topic."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import TextIO

from src.dead_letters.commands import Commands, Streams
from src.dead_letters.options import parse_arguments
from src.dead_letters.reader import DeadLetterReader
from src.kafka.topic_reader import TopicReader
from src.model.errors import ConsumerError
from src.settings import VERSION, load_settings
from src.utils.config import ConfigurationError
from src.utils.logging import configure

logger = logging.getLogger("dead_letters")


def main(arguments: Sequence[str] | None = None, streams: Streams | None = None) -> int:
    """Returns the exit code: 0 success, 1 failure, 2 wrong configuration or arguments."""
    streams = streams or Streams(_escaping(sys.stdout), _escaping(sys.stderr))
    options = parse_arguments(arguments)
    try:
        code = _run(options, streams)
        streams.out.flush()
    except BrokenPipeError:
        _discard(streams.out)
        return 0
    except ConfigurationError as error:
        streams.print_error(f"dead_letters: {error}")
        return 2
    except ConsumerError as error:
        streams.print_error(f"dead_letters: {error}")
        return 1
    except KeyboardInterrupt:
        streams.print_error("dead_letters: interrupted")
        return 1
    except Exception:
        logger.exception("stopped by an error")
        return 1
    return code


def _run(options: argparse.Namespace, streams: Streams) -> int:
    settings = load_settings(options.config, os.environ)
    configure(
        service="dead_letters", version=VERSION, level="WARNING", style=settings.logging.format, stream=streams.err
    )
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL)  # the error text of the program has its last error
    with TopicReader(settings.kafka) as reader:
        return Commands(settings.kafka, DeadLetterReader(settings.kafka, reader), streams).run(options)


def _escaping(stream: TextIO) -> TextIO:
    """A character that the terminal's encoding lacks is escaped instead of raising an error."""
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream


def _discard(stream: TextIO) -> None:
    """The reader has closed the pipe: what Python flushes at exit would raise again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
