"""Dead letters as text for people, or as JSON lines. Control characters in a message are always escaped."""

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from src.dead_letters.dead_letter import (
    ATTEMPTS,
    EXCEPTION_CLASS,
    EXCEPTION_MESSAGE,
    FIRST_FAILURE,
    LAST_FAILURE,
    REASON,
    STACKTRACE,
    STAGE,
    TIMESTAMP,
    header_text,
    original_headers,
    original_position,
    original_timestamp,
    read_replays,
)
from src.dead_letters.entries import Entry, State
from src.dead_letters.summary import Group
from src.model.header_names import as_bytes
from src.model.position import MessagePosition
from src.model.record import Record
from src.utils.text import local_text, printable, utc_text

KEY_WIDTH = 36  # a UUID
VALUE_WIDTH = 60

_COLUMNS = ("DEAD-LETTERED AT", "STATE", "REASON", "MESSAGE", "DEAD LETTER", "COPIES", "REPLAYS", "KEY", "VALUE")


def quoted(content: bytes | None) -> str:
    return "null" if content is None else f'"{_text(content)}"'


def table(entries: Sequence[Entry], *, local: bool = False) -> Iterator[str]:
    """A heading, and one line per entry."""
    return _aligned([_COLUMNS, *(_row(entry, local=local) for entry in entries)])


def summary_table(groups: Sequence[Group], *, local: bool = False) -> Iterator[str]:
    """A heading, and one line per group."""
    heading = (groups[0].by.upper(), "MESSAGES", "FIRST DEAD-LETTERED AT", "LAST DEAD-LETTERED AT")
    return _aligned([heading, *(_group_row(group, local=local) for group in groups)])


def details(record: Record, state: State, *, local: bool = False) -> Iterator[str]:
    """The whole dead letter."""
    for name, text in _fields(record, state, local=local):
        yield f"{name:<14}{text}"
    headers = original_headers(record.headers)
    yield from _section("headers", (f"{_text(as_bytes(name))}: {quoted(content)}" for name, content in headers))
    stacktrace = (header_text(record.headers, STACKTRACE) or "").strip("\n")
    yield from _section("stacktrace", map(printable, stacktrace.split("\n")) if stacktrace else ())


def entry_as_json(entry: Entry) -> str:
    return json.dumps(
        {
            "state": entry.state,
            "reason": entry.reason or None,
            **_position_as_json(entry.position),
            "dead_lettered_at": _time(entry.dead_lettered_at),
            "dead_letter": {"partition": entry.dead_letter.partition, "offset": entry.dead_letter.offset},
            "copies": entry.copies,
            "replays": entry.replays.times,
            "first_failure": entry.replays.first_failure or None,
            "key": _content(entry.key),
            "value_prefix": _content(entry.value_prefix),
            "value_bytes": entry.value_size,
        }
    )


def group_as_json(group: Group) -> str:
    first, last = _time(group.first), _time(group.last)
    return json.dumps(
        {
            "by": group.by,
            "name": group.name,
            "messages": group.messages,
            "first_dead_lettered_at": first,
            "last_dead_lettered_at": last,
        }
    )


def record_as_json(record: Record, state: State) -> str:
    texts = {
        "reason": REASON,
        "stage": STAGE,
        "exception_class": EXCEPTION_CLASS,
        "exception_message": EXCEPTION_MESSAGE,
        "stacktrace": STACKTRACE,
        "attempts": ATTEMPTS,
        "first_failure": FIRST_FAILURE,
        "last_failure": LAST_FAILURE,
        "timestamp_ms": TIMESTAMP,
    }
    headers = original_headers(record.headers)
    return json.dumps(
        {
            "state": state,
            **_position_as_json(original_position(record.headers)),
            **{name: header_text(record.headers, header) for name, header in texts.items()},
            "dead_lettered_at": _time(record.timestamp),
            "dead_letter": {"partition": record.partition, "offset": record.offset},
            "replays": read_replays(record.headers).times,
            "key": _content(record.key),
            "value": _content(record.value),
            "headers": [[_content(as_bytes(name)), _content(content)] for name, content in headers],
        }
    )


def _row(entry: Entry, *, local: bool) -> tuple[str, ...]:
    return (
        _time(entry.dead_lettered_at, local=local) or "-",
        entry.state,
        _truncated(entry.reason or "-", VALUE_WIDTH),
        _position(entry.position),
        f"{entry.dead_letter.partition}:{entry.dead_letter.offset}",
        str(entry.copies),
        str(entry.replays.times),
        _truncated(quoted(entry.key), KEY_WIDTH + 2),
        _truncated(quoted(entry.value_prefix), VALUE_WIDTH),
    )


def _group_row(group: Group, *, local: bool) -> tuple[str, ...]:
    first, last = _time(group.first, local=local) or "-", _time(group.last, local=local) or "-"
    return _truncated(group.name, VALUE_WIDTH), str(group.messages), first, last


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _fields(record: Record, state: State, *, local: bool) -> Iterator[tuple[str, str]]:
    def header(name: str) -> str:
        return printable(header_text(record.headers, name) or "-")

    def time(text: str) -> str:
        return _local_time(text) if local else text

    replays = read_replays(record.headers)
    message = _position(original_position(record.headers))
    yield (
        "dead letter",
        f"{record.topic} {record.partition}:{record.offset}, {_time(record.timestamp, local=local) or '-'}",
    )
    yield "message", f"{message}, {_time(original_timestamp(record.headers), local=local) or 'no timestamp'}"
    yield "state", state
    yield "reason", f"{header(REASON)}, stage {header(STAGE)}"
    yield "error", f"{header(EXCEPTION_CLASS)}: {header(EXCEPTION_MESSAGE)}"
    first, last = time(header(FIRST_FAILURE)), time(header(LAST_FAILURE))
    yield "attempts", f"{header(ATTEMPTS)}, first failure {first}, last failure {last}"
    yield (
        "replays",
        f"{replays.times}, first failure {time(printable(replays.first_failure))}" if replays.times else "0",
    )
    yield "key", quoted(record.key)
    yield "value", quoted(record.value)


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    lines = list(lines)
    yield f"{title:<14}{'' if lines else '-'}".rstrip()
    for line in lines:
        yield f"  {line}".rstrip()


def _position(position: MessagePosition | None) -> str:
    if position is None:
        return "-"
    return f"{_truncated(position.topic, VALUE_WIDTH)} {position.partition}:{position.offset}"


def _time(milliseconds: int | None, *, local: bool = False) -> str | None:
    """As text; as the number itself outside of the years 1 to 9999, because a producer may write any timestamp."""
    if milliseconds is None:
        return None
    try:
        return (local_text if local else utc_text)(milliseconds / 1000)
    except (ValueError, OverflowError, OSError):
        return str(milliseconds)


def _local_time(text: str) -> str:
    """Of a timestamp in a header; any other text is unchanged."""
    try:
        return local_text(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return text


def _text(content: bytes) -> str:
    return printable(content.decode(errors="backslashreplace"))


def _truncated(text: str, width: int) -> str:
    text = printable(text)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _position_as_json(position: MessagePosition | None) -> dict[str, Any]:
    return {"topic": None, "partition": None, "offset": None} if position is None else position._asdict()


def _content(content: bytes | None) -> str | dict[str, str] | None:
    """Text, or base64 for what is not UTF-8."""
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}
