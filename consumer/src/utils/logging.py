"""Logging: one JSON object per line, or plain text for people; to standard output, and optionally to files too."""

import io
import logging
import re
import socket
import sys
import time
from collections.abc import Callable
from itertools import count
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import BinaryIO, TextIO

from pythonjsonlogger.json import JsonFormatter

from src.utils.config import ConfigurationError
from src.utils.locking import lock
from src.utils.output import OutputError
from src.utils.text import utc_text

logger = logging.getLogger(__name__)

REPEAT_INTERVAL = 60.0  # seconds
FILE_BYTES = 10_000_000
BACKUPS = 2  # rotated files, in addition to the current one

_NUMBER = re.compile(r"\d+(\.\d+)?")
_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "suppressed", "time"}


def configure(
    *,
    service: str,
    version: str,
    level: str = "INFO",
    style: str = "json",
    stream: TextIO | None = None,
    log_dir: str = "",
) -> None:
    """Log to `stream` (standard output by default), as UTF-8 regardless of the locale.

    `style` is "json" or "text". With `log_dir`, log to files in that directory too, always as JSON. Raises
    ConfigurationError if they cannot be written.
    """
    stream = stream or sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    json = _Json(service, version)
    handlers: list[logging.Handler] = [_configured(_StreamHandler(stream), _Text() if style == "text" else json)]
    if log_dir:
        handlers.append(_configured(_log_file(Path(log_dir), service), json))
    logging.basicConfig(level=level, handlers=handlers, force=True)
    logging.captureWarnings(True)


def _configured(handler: logging.Handler, formatter: logging.Formatter) -> logging.Handler:
    handler.setFormatter(formatter)
    handler.addFilter(RepeatedWarnings())
    return handler


def _log_file(folder: Path, service: str) -> "LogFile":
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return LogFile(folder, service)
    except OSError as error:
        raise ConfigurationError(
            f"logging.log_dir: cannot write to {str(folder)!r}: {error.strerror}; make it writable, or unset LOG_DIR"
        ) from error


class _StreamHandler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own signature
        """A closed or full standard output must not stop the service; its error was printed once."""
        if not isinstance(sys.exception(), OutputError):
            super().handleError(record)


class LogFile(RotatingFileHandler):
    """`<service>-<number>.jsonl` in a directory that processes share, for a log shipper.

    A process uses the first number that is not locked, and appends to that file: however often processes restart, there
    are no more files than processes at a time. On Windows, which has no `flock`, give each process its own directory.
    """

    def __init__(self, folder: Path, service: str) -> None:
        path, self._lock_file = _first_unlocked(folder, service)
        super().__init__(path, maxBytes=FILE_BYTES, backupCount=BACKUPS, encoding="ascii")

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._lock_file.close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - logging's own signature
        """A full disk must not stop the service: the line is on standard output; a warning follows."""
        logger.warning("log file not written", extra={"reason": str(sys.exception())})


def _first_unlocked(folder: Path, service: str) -> tuple[Path, BinaryIO]:
    for number in count(1):
        path = folder / f"{service}-{number}.jsonl"
        lock_file = path.with_suffix(".lock").open("wb")
        if lock(lock_file):
            break
        lock_file.close()
    return path, lock_file


class RepeatedWarnings(logging.Filter):
    """Passes the same warning or error once a minute; the next one has the number of those suppressed since.

    Two are the same if they differ only in the numbers in their texts: durations, ports, attempts.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._last: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        now = self._clock()
        key = _key(record)
        since, suppressed = self._last.get(key, (-REPEAT_INTERVAL, 0))
        if now - since < REPEAT_INTERVAL:
            self._last[key] = (since, suppressed + 1)
            return False
        self._forget_before(now - REPEAT_INTERVAL)
        self._last[key] = (now, 0)
        if suppressed:
            record.suppressed = suppressed
        return True

    def _forget_before(self, instant: float) -> None:
        """Messages with changing texts must not exhaust the memory."""
        if len(self._last) > 1000:
            self._last = {key: seen for key, seen in self._last.items() if seen[0] > instant}


def _key(record: logging.LogRecord) -> tuple[object, ...]:
    fields = (value for name, value in vars(record).items() if name not in _OWN_FIELDS)
    texts = (_NUMBER.sub("#", value) if isinstance(value, str) else repr(value) for value in fields)
    return (record.name, record.levelno, _NUMBER.sub("#", record.getMessage()), *texts)


class _Json(JsonFormatter):
    """`{"time", "level", "logger", "message", "service", "version", "host"}` and the fields of the event."""

    def __init__(self, service: str, version: str) -> None:
        super().__init__(
            "{time}{levelname}{name}{message}",
            style="{",
            rename_fields={"levelname": "level", "name": "logger"},
            static_fields={"service": service, "version": version, "host": socket.gethostname()},
            json_ensure_ascii=True,
        )

    def format(self, record: logging.LogRecord) -> str:
        record.time = utc_text(record.created)
        return super().format(record)


class _Text(logging.Formatter):
    """`12:34:56.789 INFO  consumer  batch settled  stored=100`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(
            f"  {name}={value!r}" if isinstance(value, str) else f"  {name}={value}"
            for name, value in vars(record).items()
            if name not in _OWN_FIELDS
        )
        suppressed = getattr(record, "suppressed", 0)
        more = f"  ({suppressed} similar suppressed)" if suppressed else ""
        time = utc_text(record.created)[11:23]
        line = f"{time} {record.levelname:<7} {record.name}  {record.getMessage()}{fields}{more}"
        return line + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")
