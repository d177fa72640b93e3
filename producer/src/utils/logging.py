"""Logging: one JSON object a line for machines, or plain text for people."""

import io
import logging
import re
import socket
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

from pythonjsonlogger.json import JsonFormatter

REPEATS_ALLOWED_EVERY = 60.0  # seconds

_NUMBER = re.compile(r"\d+(\.\d+)?")
_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "suppressed"}


def configure(
    *, service: str, version: str, level: str = "INFO", style: str = "json", stream: TextIO | None = None
) -> None:
    """Send the whole process's log to `stream` (standard output by default), in UTF-8 whatever the locale says.

    `style` is "json" or "text".
    """
    stream = stream or sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Text() if style == "text" else _Json(service, version))
    handler.addFilter(RepeatedWarnings())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)


class RepeatedWarnings(logging.Filter):
    """Lets the same warning or error through once a minute; the next one says how many were kept back.

    Two are the same when they differ in no more than the numbers in their texts: durations, ports, attempts.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._last: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        now = self._clock()
        key = _identity(record)
        since, suppressed = self._last.get(key, (-REPEATS_ALLOWED_EVERY, 0))
        if now - since < REPEATS_ALLOWED_EVERY:
            self._last[key] = (since, suppressed + 1)
            return False
        self._forget_before(now - REPEATS_ALLOWED_EVERY)
        self._last[key] = (now, 0)
        if suppressed:
            record.suppressed = suppressed
        return True

    def _forget_before(self, instant: float) -> None:
        """Messages with changing texts must not fill the memory."""
        if len(self._last) > 1000:
            self._last = {key: seen for key, seen in self._last.items() if seen[0] > instant}


def _identity(record: logging.LogRecord) -> tuple[object, ...]:
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
        record.time = _utc(record.created)
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
        more = f"  (and {suppressed} more like it)" if suppressed else ""
        line = f"{_utc(record.created)[11:23]} {record.levelname:<7} {record.name}  {record.getMessage()}{fields}{more}"
        return line + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
