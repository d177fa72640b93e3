"""Dead letters on a terminal, or as JSON lines. No byte of a payload reaches the terminal as a control character."""

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from src.dead_letters.entries import Entry
from src.dead_letters.letter import (
    ATTEMPTS,
    EXCEPTION,
    FIRST_FAILURE,
    LAST_FAILURE,
    REASON,
    STAGE,
    TEXT,
    TIMESTAMP,
    TRACE,
    Origin,
    own_headers,
    read_origin,
    read_replays,
    text_of,
    utc,
)
from src.model.header_names import as_bytes
from src.model.record import Record

KEY_WIDTH = 36  # a UUID
VALUE_WIDTH = 60

_COLUMNS = ("PARKED AT", "STATE", "REASON", "ORIGIN", "LETTER", "LETTERS", "REPLAYS", "KEY", "VALUE")


def escaped(text: str) -> str:
    """The text in one line, with an escape for whatever a terminal would obey instead of showing."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shown(content: bytes | None) -> str:
    return "null" if content is None else f'"{_text(content)}"'


def table(entries: Sequence[Entry]) -> Iterator[str]:
    """A line an entry, under a line of names."""
    rows = [_COLUMNS, *(_row(entry) for entry in entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def page(record: Record) -> Iterator[str]:
    """Everything that a letter says."""
    for name, text in _facts(record):
        yield f"{name:<14}{text}"
    yield from _section(
        "own headers", (f"{_text(as_bytes(name))}: {shown(text)}" for name, text in own_headers(record.headers))
    )
    trace = (text_of(record.headers, TRACE) or "").strip("\n")
    yield from _section("trace", map(escaped, trace.split("\n")) if trace else ())


def entry_as_json(entry: Entry) -> str:
    return _json(
        {
            "state": entry.state,
            "reason": entry.reason or None,
            **_origin(entry.origin),
            "parked_at": _time(entry.parked_at),
            "dead_letter": entry.place._asdict(),
            "letters": entry.letters,
            "replays": entry.replays.times,
            "first_failure": entry.replays.since or None,
            "key": _content(entry.key),
            "value_begins": _content(entry.value),
            "value_bytes": entry.size,
        }
    )


def record_as_json(record: Record) -> str:
    replays = read_replays(record.headers)
    texts = {"reason": REASON, "stage": STAGE, "exception": EXCEPTION, "text": TEXT, "attempts": ATTEMPTS}
    times = {"first_failure": FIRST_FAILURE, "last_failure": LAST_FAILURE, "timestamp_ms": TIMESTAMP, "trace": TRACE}
    return _json(
        {
            **_origin(read_origin(record.headers)),
            **{name: text_of(record.headers, header) for name, header in (texts | times).items()},
            "parked_at": _time(record.timestamp),
            "dead_letter": {"partition": record.partition, "offset": record.offset},
            "replays": replays.times,
            "key": _content(record.key),
            "value": _content(record.value),
            "headers": [[_content(as_bytes(name)), _content(content)] for name, content in own_headers(record.headers)],
        }
    )


def _row(entry: Entry) -> tuple[str, ...]:
    return (
        _time(entry.parked_at) or "-",
        entry.state,
        _cut(entry.reason or "-", VALUE_WIDTH),
        _place(entry.origin),
        f"{entry.place.partition}:{entry.place.offset}",
        str(entry.letters),
        str(entry.replays.times),
        _cut(shown(entry.key), KEY_WIDTH + 2),
        _cut(shown(entry.value), VALUE_WIDTH),
    )


def _facts(record: Record) -> Iterator[tuple[str, str]]:
    def said(name: str) -> str:
        return escaped(text_of(record.headers, name) or "-")

    replays = read_replays(record.headers)
    yield "dead letter", f"{record.topic} {record.partition}:{record.offset}, {_time(record.timestamp) or '-'}"
    yield "origin", f"{_place(read_origin(record.headers))}, {_instant(text_of(record.headers, TIMESTAMP))}"
    yield "reason", f"{said(REASON)}, stage {said(STAGE)}"
    yield "error", f"{said(EXCEPTION)}: {said(TEXT)}"
    yield "attempts", f"{said(ATTEMPTS)}, first failure {said(FIRST_FAILURE)}, last failure {said(LAST_FAILURE)}"
    yield "replays", f"{replays.times}, first failure {escaped(replays.since)}" if replays.times else "0"
    yield "key", shown(record.key)
    yield "value", shown(record.value)


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    lines = list(lines)
    yield f"{title:<14}{'' if lines else '-'}".rstrip()
    for line in lines:
        yield f"  {line}".rstrip()


def _place(origin: Origin | None) -> str:
    return f"{_cut(origin.topic, VALUE_WIDTH)} {origin.partition}:{origin.offset}" if origin else "-"


def _instant(milliseconds: str | None) -> str:
    return _time(int(milliseconds)) or "-" if milliseconds and milliseconds.isdecimal() else "no time"


def _time(milliseconds: int | None) -> str | None:
    """The instant; its number where no calendar holds it, for a producer may write anything."""
    if milliseconds is None:
        return None
    try:
        return utc(milliseconds / 1000)
    except (ValueError, OverflowError, OSError):
        return str(milliseconds)


def _text(content: bytes) -> str:
    return escaped(content.decode(errors="backslashreplace"))


def _cut(text: str, width: int) -> str:
    text = escaped(text)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _origin(origin: Origin | None) -> dict[str, Any]:
    return {"topic": None, "partition": None, "offset": None} if origin is None else origin._asdict()


def _content(content: bytes | None) -> str | dict[str, str] | None:
    """Text where it is text, else base64 under a name that says so."""
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value).replace("\x7f", "\\u007f")
