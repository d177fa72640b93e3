"""What the fuzzing can be asked for."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

_DESCRIPTION = """\
Feed random and mutated inputs to everything that reads some: messages to the consumer's processing, stores and dead
letters; lines and undelivered messages to the producer; settings files and environments to both. Each message has to
end as stored or parked, exactly once and byte for byte; nothing may crash or hang, and no secret may be told."""

_EPILOG = """\
examples:
  scripts/fuzz.sh                                    200,000 messages and a quarter as many of the rest: some minutes
  scripts/fuzz.sh --messages 5000                    a short one
  scripts/fuzz.sh --seed 7 --only consumer.messages --at 1234
                                                     one input again, as a finding names it

exit status:
  0 all is as promised; 1 something was found, and lies in the folder that is named; 2 it can't run like this"""


class Task(NamedTuple):
    """A target, and its share of inputs: one for so many messages."""

    service: str
    target: str
    share: int = 1

    @property
    def name(self) -> str:
        return f"{self.service}.{self.target}"


TASKS = (
    Task("consumer", "messages"),
    Task("consumer", "configurations", share=10),
    Task("producer", "lines", share=4),
    Task("producer", "undelivered", share=8),
    Task("producer", "configurations", share=10),
)


@dataclass(frozen=True)
class Options:
    seed: int
    messages: int = 200_000
    only: str | None = None
    at: int | None = None
    mongodb: str = ""
    deadline: float = 10.0

    @property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(task for task in TASKS if self.only in (None, task.name))


def parse(arguments: Sequence[str]) -> Options:
    """The options that a command line names. Ends the program, with a sentence, where one is wrong."""
    parser = argparse.ArgumentParser(
        "scripts/fuzz.sh",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--messages", type=_positive, default=200_000, metavar="N", help="(default: 200000)")
    parser.add_argument(
        "--seed", type=int, default=time.time_ns() % 1_000_000, metavar="N", help="the same inputs again"
    )
    parser.add_argument("--only", choices=[task.name for task in TASKS], metavar="TARGET", help="this target alone")
    parser.add_argument("--at", type=int, metavar="INDEX", help="this one input alone; only with --only")
    parser.add_argument("--mongodb", default="", metavar="URI", help="a MongoDB beside the SQLite file, in turn")
    parser.add_argument(
        "--deadline", type=float, default=10.0, metavar="S", help="seconds that an input may take (default: 10)"
    )
    options = Options(**vars(parser.parse_args(arguments)))
    if options.at is not None and options.only is None:
        parser.error("--at names an input of one target: say which by --only")
    return options


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)
