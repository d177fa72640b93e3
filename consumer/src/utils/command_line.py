"""What the command lines have in common: their help texts, exit codes, and errors."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.utils.output import FAILED, INTERRUPTED, OutputError, StandardStreams


def parser(
    command: str, version: str, description: str, *, examples: Sequence[str], exit_codes: str, notes: str = ""
) -> argparse.ArgumentParser:
    """The parser of `python -m src.<command>`, with --help and --version."""
    program = f"python -m src.{command}"
    texts = help_texts(description, [f"{program} {example}".rstrip() for example in examples], exit_codes, notes)
    new = argparse.ArgumentParser(prog=program, **texts)
    new.add_argument("--version", action="version", version=f"{command} {version}", help="print the version and exit")
    return new


def help_texts(description: str, examples: Sequence[str], exit_codes: str, notes: str = "") -> dict[str, Any]:
    """The arguments of a parser: description, notes, examples and exit codes, in this order."""
    sections = ("\n".join(["examples:", *(f"  {example}" for example in examples)]), f"exit codes:\n  {exit_codes}")
    return {
        "description": description,
        "epilog": "\n\n".join([notes, *sections] if notes else sections),
        "formatter_class": _Formatter,
        "allow_abbrev": False,
    }


def add_config(parser: argparse.ArgumentParser, default: Path, *, after_command: bool = False) -> None:
    """`after_command`: in the parser of a subcommand, where it overrides the program's own."""
    parser.add_argument(
        "--config",
        type=Path,
        default=argparse.SUPPRESS if after_command else default,
        metavar="PATH",
        help=f"settings file ({str(default).replace('%', '%%')})",
    )


def add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="show no progress on standard error")


def positive(text: str) -> int:
    """The type of an argument."""
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def run(
    program: str, body: Callable[[], int], failures: Mapping[type[Exception], int], *, error_code: int = FAILED
) -> int:
    """The exit code of `body`, or that of the failure that ended it, which is printed in one line.

    Any other exception is logged with its traceback, and the exit code is `error_code`.
    """
    with StandardStreams(program) as streams:
        try:
            code = _exit_code(program, body, failures, streams)
        except Exception:
            import logging  # here, because `src.status` imports little

            logger = logging.getLogger(program)
            logger.exception("stopped by an error")
            code = error_code
        streams.flush()
        return code or streams.exit_code


def _exit_code(
    program: str, body: Callable[[], int], failures: Mapping[type[Exception], int], streams: StandardStreams
) -> int:
    try:
        return body()
    except OutputError:
        return streams.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as end:  # of --help and --version, or because of wrong arguments
        streams.flush()
        if end.code or not streams.exit_code:
            raise
        return streams.exit_code
    except tuple(failures) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return next(code for failure, code in failures.items() if isinstance(error, failure))


class _Formatter(argparse.HelpFormatter):
    """Wraps a text of one line, and keeps the lines of any other."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)
