"""The command line's arguments."""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime

from src.settings import DEFAULT_FILE, VERSION
from src.utils import command_line

_EXIT_CODES = "0 success, also if no messages match; 1 failure; 2 wrong configuration or arguments"
_PROGRAM = "python -m src.dead_letters"

_REPLAY_DESCRIPTION = """\
Produce the original key, value and headers to the original topic, with the current time as timestamp and the header
__dead_letter.replays, a counter. For each message that Kafka has confirmed, a replay marker is written to the
dead-letter topic, so that no later replay produces the message again, whatever its filters. If a replay is interrupted,
run it again. (If it is killed, up to 100 messages are produced twice; the store keeps one copy of each.)
A message that is still invalid is dead-lettered again.
"""


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """`command` is "list", "show" or "replay"."""
    parser = command_line.parser(
        "dead_letters",
        VERSION,
        "List, show and replay the messages in the dead-letter topic. Times are in the local time zone on a terminal,"
        " otherwise in UTC.",
        examples=["list --reason invalid_json", "show 0:42", "replay --dry-run"],
        exit_codes=_EXIT_CODES,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _add_list(commands)
    _add_show(commands)
    _add_replay(commands)
    return parser.parse_args(arguments)


def _add_list(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "list",
        help="list dead-lettered messages, one per line",
        **command_line.help_texts(
            "List the messages that wait in the dead-letter topic, one per line. COPIES is the number of dead letters"
            " of a message, more than one after a crash.",
            [f"{_PROGRAM} list --since 2023-07-15", f"{_PROGRAM} list --json --limit 10"],
            _EXIT_CODES,
        ),
    )
    _add_common(parser)
    _add_filters(parser)
    parser.add_argument("--all", action="store_true", help="also list replayed messages")


def _add_show(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "show",
        help="show everything about one dead-lettered message",
        **command_line.help_texts(
            "Show everything about one dead-lettered message.", [f"{_PROGRAM} show 0:42"], _EXIT_CODES
        ),
    )
    _add_common(parser)
    parser.add_argument(
        "position", type=_position, metavar="PARTITION:OFFSET", help="position of the message in its original topic"
    )
    parser.add_argument(
        "--dead-letter",
        action="store_true",
        help="PARTITION:OFFSET is the position of the dead letter in the dead-letter topic",
    )


def _add_replay(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "replay",
        help="produce dead-lettered messages to their original topic",
        **command_line.help_texts(
            _REPLAY_DESCRIPTION,
            [f"{_PROGRAM} replay --reason invalid_json --dry-run", f"{_PROGRAM} replay --reason invalid_json"],
            _EXIT_CODES,
        ),
    )
    _add_common(parser)
    _add_filters(parser)
    parser.add_argument("--dry-run", action="store_true", help="list the messages, but do not produce them")
    parser.add_argument(
        "--any-topic",
        action="store_true",
        help="also replay messages from other topics, each to its own; those without a position are never replayed",
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    command_line.add_config(parser, DEFAULT_FILE)
    command_line.add_quiet(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", action="append", default=[], help="only with this reason; can be repeated")
    parser.add_argument(
        "--since", type=_time, metavar="TIME", help="dead-lettered at or after TIME (ISO 8601, UTC by default)"
    )
    parser.add_argument("--until", type=_time, metavar="TIME", help="dead-lettered before TIME")
    parser.add_argument("--partition", type=int, metavar="N", help="partition of the original message")
    parser.add_argument("--offset", type=int, metavar="N", help="offset of the original message")
    parser.add_argument("--limit", type=_positive, metavar="N", help="only the N oldest")


def _time(text: str) -> float:
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not an ISO 8601 time, such as 2023-07-15T12:34:56Z") from error


def _position(text: str) -> tuple[int, int]:
    partition, _, offset = text.partition(":")
    if not (partition.isdecimal() and offset.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not PARTITION:OFFSET, such as 0:42")
    return int(partition), int(offset)


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)
