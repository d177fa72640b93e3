"""`python -m src.transform`: what the consumer would store for messages, without Kafka and without a store."""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from src.data_processor import DataProcessor, processor_for
from src.model.errors import InvalidMessage
from src.model.record import Record
from src.settings import (
    DEFAULT_FILE,
    MODULE_AND_FUNCTION,
    VERSION,
    DocumentSettings,
    SchemaRegistrySettings,
    Settings,
    load_settings,
)
from src.stores.document import Document, Schema
from src.stores.shape import Shape, has
from src.stores.validation import validated
from src.utils import command_line
from src.utils.config import ConfigurationError
from src.utils.text import printable, utc_text


def main(arguments: Sequence[str] | None = None, *, lines: Iterable[bytes] | None = None) -> int:
    """The program. Exit codes: 0 success, 1 a message is invalid, 2 wrong settings or arguments."""

    def body() -> int:
        options = _parser().parse_args(arguments)
        settings = load_settings(options.config, os.environ)
        document = replace(settings.document, transform=options.transform or settings.document.transform)
        settings = replace(settings, document=document, schema_registry=SchemaRegistrySettings())
        return _print_documents(settings, sys.stdin.buffer if lines is None else lines)

    return command_line.run("transform", body, {ConfigurationError: 2})


def _print_documents(settings: Settings, lines: Iterable[bytes]) -> int:
    processor, schema = processor_for(settings), Schema(settings.document)
    processor.shape = shape = _ObservedShape(settings.document)
    topic = settings.kafka.topic
    counts = {"stored": 0, "skipped": 0, "invalid": 0}
    for number, line in enumerate(lines, 1):
        if line.isspace():
            continue
        try:
            document = _document(processor, schema, Record(topic, 0, number - 1, b"%d" % number, line.strip()))
        except InvalidMessage as error:
            counts["invalid"] += 1
            print(f"line {number}: {error.reason}: {printable(str(error))}", file=sys.stderr)
            continue
        counts["skipped" if document is None else "stored"] += 1
        if document is None:
            print(f"line {number}: skipped", file=sys.stderr)
        else:
            print(json.dumps(document, default=_extended_json))
    for name, path in shape.never_seen:
        print(f"document.{name}: no message has {path}", file=sys.stderr)
    print(", ".join(f"{count} {result}" for result, count in counts.items()), file=sys.stderr)
    return 1 if counts["invalid"] else 0


class _ObservedShape(Shape):
    """`never_seen` are the settings and paths, unless they are defaults, that have not occurred in any message."""

    def __init__(self, settings: DocumentSettings) -> None:
        super().__init__(settings)
        default = DocumentSettings()
        self.never_seen = [
            (name, path)
            for name in ("required", "checks", "dates", "drop", "keep", "rename")
            for path in getattr(settings, name)
            if path not in getattr(default, name)
        ]

    def applied(self, message: Mapping[str, Any]) -> dict[str, Any]:
        self.never_seen = [(name, path) for name, path in self.never_seen if not has(message, path)]
        return super().applied(message)


def _extended_json(date: datetime) -> dict[str, str]:
    """As MongoDB's tools show a date."""
    return {"$date": utc_text(date.astimezone(UTC))}


def _document(processor: DataProcessor, schema: Schema, record: Record) -> Document | None:
    document = processor.process(record)
    return None if document is None else validated(document, schema)


def _parser() -> argparse.ArgumentParser:
    parser = command_line.parser(
        "transform",
        VERSION,
        "Read messages from standard input, one JSON object per line, and print the documents that the consumer would"
        ' store, with dates as {"$date": …}. Skipped and invalid messages, and paths of the settings that no message'
        " has, are listed on standard error.",
        notes="The section `document` of the settings applies. The key of a message is the number of its line. A schema"
        " registry is not used: a line is JSON.",
        examples=["orders:to_document < messages.jsonl"],
        exit_codes="0 success; 1 a message is invalid; 2 wrong configuration or arguments, or the function cannot be"
        " imported",
    )
    parser.add_argument(
        "transform",
        type=_module_and_function,
        nargs="?",
        metavar="MODULE:FUNCTION",
        help="the function (default: document.transform of the settings)",
    )
    command_line.add_config(parser, DEFAULT_FILE)
    return parser


def _module_and_function(text: str) -> str:
    if not re.fullmatch(MODULE_AND_FUNCTION, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not module:function")
    return text


if __name__ == "__main__":
    sys.exit(main())
