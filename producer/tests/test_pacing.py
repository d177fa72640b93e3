"""The rate holds, however slow individual sends are."""

import random

import pytest

from src.pacing import MAX_CATCH_UP, Pacer, describe_rate
from tests.fakes import FakeClock

INTERVAL = 3.6  # seconds for 100 messages: 100,000 an hour


def messages_in(seconds: float, *, slowness: list[float]) -> int:
    """Messages sent in this time if each send takes one of these durations."""
    clock = FakeClock()
    pacer = Pacer(INTERVAL, clock)
    rng = random.Random(1)
    end, sent = clock.now + seconds, 0
    while True:
        clock.advance(pacer.seconds_until_due())
        if clock.now >= end:
            return sent
        pacer.advance()
        sent += 100
        clock.advance(rng.choice(slowness))


@pytest.mark.parametrize("slowness", [[0.0], [0.5, 1.0], [0.1, 0.1, 0.1, 8.0]], ids=["fast", "slow", "hiccups"])
def test_the_rate_over_ten_minutes_is_exact_to_half_a_percent(slowness: list[float]) -> None:
    sent = messages_in(600, slowness=slowness)

    assert sent == pytest.approx(100_000 / 6, rel=0.005)


def test_delays_do_not_accumulate_over_ten_hours() -> None:
    assert messages_in(36_000, slowness=[0.0, 2.0, 3.5]) == pytest.approx(1_000_000, abs=100)


def test_an_interval_of_0_is_always_due() -> None:
    clock = FakeClock()
    pacer = Pacer(0, clock)

    waits = []
    for _ in range(3):
        waits.append(pacer.seconds_until_due())
        pacer.advance()

    assert waits == [0, 0, 0]


def test_the_first_batch_is_due_at_once_and_the_next_one_interval_later() -> None:
    clock = FakeClock()
    pacer = Pacer(INTERVAL, clock)

    first = pacer.seconds_until_due()
    pacer.advance()

    assert first == 0
    assert pacer.seconds_until_due() == pytest.approx(INTERVAL)


def test_a_partial_batch_advances_by_a_part_of_the_interval() -> None:
    pacer = Pacer(10.0, FakeClock())

    pacer.advance(0.25)

    assert pacer.seconds_until_due() == pytest.approx(2.5)


def test_after_a_long_delay_it_catches_up_for_the_last_minute_only() -> None:
    clock = FakeClock()
    pacer = Pacer(1.0, clock)
    clock.advance(3600)

    burst = 0
    while not pacer.seconds_until_due():
        pacer.advance()
        burst += 1

    assert burst == MAX_CATCH_UP + 1


def test_it_does_not_catch_up_for_postponed_time() -> None:
    clock = FakeClock()
    pacer = Pacer(1.0, clock)
    clock.advance(30)

    pacer.postpone(0.5)
    wait = pacer.seconds_until_due()
    clock.advance(0.5)
    pacer.advance()

    assert (wait, pacer.seconds_until_due()) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("interval", "size", "text"),
    [
        (3.6, 100, "100 messages every 3.6 s, 27.8 per second, 100,000 per hour"),
        (0, 500, "batches of 500 messages, as fast as possible"),
        (0.036, 100, "100 messages every 0.036 s, 2,777.8 per second, 10,000,000 per hour"),
    ],
)
def test_the_rate_is_described_per_second_and_per_hour(interval: float, size: int, text: str) -> None:
    assert describe_rate(interval, size) == text
