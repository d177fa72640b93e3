"""Progress on a terminal, in a pipe, and not at all."""

from io import StringIO

import pytest

from src.utils.progress import ProgressLine, describe
from tests.fakes import FakeClock


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def shown_by(stream: StringIO, *, quiet: bool = False) -> str:
    """After 30 of 100 items, one per second."""
    clock = FakeClock()
    progress = ProgressLine("audit", quiet=quiet, stream=stream, clock=clock)

    for _ in progress.track("topic", range(30), 100):
        clock.now += 1.0

    return stream.getvalue()


def test_on_a_terminal_one_line_is_updated_and_erased() -> None:
    shown = shown_by(Terminal())

    assert shown.startswith("\r\x1b[Kaudit: topic: 1 of 100 (1 %), 1/s, 1 min 39 s left\r\x1b[K")
    assert shown.endswith("\r\x1b[K")
    assert "\n" not in shown


def test_elsewhere_a_line_is_written_every_ten_seconds() -> None:
    assert shown_by(StringIO()).splitlines() == [
        "audit: topic: 10 of 100 (10 %), 1/s, 1 min 30 s left",
        "audit: topic: 20 of 100 (20 %), 1/s, 1 min 20 s left",
        "audit: topic: 30 of 100 (30 %), 1/s, 1 min 10 s left",
    ]


def test_quiet_shows_nothing() -> None:
    assert shown_by(Terminal(), quiet=True) == ""


@pytest.mark.parametrize(
    ("done", "total", "elapsed", "text"),
    [
        (5000, None, 2.0, "5,000, 2,500/s"),
        (0, 100, 2.0, "0 of 100 (0 %), 0/s"),
        (0, 0, 0.0, "0, 0/s"),
        (120, 100, 2.0, "120 of 100 (100 %), 60/s, 0 s left"),
    ],
)
def test_progress_is_described_as_far_as_it_is_known(done: int, total: int | None, elapsed: float, text: str) -> None:
    assert describe(done, total, elapsed) == text
