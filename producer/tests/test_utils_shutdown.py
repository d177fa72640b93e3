"""A signal sets the event, and does nothing else."""

import signal
from threading import Event, Thread, current_thread, main_thread

import pytest

from src.utils.shutdown import stopping_on_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU])
def test_a_signal_sets_the_event(number: signal.Signals) -> None:
    stop = Event()

    with stopping_on_signals(stop):
        signal.raise_signal(number)
        signal.raise_signal(number)

    assert stop.wait(10)


def test_a_signal_does_not_wait_for_the_events_lock_which_the_main_thread_may_hold() -> None:
    setters = []

    class Recorded(Event):
        def set(self) -> None:
            setters.append(current_thread())
            super().set()

    stop = Recorded()
    with stopping_on_signals(stop):
        signal.raise_signal(signal.SIGTERM)

    assert stop.wait(10)
    assert setters != [main_thread()]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGXCPU])
def test_a_signal_that_was_ignored_stays_ignored(number: signal.Signals) -> None:
    stop = Event()
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stopping_on_signals(stop), stopping_on_signals(stop):
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)

    assert not stop.is_set()


def test_the_previous_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)

    with stopping_on_signals(Event()):
        within = signal.getsignal(signal.SIGTERM)

    assert signal.getsignal(signal.SIGTERM) is before
    assert within is not before


def test_in_nested_blocks_a_signal_sets_the_inner_event() -> None:
    outer, inner = Event(), Event()

    with stopping_on_signals(outer):
        with stopping_on_signals(inner):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    assert inner.wait(10)
    assert outer.wait(10)


def test_outside_the_main_thread_no_handler_is_installed() -> None:
    before = signal.getsignal(signal.SIGTERM)
    within = []

    def look() -> None:
        with stopping_on_signals(Event()):
            within.append(signal.getsignal(signal.SIGTERM))

    thread = Thread(target=look)
    thread.start()
    thread.join()

    assert within == [before]
