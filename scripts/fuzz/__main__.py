"""`python -m fuzz`: what scripts/fuzz.sh starts."""

import sys
from collections.abc import Sequence

from fuzz.options import parse
from fuzz.run import ROOT, run

INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ended


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    try:
        return run(options, ROOT / ".local" / "fuzz")
    except KeyboardInterrupt:
        print("Ended before its end.", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
