"""How the scripts end with an error."""

import sys
from collections.abc import Callable

INTERRUPTED = 130  # the exit status of a program that Ctrl-C has ended


class CannotRun(Exception):
    """The run cannot start or continue. The text is one sentence for the user; exit status 2."""


def exit_status(program: str, run: Callable[[], int]) -> int:
    """The status of a run, or that of the error that ended it."""
    try:
        return run()
    except CannotRun as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
