"""One JSON object a line, whatever is logged."""

import io
import json
import logging
import re
import sys
import warnings
from collections.abc import Iterator

import pytest

from src.utils.logging import REPEATS_ALLOWED_EVERY, RepeatedWarnings, configure

ORDINARY = logging.getLogger("test")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the log goes; the set-up of the test run is put back afterwards."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    root.handlers.clear()
    stream = io.StringIO()
    yield stream
    root.handlers[:], root.level = before
    logging.captureWarnings(False)


def logged(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def record(message: str, level: int = logging.WARNING, **fields: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "test", "levelno": level, "msg": message, **fields})


def test_a_line_is_a_json_object_with_the_fields_of_the_event(stream: io.StringIO) -> None:
    configure(service="s", version="1", stream=stream)

    ORDINARY.info("batch settled", extra={"stored": 3})

    (line,) = logged(stream)
    assert {name: line[name] for name in ("level", "logger", "message", "service", "version", "stored")} == {
        "level": "INFO",
        "logger": "test",
        "message": "batch settled",
        "service": "s",
        "version": "1",
        "stored": 3,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line["time"]))
    assert line["host"]


@pytest.mark.parametrize("text", ["two\nlines", "\x1b[31m", "\ud800", "\u2028", "Zürich 🚲"])
def test_any_text_stays_on_its_line(stream: io.StringIO, text: str) -> None:
    configure(service="s", version="1", stream=stream)

    ORDINARY.info("event", extra={"text": text})

    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().isascii()
    assert logged(stream)[0]["text"] == text


def test_a_traceback_is_a_field(stream: io.StringIO) -> None:
    configure(service="s", version="1", stream=stream)

    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        ORDINARY.exception("could not go on")

    assert "ZeroDivisionError" in str(logged(stream)[0]["exc_info"])


def test_levels_are_obeyed(stream: io.StringIO) -> None:
    configure(service="s", version="1", level="WARNING", stream=stream)

    ORDINARY.info("quiet")
    ORDINARY.warning("loud")

    assert [line["message"] for line in logged(stream)] == ["loud"]


def test_python_warnings_are_logged(stream: io.StringIO) -> None:
    configure(service="s", version="1", stream=stream)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)

    assert "DeprecationWarning" in str(logged(stream)[0]["message"])


def test_an_ascii_stream_loses_no_line() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    before = logging.getLogger().handlers[:]
    try:
        configure(service="s", version="1", style="text", stream=stream)
        ORDINARY.warning("event", extra={"text": "Zürich \ud800"})
    finally:
        logging.getLogger().handlers[:] = before
        logging.captureWarnings(False)
    stream.flush()

    assert "Zürich \\ud800".encode() in raw.getvalue() or b"Z\xc3\xbcrich" in raw.getvalue()


def test_text_is_for_people(stream: io.StringIO) -> None:
    configure(service="s", version="1", style="text", stream=stream)

    ORDINARY.info("batch settled", extra={"stored": 3, "reason": "a\nb"})

    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3} INFO    test  batch settled  stored=3  reason='a\\nb'\n", stream.getvalue()
    )


def test_text_shows_a_traceback(stream: io.StringIO) -> None:
    configure(service="s", version="1", style="text", stream=stream)

    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        ORDINARY.exception("could not go on")

    assert "ZeroDivisionError" in stream.getvalue()


def test_standard_output_is_where_it_goes(stream: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    configure(service="s", version="1")

    ORDINARY.info("event")
    sys.stdout.flush()

    assert json.loads(capsys.readouterr().out)["message"] == "event"


def test_the_same_warning_comes_once_a_minute_and_then_says_how_many() -> None:
    clock = Clock()
    repeated = RepeatedWarnings(clock)
    first = repeated.filter(record("broker 1 away after 3 ms"))
    more = [repeated.filter(record(f"broker 2 away after {n}.5 ms")) for n in range(3)]

    clock.now = REPEATS_ALLOWED_EVERY
    again = record("broker 1 away after 9 ms")

    assert (first, more, repeated.filter(again)) == (True, [False] * 3, True)
    assert again.__dict__["suppressed"] == 3


def test_how_many_were_kept_back_is_said_in_text_too(stream: io.StringIO) -> None:
    configure(service="s", version="1", style="text", stream=stream)
    handler = logging.getLogger().handlers[0]

    print(handler.format(record("away", levelname="WARNING", suppressed=3)), file=stream)

    assert "(and 3 more like it)" in stream.getvalue()


def test_warnings_that_differ_in_a_field_are_different() -> None:
    repeated = RepeatedWarnings(Clock())

    assert all(repeated.filter(record("broken line", line=number)) for number in range(3))
    assert repeated.filter(record("broken line", reason="x"))
    assert not repeated.filter(record("broken line", reason="x"))


def test_what_is_no_warning_is_never_kept_back() -> None:
    repeated = RepeatedWarnings(Clock())

    assert all(repeated.filter(record("event", logging.INFO)) for _ in range(3))


def test_many_different_warnings_do_not_fill_the_memory() -> None:
    clock = Clock()
    repeated = RepeatedWarnings(clock)
    for number in range(5000):
        clock.now += REPEATS_ALLOWED_EVERY
        repeated.filter(record("warning", text="x" * number))

    assert len(repeated._last) <= 1001
