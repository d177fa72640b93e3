"""The options of `python -m src.producer`."""

import argparse
from collections.abc import Sequence

from src.settings import DEFAULT_FILE, VERSION
from src.utils import command_line


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser(
        "producer",
        VERSION,
        "Generate messages at a configured rate and send them to Kafka, until SIGTERM or Ctrl-C. A message"
        " that Kafka does not acknowledge is written to the undelivered folder: see python -m src.undelivered --help.",
        notes="Environment variables take precedence over the settings file; docs/configuration.md lists the settings.",
        examples=["--check", "--count 1000", "--input messages.jsonl"],
        exit_codes="0 stopped by a signal, or all messages delivered, or all checks passed; 1 failed, or not all"
        " delivered; 2 a check failed, or wrong configuration or arguments",
    )
    command_line.add_config(parser, DEFAULT_FILE)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--check",
        action="store_true",
        help="check the settings, Kafka and the undelivered folder, print the results, and exit with 0, or with 2 if a"
        " check fails; sends nothing",
    )
    mode.add_argument(
        "--count",
        type=command_line.positive,
        metavar="N",
        help="send N messages, then exit: with 0 if all of them were delivered",
    )
    mode.add_argument(
        "--input",
        metavar="FILE",
        help="send the messages in FILE, or in standard input for -: one JSON object per line. Its id is the key;"
        " an object without an id gets a UUID; see --id-field. Rate and retries are the same; the metrics port is a"
        " free one. Exits with 0 only if every line was delivered",
    )
    parser.add_argument(
        "--id-field",
        metavar="PATH",
        help="with --input, the field that is the id, as document.id of the consumer: event_id, meta.id; a line without"
        " it is invalid (default: producer.id_field of the settings)",
    )
    options = parser.parse_args(arguments)
    if options.id_field is not None and options.input is None:
        parser.error("--id-field is for --input")
    return options
