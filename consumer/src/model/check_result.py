"""What `--check` reports."""

from typing import NamedTuple


class CheckResult(NamedTuple):
    """The name of a check, whether it passed, and what was found. A warning has passed, and is shown as one."""

    name: str
    ok: bool
    text: str
    warning: bool = False

    @property
    def label(self) -> str:
        return ("warn" if self.warning else "ok") if self.ok else "FAIL"
