"""When so many messages would be dead-lettered that something else must be wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.pipeline.circuit_breaker import WINDOW, CircuitBreaker

DEAD, ALIVE = True, False


def test_it_stays_closed_until_it_knows_a_window_of_verdicts() -> None:
    breaker = CircuitBreaker(limit=80)

    assert breaker.admit([DEAD] * (WINDOW - 1)) == WINDOW - 1
    assert not breaker.open
    assert breaker.admit([DEAD]) == 0
    assert breaker.open


def test_the_share_that_is_allowed_is_allowed_and_one_more_is_not() -> None:
    breaker = CircuitBreaker(limit=80)

    assert breaker.admit([ALIVE] * 200 + [DEAD] * 800) == 1000
    assert breaker.admit([ALIVE] * 100) == 100
    assert breaker.dead_letters == 800
    assert breaker.admit([DEAD, DEAD]) == 0
    assert (breaker.dead_letters, breaker.open) == (801, True)


def test_what_comes_before_the_dead_letter_that_opens_it_is_admitted() -> None:
    breaker = CircuitBreaker(limit=50, window=4)

    assert breaker.admit([ALIVE, ALIVE, DEAD, DEAD, ALIVE, DEAD, DEAD, ALIVE]) == 5


def test_a_good_message_that_completes_the_window_is_admitted_though_it_opens() -> None:
    breaker = CircuitBreaker(limit=50, window=4)

    assert breaker.admit([DEAD, DEAD, DEAD, ALIVE]) == 4
    assert breaker.open


def test_a_storm_within_a_batch_longer_than_the_window_is_met() -> None:
    breaker = CircuitBreaker(limit=80)

    admitted = breaker.admit([ALIVE] * 2000 + [DEAD] * 1000 + [ALIVE] * 7000)

    assert admitted == 2800


def test_it_closes_when_the_share_falls_to_what_is_allowed() -> None:
    breaker = CircuitBreaker(limit=80, window=10)
    breaker.admit([DEAD] * 10)

    breaker.count(ALIVE)
    assert breaker.open
    breaker.count(ALIVE)

    assert not breaker.open


def test_with_a_limit_of_100_it_never_opens() -> None:
    breaker = CircuitBreaker(limit=100)

    assert breaker.admit([DEAD] * 3 * WINDOW) == 3 * WINDOW


@pytest.mark.parametrize(("dead_letters", "messages", "exceeded"), [(8, 10, False), (9, 10, True), (0, 0, False)])
def test_a_share_equal_to_the_limit_is_within_it(dead_letters: int, messages: int, exceeded: bool) -> None:
    assert CircuitBreaker(limit=80).exceeded_by(dead_letters, messages) is exceeded


@given(st.lists(st.booleans(), max_size=80), st.integers(1, 100), st.integers(1, 12))
def test_it_is_open_exactly_when_a_full_window_has_more_dead_letters_than_allowed(
    verdicts: list[bool], limit: int, window: int
) -> None:
    breaker = CircuitBreaker(limit, window)

    for number, verdict in enumerate(verdicts, start=1):
        breaker.count(verdict)

        last = verdicts[max(0, number - window) : number]
        assert breaker.open == (len(last) == window and sum(last) / window > limit / 100)


@given(st.lists(st.lists(st.booleans(), max_size=9), max_size=20), st.integers(1, 100), st.integers(1, 12))
def test_no_dead_letter_is_admitted_that_takes_a_full_window_above_the_limit_and_no_other_is_held(
    batches: list[list[bool]], limit: int, window: int
) -> None:
    breaker = CircuitBreaker(limit, window)
    seen: list[bool] = []

    for batch in batches:
        admitted = breaker.admit(batch)

        for position, verdict in enumerate(batch[: admitted + 1]):
            seen.append(verdict)
            last = seen[-window:]
            above = len(last) == window and sum(last) * 100 > limit * window
            assert (position == admitted) == (verdict and above)
        if breaker.open:
            break
