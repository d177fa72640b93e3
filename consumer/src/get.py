"""`python -m src.get`: find messages in the store with a MongoDB filter on their fields."""

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from src.model.errors import StorageUnavailable
from src.settings import DEFAULT_FILE, VERSION, Settings, load_settings
from src.storage import DataStorage, UnsupportedQuery
from src.storage_router import open_storage
from src.utils import command_line
from src.utils.config import ConfigurationError
from src.utils.logging import configure


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Exit codes: 0 success, 1 store unavailable, 2 wrong settings or filter."""
    failures: dict[type[Exception], int] = {ConfigurationError: 2, UnsupportedQuery: 2, StorageUnavailable: 1}
    return command_line.run("get", lambda: _get(_options(arguments)), failures)


def _get(options: argparse.Namespace) -> int:
    configure(service="get", version=VERSION, level="WARNING", style="text", stream=sys.stderr)
    settings = load_settings(options.config, os.environ)
    with _storage(settings, options.topic) as storage:
        try:
            messages = storage.get(_query(options), limit=options.limit + 1, sort=options.sort)
        except StorageUnavailable as error:
            raise StorageUnavailable(error.cause, f"the store is unavailable: {error}") from error
    one_per_line = options.json or not sys.stdout.isatty()
    for message in messages[: options.limit]:
        print(json.dumps(message) if one_per_line else json.dumps(message, indent=2))
    if not messages:
        print("no messages match" if options.filter or options.topic else "no messages in the store", file=sys.stderr)
    if len(messages) > options.limit:
        print(f"more than {options.limit} messages match; see --limit", file=sys.stderr)
    return 0


def _storage(settings: Settings, topic: str | None) -> DataStorage:
    if topic is None:
        storage = open_storage(settings)
        if isinstance(storage, DataStorage):
            return storage
        names = ", ".join(settings.kafka.subscription)
        raise ConfigurationError(f"the topics have collections of their own: choose one of them with --topic ({names})")
    if not settings.kafka.reads(topic):
        raise ConfigurationError(f"--topic {topic}: the topics are {', '.join(settings.kafka.subscription)}")
    of_topic = settings.of_topic(topic)
    return DataStorage(of_topic.mongodb, of_topic.document)


def _query(options: argparse.Namespace) -> dict[str, Any]:
    """Several topics may have one collection."""
    filters = [options.filter, {"kafka.topic": options.topic}]
    return {"$and": filters} if options.topic else options.filter


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    return _parser().parse_args(_with_sort_field_attached(sys.argv[1:] if arguments is None else arguments))


def _with_sort_field_attached(arguments: Sequence[str]) -> list[str]:
    """`--sort -FIELD` as `--sort=-FIELD`: argparse would take a value that begins with a dash for an option."""
    attached: list[str] = []
    for argument in arguments:
        if attached[-1:] == ["--sort"] and re.match("-[^-]", argument):
            attached[-1] += f"={argument}"
        else:
            attached.append(argument)
    return attached


def _parser() -> argparse.ArgumentParser:
    parser = command_line.parser(
        "get",
        VERSION,
        "Find messages in the store with a MongoDB filter on their fields, and print them as JSON.",
        examples=["""'{"metadata.source": "system-a"}' --sort -created_at --limit 3"""],
        exit_codes="0 success, also if no messages match; 1 the store is unavailable; 2 wrong configuration, arguments"
        " or filter",
    )
    parser.add_argument("filter", type=_filter, nargs="?", default={}, help="a JSON object (default: all messages)")
    command_line.add_config(parser, DEFAULT_FILE)
    parser.add_argument(
        "--json", action="store_true", help="print one message per line on a terminal too, as in a file or a pipe"
    )
    parser.add_argument(
        "--limit", type=command_line.positive, default=10, metavar="N", help="maximum number of messages (%(default)s)"
    )
    parser.add_argument("--topic", help="only messages of this topic, from its collection")
    parser.add_argument(
        "--sort", type=_sort, metavar="FIELD", help="sort by this field; -FIELD sorts in descending order"
    )
    return parser


def _filter(text: str) -> dict[str, Any]:
    try:
        query = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from error
    if not isinstance(query, dict):
        raise argparse.ArgumentTypeError("not a JSON object")
    return query


def _sort(text: str) -> list[tuple[str, int]]:
    return [(text.removeprefix("-"), -1 if text.startswith("-") else 1)]


if __name__ == "__main__":
    sys.exit(main())
