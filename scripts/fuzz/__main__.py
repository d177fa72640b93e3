"""`python -m fuzz`: the program behind scripts/fuzz.sh. It runs the property tests of both services with pytest."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fuzz import plugin
from local.errors import CannotRun, exit_code
from local.options import command_line, mongodb_uri, positive
from local.plan import ROOT

SERVICES = ("consumer", "producer")
EXAMPLES, EXAMPLES_PER_ROUND = 1000, 500
NO_TESTS = 5  # pytest's exit status if no test is selected

_DESCRIPTION = """\
Random and malformed input for every parser: messages for the consumer's processing, stores and dead letters; input
lines and undelivered messages for the producer; configuration files and environment variables for both. Every message
must be stored or dead-lettered, exactly once and byte for byte. Nothing may crash or hang, and no secret may be shown.
The property tests in the services' own tests are run with the same budget."""

_EPILOG = """\
examples:
  scripts/fuzz.sh                                  1,000 examples per test: a few minutes
  scripts/fuzz.sh --examples 100 -k messages       100 examples of the tests whose name contains "messages"
  scripts/fuzz.sh --seconds 3600                   new examples for an hour

Failing examples are stored in .local/fuzz and are tried first in every later run.

exit codes:
  0 every property holds; 1 a test failed; 2 the tests cannot be run like this"""


@dataclass(frozen=True)
class Options:
    examples: int | None = None
    seconds: int | None = None
    tests: str | None = None
    mongodb: str | None = None
    timeout: int = 60
    quiet: bool = False


def main(arguments: Sequence[str]) -> int:
    """The exit code of a run with these arguments."""
    return exit_code("fuzz.sh", lambda: run(parse(arguments)))


def parse(arguments: Sequence[str]) -> Options:
    """The options of a command line. Exits with an error message if one is invalid."""
    parser = command_line("scripts/fuzz.sh", _DESCRIPTION, _EPILOG)
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--examples", type=positive, metavar="N", help=f"examples per test (default: {EXAMPLES})")
    budget.add_argument("--seconds", type=positive, metavar="N", help="run rounds of new examples for this long")
    parser.add_argument("-k", dest="tests", metavar="EXPRESSION", help="only tests with a matching name, as in pytest")
    parser.add_argument("--mongodb", type=mongodb_uri, metavar="URI", help="compare a MongoDB with the SQLite store")
    parser.add_argument(
        "--timeout", type=positive, default=60, metavar="S", help="seconds that one example may take (default: 60)"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress bars on a terminal")
    return Options(**vars(parser.parse_args(arguments)))


def run(options: Options) -> int:
    """The exit code of rounds of tests, until one fails or the time is over."""
    deadline = time.monotonic() + (options.seconds or 0)
    while True:
        with ThreadPoolExecutor() as executor, _progress(options) as progress:
            statuses = list(executor.map(lambda service: _test(service, options, progress), SERVICES))
        if all(status == NO_TESTS for status in statuses):
            raise CannotRun(f"no test matches {options.tests!r}")
        if not set(statuses) <= {0, NO_TESTS}:
            print("FAIL: see the failing examples above")
            return 1
        if time.monotonic() >= deadline:
            print("PASS: every property holds")
            return 0


def _progress(options: Options) -> Progress:
    """On a terminal: how many tests of each service have ended, and the time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("tests, time left"))
    disabled = options.quiet or not sys.stdout.isatty()
    return Progress(*columns, TimeRemainingColumn(), speed_estimate_period=600, transient=True, disable=disabled)


def follow(pipe: IO[str], progress: Progress, service: str) -> None:
    """Until every process has closed the other end."""
    task = progress.add_task(service, total=None)
    for line in pipe:
        if progress.tasks[task].total is None:
            progress.update(task, total=int(line))
        else:
            progress.advance(task, int(line))


def _test(service: str, options: Options, progress: Progress) -> int:
    """The exit status of pytest. Prints its output when it has ended."""
    pipe, other_end = os.pipe()
    with open(pipe, encoding="ascii") as lines, ThreadPoolExecutor(1) as follower:
        follower.submit(follow, lines, progress, service)
        try:
            return _run_pytest(service, options, other_end)
        finally:
            os.close(other_end)


def _run_pytest(service: str, options: Options, progress: int) -> int:
    examples = options.examples or (EXAMPLES_PER_ROUND if options.seconds else EXAMPLES)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "scripts"),
        plugin.EXAMPLES: str(examples),
        plugin.TIMEOUT: str(options.timeout),
        plugin.FOLDER: str(ROOT / ".local" / "fuzz" / service),
        plugin.MONGODB: options.mongodb or "",
        plugin.PROGRESS: str(progress),
    }
    command = [
        *(sys.executable, "-m", "pytest", "-q", "--capture=sys", "-p", "fuzz.plugin", "--hypothesis-profile=fuzz"),
        *("-m", "hypothesis and not docker", "-k", options.tests or ""),
        *("tests", f"../scripts/fuzz/{service}"),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT / service,
        env=environment,
        pass_fds=[progress],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    print(f"== {service}\n{done.stdout}", flush=True)
    if done.returncode not in (0, NO_TESTS):
        end = f"killed by {signal.Signals(-done.returncode).name}" if done.returncode < 0 else "failed"
        print(f"{service}: {end}; the last example is in {plugin.last_example(environment)}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
