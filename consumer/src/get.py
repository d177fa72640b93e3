"""`python -m src.get`: find messages in the store with a MongoDB filter on their fields."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.model.errors import StorageUnavailable
from src.settings import DEFAULT_FILE, VERSION, load_settings
from src.storage import DataStorage, UnsupportedQuery
from src.utils.config import ConfigurationError
from src.utils.logging import configure


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the messages found, one JSON object per line.

    Exit codes: 0 success, 1 store unavailable, 2 wrong settings or filter.
    """
    options = _parser().parse_args(arguments)
    configure(service="get", version=VERSION, level="WARNING", style="text", stream=sys.stderr)
    try:
        settings = load_settings(options.config, os.environ)
        with DataStorage(settings.mongodb) as storage:
            messages = storage.get(options.filter, limit=options.limit, sort=options.sort)
    except (ConfigurationError, UnsupportedQuery) as error:
        print(f"get: {error}", file=sys.stderr)
        return 2
    except StorageUnavailable as error:
        print(f"get: the store is unavailable: {error}", file=sys.stderr)
        return 1
    for message in messages:
        print(json.dumps(message))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m src.get",
        description="Find messages in the store with a MongoDB filter on their fields, and print one per line as JSON.",
        epilog="""example: python -m src.get '{"metadata.source": "system-a"}' --sort -created_at --limit 3""",
    )
    parser.add_argument("filter", type=_filter, nargs="?", default={}, help="a JSON object (default: all messages)")
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE, metavar="PATH", help="settings file (%(default)s)")
    parser.add_argument("--limit", type=int, default=10, metavar="N", help="maximum number of messages (%(default)s)")
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
