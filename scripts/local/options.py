"""The options of a local run."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MESSAGES_PER_HOUR = 100_000

_SETTINGS = Path(__file__).resolve().parents[2] / "consumer" / "src" / "settings.py"

_DESCRIPTION = """\
Run the whole system on this machine: one producer and several consumers, each a process of its own, with a live
table. By default only Python is needed: an embedded broker takes the place of Kafka, a SQLite file that of MongoDB.
Ctrl-C stops the run gracefully, a second Ctrl-C at once. At the end an audit accounts for every message."""

_EPILOG = """\
examples:
  scripts/local.sh                                 100,000 messages per hour until Ctrl-C
  scripts/local.sh --messages 20000 --rate 0       20,000 messages as fast as possible
  scripts/local.sh --kafka localhost:29092 --mongodb mongodb://localhost:27017/
                                                   the same programs on real servers

exit codes:
  0 every message is accounted for; 1 a message is lost or stored twice, or a process failed; 2 the run cannot start"""


@dataclass(frozen=True)
class Options:
    messages: int | None = None
    rate: float = MESSAGES_PER_HOUR / 3600
    consumers: int = 3
    partitions: int = 6
    kafka: str | None = None
    mongodb: str | None = None
    keep: bool = False


def command_line(program: str, description: str, epilog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        program,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    version = f"{program.rpartition('/')[2]} {_version()}"
    parser.add_argument("--version", action="version", version=version, help="print the version and exit")
    return parser


def _version() -> str:
    """That of the services."""
    match = re.search(r'^VERSION = "(.+)"$', _SETTINGS.read_text(), re.MULTILINE)
    return match[1] if match else "unknown"


def parse(arguments: Sequence[str]) -> Options:
    """The options of a command line. Exits with an error message if one is invalid."""
    parser = command_line("scripts/local.sh", _DESCRIPTION, _EPILOG)
    parser.add_argument("--messages", type=positive, metavar="N", help="stop after N messages (default: at Ctrl-C)")
    parser.add_argument(
        "--rate",
        type=_rate,
        default=Options.rate,
        metavar="R",
        help=f"messages per second, 0 for no limit (default: {Options.rate:.1f}, {MESSAGES_PER_HOUR:,} per hour)",
    )
    parser.add_argument("--consumers", type=positive, default=3, metavar="N", help="consumer processes (default: 3)")
    parser.add_argument("--partitions", type=positive, default=6, metavar="N", help="of the topic (default: 6)")
    parser.add_argument(
        "--kafka", type=kafka_servers, metavar="HOST:PORT", help="a real Kafka instead of the embedded broker"
    )
    parser.add_argument("--mongodb", type=mongodb_uri, metavar="URI", help="a real MongoDB instead of the SQLite file")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the stored messages of the last run; the embedded broker always starts empty",
    )
    return Options(**vars(parser.parse_args(arguments)))


def positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0.001 <= rate <= 1_000_000 and rate != 0:
        raise argparse.ArgumentTypeError(f"{text!r} is neither 0 nor a number from 0.001 to 1000000")
    return rate


def kafka_servers(text: str) -> str:
    servers = [server.strip() for server in text.split(",")]
    for server in servers:
        host, _, port = server.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise argparse.ArgumentTypeError(f"{server!r} is not HOST:PORT, such as localhost:29092")
    return ",".join(servers)


def mongodb_uri(text: str) -> str:
    if not text.startswith(("mongodb://", "mongodb+srv://")):
        raise argparse.ArgumentTypeError("a MongoDB URI begins with mongodb:// or mongodb+srv://")
    return text
