"""How the scripts end with an error."""

import sys
from collections.abc import Callable

from local.output import INTERRUPTED, OutputError, StandardStreams


class CannotRun(Exception):
    """The run cannot start or continue. The text is one sentence for the user; exit code 2."""


def exit_code(program: str, run: Callable[[], int]) -> int:
    """That of a run, or of the error that ended it."""
    with StandardStreams(program) as streams:
        code = _exit_code(program, run, streams)
        streams.flush()
        return code or streams.exit_code


def _exit_code(program: str, run: Callable[[], int], streams: StandardStreams) -> int:
    try:
        return run()
    except OutputError:
        return streams.exit_code
    except CannotRun as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as end:  # of --help and --version, or because of wrong arguments
        streams.flush()
        if end.code or not streams.exit_code:
            raise
        return streams.exit_code
