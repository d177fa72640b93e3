"""The options of the bench."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from local.options import command_line, kafka_servers, mongodb_uri, positive
from local.plan import FOLDER

PARTS: Mapping[str, str] = {
    "consumer": "the consumer by batch size, the limits and the textbook's, into each store",
    "replicas": "one consumer and three; not with --quick",
    "growth": "the consumer by the size of the messages and the number of partitions; not with --quick",
    "producer": "the producer by batch size, generating and reading a file, and the client alone",
    "latency": "from the creation of a message until it is stored, at 28, 500 and 5,000 messages per second",
    "catch-up": "the consumer with a large backlog: rate and memory",
    "audit": "messages that the audit compares per second",
    "instructions": "instructions per message, which do not depend on the machine's load; only on request",
}
ON_REQUEST = frozenset({"instructions"})
NOT_QUICK = frozenset({"replicas", "growth"})

_DESCRIPTION = """\
Measure how fast the services are, and compare them in the same run with the limits of Kafka's client, MongoDB's driver
and a Python process. The contenders take turns; the table shows the median of the rounds and the spread. The results
are also written as JSON and as plots. By default an embedded broker takes the place of Kafka, and a server that
acknowledges inserts and stores nothing that of MongoDB: it is never the limit."""

_EPILOG = f"""\
parts:
{{parts}}

examples:
  scripts/bench.sh --quick
  scripts/bench.sh --only consumer,producer
  scripts/bench.sh --kafka localhost:29092 --mongodb mongodb://localhost:27017/
                                        topics and collections with names of their own, deleted afterwards
  scripts/bench.sh --peers --kafka localhost:29092
                                        also other consumers, each in an environment of its own; not all of them
                                        work with the embedded broker

The embedded broker keeps 5 MiB per partition, so a catch-up of a million messages requires --kafka.
Results are written to {FOLDER.relative_to(FOLDER.parent)}/bench/DATE, or to --folder.

exit codes:
  0 measured; 1 a contender failed, which its row says; 2 the bench cannot run"""


@dataclass(frozen=True)
class Options:
    only: tuple[str, ...] = ()
    contenders: tuple[str, ...] = ()
    quick: bool = False
    peers: bool = False
    rounds: int | None = None
    messages: int | None = None
    kafka: str | None = None
    mongodb: str | None = None
    folder: Path | None = None
    document: bool = False
    quiet: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        left_out = ON_REQUEST | NOT_QUICK if self.quick else ON_REQUEST
        return tuple(name for name in PARTS if (name in self.only if self.only else name not in left_out))

    @property
    def sizes(self) -> "Sizes":
        sizes = QUICK if self.quick else FULL
        return replace(
            sizes,
            rounds=self.rounds or sizes.rounds,
            messages=self.messages or sizes.messages,
            catch_up=self.messages or (sizes.catch_up if self.kafka else sizes.catch_up_on_embedded),
        )

    def includes(self, contender: str) -> bool:
        return not self.contenders or any(text in contender for text in self.contenders)


@dataclass(frozen=True)
class Sizes:
    """How much is measured. Of the starts of a program, the one with the least CPU time counts."""

    rounds: int
    starts: int
    messages: int
    catch_up: int
    catch_up_on_embedded: int
    latency_seconds: int


FULL = Sizes(rounds=5, starts=3, messages=200_000, catch_up=1_000_000, catch_up_on_embedded=300_000, latency_seconds=60)
QUICK = Sizes(rounds=1, starts=1, messages=40_000, catch_up=200_000, catch_up_on_embedded=100_000, latency_seconds=5)


def parse(arguments: Sequence[str]) -> Options:
    """The options of a command line. Exits with an error message if one is invalid."""
    return Options(**vars(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, PARTS)) + 2
    parts = "\n".join(f"  {name:<{width}}{text}" for name, text in PARTS.items())
    parser = command_line("scripts/bench.sh", _DESCRIPTION, _EPILOG.format(parts=parts))
    parser.add_argument("--quick", action="store_true", help="less of everything, in less than three minutes")
    parser.add_argument("--only", type=_parts, default=(), metavar="PART,PART", help="only these parts")
    parser.add_argument("--peers", action="store_true", help="add other consumers; installs them the first time")
    parser.add_argument(
        "--contenders", type=_words, default=(), metavar="TEXT,TEXT", help="only those whose names contain a TEXT"
    )
    parser.add_argument("--rounds", type=positive, metavar="N", help=f"default: {FULL.rounds}; quick: {QUICK.rounds}")
    parser.add_argument(
        "--messages", type=_messages, metavar="N", help=f"default: {FULL.messages:,}; quick: {QUICK.messages:,}"
    )
    parser.add_argument("--kafka", type=kafka_servers, metavar="HOST:PORT", help="your Kafka")
    parser.add_argument("--mongodb", type=mongodb_uri, metavar="URI", help="your MongoDB, as a further store")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="for the results")
    parser.add_argument(
        "--document", action="store_true", help="write the tables and plots into docs/performance.md and docs/images"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    return parser


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _parts(text: str) -> tuple[str, ...]:
    names = _words(text)
    for name in names:
        if name not in PARTS:
            raise argparse.ArgumentTypeError(f"{name!r} is not a part; choose from {', '.join(PARTS)}")
    return names


def _messages(text: str) -> int:
    number = positive(text)
    if number < 5_000:
        raise argparse.ArgumentTypeError("at least 5000 are needed, or the start of a process is all that is measured")
    return number
