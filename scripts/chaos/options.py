"""The options of the chaos suite."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from local.options import command_line, kafka_servers, mongodb_uri, positive

ACTIONS = ("kill", "stop", "start", "pause", "resume")
SERVERS = ("kafka", "mongodb")
BROKER = "{broker}"
"""In a command: the number of a broker, by its place in --kafka."""

_DESCRIPTION = """\
Inject faults and count. Each scenario runs producers and consumers under load, injects a fault at a time that the seed
determines, and ends it. When the group has caught up, the audit accounts for every message: none may be lost, and
none stored twice. Scenarios that the servers do not support are skipped."""

_EPILOG = """\
servers:
  --on embedded    an embedded broker and a SQLite file; needs only Python (default)
  --on compose     zookeeper, kafka and mongodb of docker-compose.yml, in a project of their own
  --on cluster     three brokers in place of one, with docker-compose.cluster.yml
  --on commands    your own servers at --kafka and --mongodb, controlled by your commands: --kafka-kill CMD,
                   --kafka-stop, --kafka-start, --kafka-pause, --kafka-resume, likewise --mongodb-kill, …, such as
                   --mongodb-kill 'ssh db1 sudo pkill -9 mongod' --mongodb-start 'ssh db1 sudo systemctl start mongod'
                   Of several brokers (--kafka A:9092,B:9092,C:9092) a command with {broker}, the number of a broker,
                   acts on one: --kafka-kill 'ssh kafka-{broker} sudo pkill -9 -f [k]afka.Kafka'; others act on all.
                   Topics and collections with names of their own are created there and deleted afterwards.

examples:
  scripts/chaos.sh --list
  scripts/chaos.sh --only 'consumer-*' --seeds 3
  scripts/chaos.sh --on compose --seeds 5 --report results.md
  scripts/chaos.sh --on compose --only mongodb-killed --prove      can the scenario fail?
  scripts/chaos.sh --on compose --only soak --minutes 60           one fault per minute; runs only on request

exit codes:
  0 no message lost, none stored twice; 1 a scenario failed or could not be run; 2 the suite cannot start"""


@dataclass(frozen=True)
class Options:
    on: str = "embedded"
    only: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (1,)
    messages: int = 4000
    report: Path | None = None
    minutes: int = 60
    quick: bool = False
    without: tuple[str, ...] = ()
    prove: bool = False
    keep: bool = False
    list: bool = False
    quiet: bool = False
    kafka: str | None = None
    mongodb: str | None = None
    group_protocol: str = "classic"
    commands: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """The command for each server ("kafka" or "mongodb") and action ("kill", …)."""


def parse(arguments: Sequence[str], names: Sequence[str], protections: Sequence[str]) -> Options:
    """The options of a command line. Exits with an error message if one is invalid."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    seed, count = given.pop("seed"), given.pop("seeds")
    commands = {(server, action): given.pop(f"{server}_{action}") for server in SERVERS for action in ACTIONS}
    options = Options(
        **{
            **given,
            "only": tuple(given["only"] or ()),
            "without": tuple(given["without"] or ()),
            "seeds": tuple(range(seed, seed + count)),
            "commands": {key: command for key, command in commands.items() if command},
        }
    )
    if error := _error(options, names, protections):
        parser.error(error)
    return options


def selected(options: Options, names: Sequence[str]) -> list[str]:
    """The requested scenarios in their own order, by name, prefix or pattern."""
    return [name for name in names if not options.only or any(_matches(text, name) for text in options.only)]


def _matches(text: str, name: str) -> bool:
    return name.startswith(text) or fnmatchcase(name, text)


def _error(options: Options, names: Sequence[str], protections: Sequence[str]) -> str | None:
    for text in options.only:
        if not any(_matches(text, name) for name in names):
            return f"--only {text}: no such scenario; see --list"
    for protection in options.without:
        if protection not in protections:
            return f"--without {protection}: no such protection; choose from {', '.join(protections)}"
    if options.without and options.prove:
        return "--prove removes each scenario's own protections and cannot be combined with --without"
    if options.on != "commands" and (options.kafka or options.mongodb or options.commands):
        return f"--kafka, --mongodb and commands require --on commands, not --on {options.on}"
    if options.on != "commands" and options.group_protocol == "consumer":
        return "--group-protocol consumer requires --on commands and Kafka 4"
    return _command_error(options) if options.on == "commands" else None


def _command_error(options: Options) -> str | None:
    if options.kafka is None or options.mongodb is None:
        return "--on commands requires --kafka HOST:PORT and --mongodb URI"
    for server in SERVERS:
        for action, inverse in (("kill", "start"), ("stop", "start"), ("pause", "resume")):
            if (server, action) in options.commands and (server, inverse) not in options.commands:
                return f"--{server}-{action} requires --{server}-{inverse}: otherwise the server would stay down"
    return None


def _parser() -> argparse.ArgumentParser:
    parser = command_line("scripts/chaos.sh", _DESCRIPTION, _EPILOG)
    parser.add_argument("--list", action="store_true", help="list the scenarios, each with the protections it tests")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar on a terminal")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="run this scenario: its name, a prefix or a pattern; repeatable"
    )
    parser.add_argument("--seed", type=positive, default=1, metavar="N", help="the first seed (default: 1)")
    parser.add_argument("--seeds", type=positive, default=1, metavar="K", help="run each scenario K times (default: 1)")
    parser.add_argument("--messages", type=_messages, default=4000, metavar="N", help="per trial (default: 4000)")
    parser.add_argument("--report", type=_report, metavar="FILE", help="write the results to a .md or .json file")
    parser.add_argument("--minutes", type=positive, default=60, metavar="N", help="duration of a soak (default: 60)")
    parser.add_argument("--quick", action="store_true", help="outages of 20 s instead of 90 s, 15 s instead of 30 s")
    parser.add_argument(
        "--on", choices=("embedded", "compose", "cluster", "commands"), default="embedded", help="the servers"
    )
    parser.add_argument("--kafka", type=kafka_servers, metavar="HOST:PORT", help="with --on commands")
    parser.add_argument("--mongodb", type=mongodb_uri, metavar="URI", help="with --on commands")
    parser.add_argument(
        "--group-protocol",
        choices=("classic", "consumer"),
        default="classic",
        help="of the consumers; `consumer` needs Kafka 4 with a group.consumer.session.timeout.ms of 6000",
    )
    for server in SERVERS:
        for action in ACTIONS:
            parser.add_argument(f"--{server}-{action}", metavar="CMD", help=argparse.SUPPRESS)
    parser.add_argument(
        "--without", action="append", metavar="PROTECTION", help="remove a protection, to see scenarios fail"
    )
    parser.add_argument(
        "--prove", action="store_true", help="remove from each scenario the protections it tests; 0 if every one fails"
    )
    parser.add_argument("--keep", action="store_true", help="keep topics, collections and logs of passed trials too")
    return parser


def _messages(text: str) -> int:
    number = positive(text)
    if number < 2000:
        raise argparse.ArgumentTypeError("at least 2000 are needed: fewer are settled before a fault can occur")
    return number


def _report(text: str) -> Path:
    path = Path(text)
    if path.suffix not in (".md", ".json"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a .md nor a .json file")
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.absolute().parent}")
    return path
