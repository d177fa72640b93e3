"""A pytest plugin: the hypothesis profile `fuzz`, and a time limit for each example.

An example that takes too long fails its test, so that hypothesis shrinks and stores it. If the example cannot be
interrupted because it hangs in C code, or if it crashes the process, it is found in the file with the last example.
"""

import faulthandler
import functools
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase

EXAMPLES, TIMEOUT, FOLDER, MONGODB = "FUZZ_EXAMPLES", "FUZZ_TIMEOUT", "FUZZ_FOLDER", "FUZZ_MONGODB"
PROGRESS = "FUZZ_PROGRESS"
"""The environment variables that `python -m fuzz` sets. PROGRESS is the descriptor of a pipe: the number of tests is
written to it first, and then a line for each test that has ended."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """Before hypothesis' own plugin loads the profile that `--hypothesis-profile` names."""
    Path(os.environ[FOLDER]).mkdir(parents=True, exist_ok=True)
    settings.register_profile(
        "fuzz",
        max_examples=int(os.environ[EXAMPLES]),
        database=DirectoryBasedExampleDatabase(os.environ[FOLDER]),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    limited: set[Callable[..., Any]] = set()
    for item in items:
        handle = getattr(item.obj, "hypothesis", None)
        if handle and handle.inner_test not in limited:
            handle.inner_test = _limited(handle.inner_test, float(os.environ[TIMEOUT]), last_example(os.environ))
            limited.add(handle.inner_test)


def pytest_collection_finish(session: pytest.Session) -> None:
    _write_progress(str(len(session.items)))


def pytest_runtest_logfinish() -> None:
    _write_progress("1")


def _write_progress(line: str) -> None:
    if pipe := os.environ.get(PROGRESS):
        os.write(int(pipe), f"{line}\n".encode())


def last_example(environment: Mapping[str, str]) -> Path:
    return Path(environment[FOLDER]) / "last-example"


def _limited(test: Callable[..., None], timeout: float, path: Path) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        path.write_text(f"{test.__module__}.{test.__qualname__} {kwargs!r}\n", encoding="utf-8")
        with _time_limit(timeout):
            test(*args, **kwargs)

    return run


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def fail(*_: object) -> None:
        pytest.fail(f"hang: the example takes more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(2 * seconds, exit=True, file=2)  # the descriptor: `--capture=sys` leaves it alone
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
