"""`python -m local`: what scripts/local.sh starts."""

import signal
import sys
from threading import Event
from types import FrameType

from local.errors import CannotRun
from local.options import parse
from local.run import run


def main() -> int:
    options = parse(sys.argv[1:])
    stop = Event()

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        """The first time in good order, the second time at once."""
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ask_to_stop)
    try:
        return run(options, stop)
    except CannotRun as error:
        print(f"local.sh: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Ended at once, without an audit.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
