"""What `--check` reports."""

from typing import NamedTuple


class CheckResult(NamedTuple):
    """The name of what was checked, whether it is as the service needs it, and what was found."""

    name: str
    ok: bool
    text: str
