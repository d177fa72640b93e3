"""What the proof can be asked for."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from local.options import address, mongodb_uri, positive

ACTS = ("kill", "stop", "start", "pause", "resume")
SERVERS = ("kafka", "mongodb")

_DESCRIPTION = """\
Attack the system and count: for each scenario producers and consumers run under load, a fault is injected at a moment
that the seed chooses, and healed; when the group has caught up, the audit says where every message is. Nothing may be
lost, and nothing stored twice. A scenario that the chosen servers can't do is said to be "not here"."""

_EPILOG = """\
servers:
  --on embedded    an embedded broker and a SQLite file: needs nothing but Python (default)
  --on compose     the zookeeper, kafka and mongodb of docker-compose.yml, in a project of their own
  --on commands    any servers, at --kafka and --mongodb. What happens to them is done by commands: --kafka-kill CMD,
                   --kafka-stop, --kafka-start, --kafka-pause, --kafka-resume, and likewise --mongodb-kill, …, such as
                   --mongodb-kill 'ssh db1 sudo pkill -9 mongod' --mongodb-start 'ssh db1 sudo systemctl start mongod'
                   Topics and collections with names of the proof's own are made there, and deleted afterwards.

examples:
  scripts/chaos.sh --list
  scripts/chaos.sh --only 'consumer-*' --seeds 3
  scripts/chaos.sh --on compose --seeds 5 --report results.md
  scripts/chaos.sh --on compose --only mongodb-killed --prove      is the proof able to fail?
  scripts/chaos.sh --on compose --only soak --minutes 60           an hour with a fault each minute; only when named

exit status:
  0 nothing lost, nothing twice; 1 a scenario failed, or something broke; 2 it can't run like this"""


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
    kafka: str | None = None
    mongodb: str | None = None
    commands: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """What does an act ("kill", …) to a server ("kafka" or "mongodb")."""


def parse(arguments: Sequence[str], names: Sequence[str], protections: Sequence[str]) -> Options:
    """The options that a command line names. Ends the program, with a sentence, where one is wrong."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    seed, count = given.pop("seed"), given.pop("seeds")
    commands = {(server, act): given.pop(f"{server}_{act}") for server in SERVERS for act in ACTS}
    options = Options(
        **{
            **given,
            "only": tuple(given["only"] or ()),
            "without": tuple(given["without"] or ()),
            "seeds": tuple(range(seed, seed + count)),
            "commands": {key: command for key, command in commands.items() if command},
        }
    )
    if complaint := _complaint(options, names, protections):
        parser.error(complaint)
    return options


def chosen(options: Options, names: Sequence[str]) -> list[str]:
    """The scenarios that are asked for, in their own order: by name, by a beginning, or by a pattern."""
    return [name for name in names if not options.only or any(_means(text, name) for text in options.only)]


def _means(text: str, name: str) -> bool:
    return name == text or name.startswith(text) or fnmatchcase(name, text)


def _complaint(options: Options, names: Sequence[str], protections: Sequence[str]) -> str | None:
    for text in options.only:
        if not any(_means(text, name) for name in names):
            return f"--only {text}: no scenario is called so; --list shows them"
    for protection in options.without:
        if protection not in protections:
            return f"--without {protection}: no protection is called so; there are {', '.join(protections)}"
    if options.without and options.prove:
        return "--prove takes out each scenario's own protection; leave --without away"
    return _complaint_about_servers(options)


def _complaint_about_servers(options: Options) -> str | None:
    if options.on == "commands":
        if options.kafka is None or options.mongodb is None:
            return "--on commands needs --kafka HOST:PORT and --mongodb URI"
        return _complaint_about_commands(options)
    if options.kafka or options.mongodb or options.commands:
        return f"--kafka, --mongodb and commands are for --on commands, and this is --on {options.on}"
    return None


def _complaint_about_commands(options: Options) -> str | None:
    for server in SERVERS:
        for act, way_back in (("kill", "start"), ("stop", "start"), ("pause", "resume")):
            if (server, act) in options.commands and (server, way_back) not in options.commands:
                return f"--{server}-{act} needs --{server}-{way_back}: without it the server would stay away"
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "scripts/chaos.sh",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--list", action="store_true", help="the scenarios, each with the protection that it tests")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="this scenario: its name, a beginning, or a pattern; repeatable"
    )
    parser.add_argument("--seed", type=positive, default=1, metavar="N", help="the first seed (default: 1)")
    parser.add_argument("--seeds", type=positive, default=1, metavar="K", help="each scenario K times (default: 1)")
    parser.add_argument("--messages", type=_messages, default=4000, metavar="N", help="a scenario (default: 4000)")
    parser.add_argument("--report", type=_report, metavar="FILE", help="write the rows there: .md, or .json")
    parser.add_argument("--minutes", type=positive, default=60, metavar="N", help="how long a soak is (default: 60)")
    parser.add_argument("--quick", action="store_true", help="outages of 20 s where they are of 90 s, 15 s for 30 s")
    parser.add_argument("--on", choices=("embedded", "compose", "commands"), default="embedded", help="the servers")
    parser.add_argument("--kafka", type=address, metavar="HOST:PORT", help="with --on commands")
    parser.add_argument("--mongodb", type=mongodb_uri, metavar="URI", help="with --on commands")
    for server in SERVERS:
        for act in ACTS:
            parser.add_argument(f"--{server}-{act}", metavar="CMD", help=argparse.SUPPRESS)
    parser.add_argument(
        "--without", action="append", metavar="PROTECTION", help="take a protection out, and see the rows fail"
    )
    parser.add_argument(
        "--prove", action="store_true", help="take out of each scenario the protection it tests; 0 if each one fails"
    )
    parser.add_argument("--keep", action="store_true", help="keep topics, collections and logs of what went well too")
    return parser


def _messages(text: str) -> int:
    number = positive(text)
    if number < 2000:
        raise argparse.ArgumentTypeError("less than 2000 are settled before a fault can meet them")
    return number


def _report(text: str) -> Path:
    path = Path(text)
    if path.suffix not in (".md", ".json"):
        raise argparse.ArgumentTypeError(f"{text!r} ends neither in .md nor in .json")
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.absolute().parent}")
    return path
