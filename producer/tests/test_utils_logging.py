"""One JSON object per line, whatever is logged."""

import io
import json
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from src.utils.config import ConfigurationError
from src.utils.logging import BACKUPS, FILE_BYTES, REPEAT_INTERVAL, LogFile, RepeatedWarnings, configure

ORDINARY = logging.getLogger("test")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """The log's stream; the configuration of the test run is restored afterwards."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    root.handlers.clear()
    stream = io.StringIO()
    yield stream
    for handler in root.handlers:
        with suppress(OSError):  # the full disk
            handler.close()
    root.handlers[:], root.level = before
    logging.captureWarnings(False)


def logged(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def written(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text(encoding="ascii").splitlines()]


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
def test_any_text_fits_on_one_line(stream: io.StringIO, text: str) -> None:
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
        ORDINARY.exception("stopped by an error")

    assert "ZeroDivisionError" in str(logged(stream)[0]["exc_info"])


def test_lines_below_the_level_are_dropped(stream: io.StringIO) -> None:
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


def test_no_line_is_lost_on_an_ascii_stream() -> None:
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


def test_text_has_the_fields_after_the_message(stream: io.StringIO) -> None:
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
        ORDINARY.exception("stopped by an error")

    assert "ZeroDivisionError" in stream.getvalue()


def test_the_default_stream_is_standard_output(stream: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    configure(service="s", version="1")

    ORDINARY.info("event")
    sys.stdout.flush()

    assert json.loads(capsys.readouterr().out)["message"] == "event"


def test_a_repeated_warning_is_logged_once_a_minute_with_the_number_suppressed() -> None:
    clock = Clock()
    repeated = RepeatedWarnings(clock)
    first = repeated.filter(record("broker 1 unreachable after 3 ms"))
    more = [repeated.filter(record(f"broker 2 unreachable after {n}.5 ms")) for n in range(3)]

    clock.now = REPEAT_INTERVAL
    again = record("broker 1 unreachable after 9 ms")

    assert (first, more, repeated.filter(again)) == (True, [False] * 3, True)
    assert again.__dict__["suppressed"] == 3


def test_text_has_the_number_suppressed_too(stream: io.StringIO) -> None:
    configure(service="s", version="1", style="text", stream=stream)
    handler = logging.getLogger().handlers[0]

    print(handler.format(record("unreachable", levelname="WARNING", suppressed=3)), file=stream)

    assert "(3 similar suppressed)" in stream.getvalue()


def test_warnings_that_differ_in_a_field_are_different() -> None:
    repeated = RepeatedWarnings(Clock())

    assert all(repeated.filter(record("broken line", line=number)) for number in range(3))
    assert repeated.filter(record("broken line", reason="x"))
    assert not repeated.filter(record("broken line", reason="x"))


def test_lines_below_warning_are_never_suppressed() -> None:
    repeated = RepeatedWarnings(Clock())

    assert all(repeated.filter(record("event", logging.INFO)) for _ in range(3))


def test_the_memory_for_warnings_is_bounded() -> None:
    clock = Clock()
    repeated = RepeatedWarnings(clock)
    for number in range(5000):
        clock.now += REPEAT_INTERVAL
        repeated.filter(record("warning", text="x" * number))

    assert len(repeated._last) <= 1001


def test_a_log_file_has_json_whatever_the_format_of_standard_output(stream: io.StringIO, tmp_path: Path) -> None:
    configure(service="s", version="1", style="text", stream=stream, log_dir=str(tmp_path / "logs"))

    ORDINARY.info("event", extra={"stored": 3})

    (line,) = written(tmp_path / "logs" / "s-1.jsonl")
    assert (line["message"], line["stored"], line["service"]) == ("event", 3, "s")
    assert "event  stored=3" in stream.getvalue()


def test_a_repeated_warning_is_suppressed_in_the_file_too(stream: io.StringIO, tmp_path: Path) -> None:
    configure(service="s", version="1", stream=stream, log_dir=str(tmp_path))

    for _ in range(3):
        ORDINARY.warning("unreachable")

    assert len(written(tmp_path / "s-1.jsonl")) == len(logged(stream)) == 1


def test_processes_that_share_a_directory_write_separate_files(tmp_path: Path) -> None:
    first, second = LogFile(tmp_path, "s"), LogFile(tmp_path, "s")
    first.close()

    third = LogFile(tmp_path, "s")

    names = [Path(file.baseFilename).name for file in (first, second, third)]
    second.close()
    third.close()
    assert names == ["s-1.jsonl", "s-2.jsonl", "s-1.jsonl"]


def test_a_file_is_rotated_at_its_size_limit_and_few_backups_are_kept(tmp_path: Path) -> None:
    file = LogFile(tmp_path, "s")
    for _ in range(BACKUPS + 2):
        file.handle(record("x" * FILE_BYTES))
    file.close()

    assert sorted(path.name for path in tmp_path.glob("*.jsonl*")) == ["s-1.jsonl", "s-1.jsonl.1", "s-1.jsonl.2"]


def test_a_directory_that_cannot_be_written_is_a_configuration_error(stream: io.StringIO, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match=r"logging\.log_dir: cannot write to .*LOG_DIR"):
        configure(service="s", version="1", stream=stream, log_dir=str(tmp_path / "file" / "logs"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_is_logged_once_and_stops_nothing(stream: io.StringIO, tmp_path: Path) -> None:
    (tmp_path / "s-1.jsonl").symlink_to("/dev/full")
    configure(service="s", version="1", stream=stream, log_dir=str(tmp_path))

    for number in range(3):
        ORDINARY.info("event", extra={"number": number})

    lines = logged(stream)
    assert [line["number"] for line in lines if line["message"] == "event"] == [0, 1, 2]
    assert [line["reason"] for line in lines if line["message"] == "log file not written"] == [
        "[Errno 28] No space left on device"
    ]
