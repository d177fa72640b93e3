"""The pace holds, however slow single sends are."""

import random

import pytest

from src.pacing import CATCH_UP, Pacer, describe
from tests.fakes import FakeClock

INTERVAL = 3.6  # seconds for 100 messages: 100,000 an hour


def messages_in(seconds: float, *, slowness: list[float]) -> int:
    """How many messages leave in a time in which each send takes one of these durations."""
    clock = FakeClock()
    pacer = Pacer(INTERVAL, clock)
    chance = random.Random(1)
    end, sent = clock.now + seconds, 0
    while True:
        clock.advance(pacer.wait())
        if clock.now >= end:
            return sent
        pacer.took()
        sent += 100
        clock.advance(chance.choice(slowness))


@pytest.mark.parametrize("slowness", [[0.0], [0.5, 1.0], [0.1, 0.1, 0.1, 8.0]], ids=["fast", "slow", "hiccups"])
def test_a_hundred_thousand_an_hour_over_ten_minutes_within_half_a_percent(slowness: list[float]) -> None:
    sent = messages_in(600, slowness=slowness)

    assert sent == pytest.approx(100_000 / 6, rel=0.005)


def test_over_an_hour_there_is_no_drift() -> None:
    assert messages_in(36_000, slowness=[0.0, 2.0, 3.5]) == pytest.approx(1_000_000, abs=100)


def test_an_interval_of_nothing_is_always_due() -> None:
    clock = FakeClock()
    pacer = Pacer(0, clock)

    waits = []
    for _ in range(3):
        waits.append(pacer.wait())
        pacer.took()

    assert waits == [0, 0, 0]


def test_the_first_batch_is_due_at_once_and_the_next_an_interval_later() -> None:
    clock = FakeClock()
    pacer = Pacer(INTERVAL, clock)

    first = pacer.wait()
    pacer.took()

    assert first == 0
    assert pacer.wait() == pytest.approx(INTERVAL)


def test_a_part_of_a_batch_is_worth_a_part_of_the_interval() -> None:
    pacer = Pacer(10.0, FakeClock())

    pacer.took(0.25)

    assert pacer.wait() == pytest.approx(2.5)


def test_after_a_long_delay_only_the_last_minute_is_made_up_for() -> None:
    clock = FakeClock()
    pacer = Pacer(1.0, clock)
    clock.advance(3600)

    burst = 0
    while not pacer.wait():
        pacer.took()
        burst += 1

    assert burst == CATCH_UP + 1


def test_time_without_anything_to_take_is_not_made_up_for() -> None:
    clock = FakeClock()
    pacer = Pacer(1.0, clock)
    clock.advance(30)

    pacer.idle(0.5)
    wait = pacer.wait()
    clock.advance(0.5)
    pacer.took()

    assert (wait, pacer.wait()) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("interval", "size", "text"),
    [
        (3.6, 100, "100 messages every 3.6 s, 27.8 a second, 100,000 an hour"),
        (0, 500, "500 messages at a time, as fast as it goes"),
        (0.036, 100, "100 messages every 0.036 s, 2,777.8 a second, 10,000,000 an hour"),
    ],
)
def test_the_pace_is_said_in_numbers(interval: float, size: int, text: str) -> None:
    assert describe(interval, size) == text
