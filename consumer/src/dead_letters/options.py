"""The command line's arguments."""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from src.settings import DEFAULT_FILE, VERSION
from src.utils import command_line

_EXIT_CODES = "0 success, also if no messages match; 1 failure; 2 wrong configuration or arguments"
_PROGRAM = "python -m src.dead_letters"

_SHOW_DESCRIPTION = """\
Show everything about one dead-lettered message, or about all that match the filters. With --value, print only its
value, byte for byte: to correct it, redirect it to a file, edit the file, and use replay --value-file.
"""

_REPLAY_DESCRIPTION = """\
Produce the original key, value and headers to the original topic, with the current time as timestamp and the header
__dead_letter.replays, a counter. For each message that Kafka has confirmed, a replay marker is written to the
dead-letter topic, so that no later replay produces the message again, whatever its filters. If a replay is interrupted,
run it again. (If it is killed, up to 100 messages are produced twice; the store keeps one copy of each.)
A message that is still invalid is dead-lettered again. To correct the value of one message, give --value-file.
"""

_DISCARD_DESCRIPTION = """\
Mark messages that are not to be replayed. Their dead letters stay in the topic until its retention deletes them, and
the audit counts them as dead-lettered; but list leaves them out, and no replay produces them. For each, a discard
marker is written to the dead-letter topic and confirmed by Kafka; it cannot be removed. At least one filter is
required.
"""

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """`command` is "list", "summary", "show", "replay" or "discard"."""
    parser = command_line.parser(
        "dead_letters",
        VERSION,
        "List, show, replay and discard the messages in the dead-letter topic. Times are in the local time zone on a"
        " terminal, otherwise in UTC.",
        examples=["summary", "list --reason not_json", "show 0:42", "replay --dry-run", "discard 0:42"],
        exit_codes=_EXIT_CODES,
    )
    command_line.add_config(parser, DEFAULT_FILE)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for add in (_add_list, _add_summary, _add_show, _add_replay, _add_discard):
        add(commands)
    options = parser.parse_args(arguments)
    if error := _error(options):
        commands.choices[options.command].error(error)
    return options


def _error(options: argparse.Namespace) -> str | None:
    """What is wrong with the arguments together."""
    if options.dead_letter and not options.position:
        return "--dead-letter requires PARTITION:OFFSET"
    original = (options.topic, options.partition, options.offset)
    filters = (options.position, options.reason, options.since, options.until, *original)
    if options.command == "discard" and all(criterion in (None, []) for criterion in filters):
        names = "PARTITION:OFFSET, --reason, --since, --until, --topic, --partition or --offset"
        return f"at least one filter is required: {names}"
    return None


def _add_list(commands: _Commands) -> None:
    parser = _add_parser(
        commands,
        "list",
        "list dead-lettered messages, one per line",
        "List the messages that wait in the dead-letter topic, one per line. COPIES is the number of dead letters"
        " of a message, more than one after a crash.",
        "list --since 2023-07-15",
        "list --json --limit 10",
    )
    _add_all(parser)


def _add_summary(commands: _Commands) -> None:
    parser = _add_parser(
        commands,
        "summary",
        "count dead-lettered messages by reason, partition and time",
        "Count the messages that wait in the dead-letter topic by reason, by partition of the original message, and by"
        " hour, or by day if they span more than 48 hours.",
        "summary",
        "summary --since 2023-07-15 --all",
    )
    _add_all(parser)


def _add_show(commands: _Commands) -> None:
    parser = _add_parser(
        commands,
        "show",
        "show everything about one dead-lettered message",
        _SHOW_DESCRIPTION,
        "show 0:42",
        "show 0:42 --value > value.json",
    )
    _add_all(parser)
    parser.add_argument("--value", action="store_true", dest="only_value", help="print only the value of one message")


def _add_replay(commands: _Commands) -> None:
    parser = _add_parser(
        commands,
        "replay",
        "produce dead-lettered messages to their original topic",
        _REPLAY_DESCRIPTION,
        "replay --reason not_json --dry-run",
        "replay --reason not_json",
        "replay 0:42 --value-file value.json",
    )
    parser.add_argument("--dry-run", action="store_true", help="list the messages, but do not produce them")
    parser.add_argument(
        "--any-topic",
        action="store_true",
        help="also replay messages from other topics, each to its own; those without a position are never replayed",
    )
    parser.add_argument(
        "--value-file",
        type=_content,
        dest="value",
        metavar="FILE",
        help="replay one message with the content of FILE, or of standard input for -, as its value",
    )


def _add_discard(commands: _Commands) -> None:
    parser = _add_parser(
        commands,
        "discard",
        "mark dead-lettered messages that are not to be replayed",
        _DISCARD_DESCRIPTION,
        "discard 0:42",
        "discard --reason tombstone --until 2023-07-15 --dry-run",
        "discard 2:7 --dead-letter --any-topic",
    )
    parser.add_argument("--dry-run", action="store_true", help="list the messages, but do not mark them")
    parser.add_argument(
        "--any-topic", action="store_true", help="also discard messages from other topics or of other programs"
    )


def _add_parser(
    commands: _Commands, name: str, summary: str, description: str, *examples: str
) -> argparse.ArgumentParser:
    """With the options that all commands have."""
    texts = command_line.help_texts(description, [f"{_PROGRAM} {example}" for example in examples], _EXIT_CODES)
    parser = commands.add_parser(name, help=summary, **texts)
    command_line.add_config(parser, DEFAULT_FILE, after_command=True)
    command_line.add_quiet(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    _add_filters(parser)
    return parser


def _add_all(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="also replayed and discarded messages")


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "position",
        type=_position,
        nargs="?",
        metavar="PARTITION:OFFSET",
        help="only the message at this position of its original topic",
    )
    parser.add_argument(
        "--dead-letter",
        action="store_true",
        help="PARTITION:OFFSET is the position of the dead letter in the dead-letter topic",
    )
    parser.add_argument("--reason", action="append", default=[], help="only with this reason; can be repeated")
    parser.add_argument(
        "--since", type=iso_time, metavar="TIME", help="dead-lettered at or after TIME (ISO 8601, UTC by default)"
    )
    parser.add_argument("--until", type=iso_time, metavar="TIME", help="dead-lettered before TIME")
    parser.add_argument("--topic", metavar="NAME", help="topic of the original message")
    parser.add_argument("--partition", type=int, metavar="N", help="partition of the original message")
    parser.add_argument("--offset", type=int, metavar="N", help="offset of the original message")
    parser.add_argument("--limit", type=command_line.positive, metavar="N", help="only the N oldest")


def iso_time(text: str) -> float:
    """The type of an argument: seconds since 1970."""
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


def _content(path: str) -> bytes:
    """Of a file that is not empty, as it would be after a failed command."""
    try:
        content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {path}: {error.strerror}") from error
    if not content:
        raise argparse.ArgumentTypeError(f"{'standard input' if path == '-' else path} is empty")
    return content
