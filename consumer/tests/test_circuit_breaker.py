"""The breaker opens when too many of the latest messages are dead letters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.pipeline.circuit_breaker import WINDOW, CircuitBreaker

DEAD, STORED = True, False


def test_it_stays_closed_until_the_window_is_full() -> None:
    breaker = CircuitBreaker(limit=80)

    assert breaker.admit([DEAD] * (WINDOW - 1)) == WINDOW - 1
    assert not breaker.open
    assert breaker.admit([DEAD]) == 0
    assert breaker.open


def test_it_opens_with_the_first_dead_letter_above_the_limit() -> None:
    breaker = CircuitBreaker(limit=80, window=1000)

    assert breaker.admit([STORED] * 200 + [DEAD] * 800) == 1000
    assert breaker.admit([STORED] * 100) == 100
    assert breaker.dead_letters == 800
    assert breaker.admit([DEAD, DEAD]) == 0
    assert (breaker.dead_letters, breaker.open) == (801, True)


def test_messages_before_the_dead_letter_that_opens_it_are_admitted() -> None:
    breaker = CircuitBreaker(limit=50, window=4)

    assert breaker.admit([STORED, STORED, DEAD, DEAD, STORED, DEAD, DEAD, STORED]) == 5


def test_a_stored_message_that_fills_the_window_is_admitted_although_the_breaker_opens() -> None:
    breaker = CircuitBreaker(limit=50, window=4)

    assert breaker.admit([DEAD, DEAD, DEAD, STORED]) == 4
    assert breaker.open


def test_it_opens_within_a_batch_that_is_longer_than_the_window() -> None:
    breaker = CircuitBreaker(limit=80, window=1000)

    admitted = breaker.admit([STORED] * 2000 + [DEAD] * 1000 + [STORED] * 7000)

    assert admitted == 2800


def test_it_closes_when_the_share_falls_to_the_limit() -> None:
    breaker = CircuitBreaker(limit=80, window=10)
    breaker.admit([DEAD] * 10)

    breaker.count(STORED)
    assert breaker.open
    breaker.count(STORED)

    assert not breaker.open


def test_with_a_limit_of_100_it_never_opens() -> None:
    breaker = CircuitBreaker(limit=100)

    assert breaker.admit([DEAD] * 3 * WINDOW) == 3 * WINDOW


@pytest.mark.parametrize(("dead_letters", "messages", "exceeded"), [(8, 10, False), (9, 10, True), (0, 0, False)])
def test_a_share_equal_to_the_limit_does_not_exceed_it(dead_letters: int, messages: int, exceeded: bool) -> None:
    assert CircuitBreaker(limit=80).exceeded_by(dead_letters, messages) is exceeded


@given(st.lists(st.booleans(), max_size=80), st.integers(1, 100), st.integers(1, 12))
def test_it_is_open_if_and_only_if_the_share_in_a_full_window_is_above_the_limit(
    messages: list[bool], limit: int, window: int
) -> None:
    breaker = CircuitBreaker(limit, window)

    for number, is_dead_letter in enumerate(messages, start=1):
        breaker.count(is_dead_letter)

        last = messages[max(0, number - window) : number]
        assert breaker.open == (len(last) == window and sum(last) / window > limit / 100)


@given(st.lists(st.lists(st.booleans(), max_size=9), max_size=20), st.integers(1, 100), st.integers(1, 12))
def test_only_a_dead_letter_that_takes_a_full_window_above_the_limit_is_not_admitted(
    batches: list[list[bool]], limit: int, window: int
) -> None:
    breaker = CircuitBreaker(limit, window)
    seen: list[bool] = []

    for batch in batches:
        admitted = breaker.admit(batch)

        for position, is_dead_letter in enumerate(batch[: admitted + 1]):
            seen.append(is_dead_letter)
            last = seen[-window:]
            above = len(last) == window and sum(last) * 100 > limit * window
            assert (position == admitted) == (is_dead_letter and above)
        if breaker.open:
            break
