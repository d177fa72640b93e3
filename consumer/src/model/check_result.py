"""What `--check` reports."""

from typing import NamedTuple


class CheckResult(NamedTuple):
    """The name of a check, whether it passed, and what was found."""

    name: str
    ok: bool
    text: str
