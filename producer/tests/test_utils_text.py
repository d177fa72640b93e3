"""Timestamps are in UTC, and control characters are escaped."""

import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.utils.text import printable, utc_text

CONTROLS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_689_424_496.789, "2023-07-15T12:34:56.789Z"),
        (datetime(2023, 7, 15, 12, 34, 56, 789_999, UTC), "2023-07-15T12:34:56.789Z"),
    ],
)
def test_timestamps_are_in_utc_with_milliseconds(instant: float | datetime, text: str) -> None:
    assert utc_text(instant) == text


@given(st.text(st.characters()))
def test_no_control_character_is_printable(text: str) -> None:
    assert not {character for character in printable(text) if unicodedata.category(character) in CONTROLS}


def test_printable_text_stays_as_it_is() -> None:
    assert printable('übel 👾 "\\" \'') == 'übel 👾 "\\" \''
    assert printable("a\n\x1b[31m\u2028") == r"a\n\x1b[31m\u2028"
