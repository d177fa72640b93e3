"""Counts dead-lettered messages by reason, partition and time."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from src.dead_letters.entries import Entry

HOURS = timedelta(hours=48)  # the longest time that is divided into hours; a longer one is divided into days

_DAY, _HOUR = "day", "hour"
_UNKNOWN = "-"


class Group(NamedTuple):
    """The messages that have `name` in common. Times are milliseconds since the epoch, None if unknown."""

    by: str
    name: str
    messages: int
    first: int | None
    last: int | None


def summarize(entries: Sequence[Entry], *, local: bool = False) -> list[list[Group]]:
    """The groups by reason, by partition of the original message, and by hour or day; a list for each."""
    period = _period(entries)
    reasons = _groups("reason", entries, lambda entry: entry.reason or _UNKNOWN)
    partitions = _groups("partition", sorted(entries, key=_topic_partition), _partition)
    periods = _groups(period, entries, lambda entry: _start(entry.dead_lettered_at, period, local=local))
    return [sorted(reasons, key=lambda group: -group.messages), partitions, periods]


def _groups(by: str, entries: Sequence[Entry], name_of: Callable[[Entry], str]) -> list[Group]:
    """In the order of their first entries."""
    members: dict[str, list[int | None]] = {}
    for entry in entries:
        members.setdefault(name_of(entry), []).append(entry.dead_lettered_at)
    return [_group(by, name, times) for name, times in members.items()]


def _group(by: str, name: str, times: Sequence[int | None]) -> Group:
    known = [time for time in times if time is not None]
    return Group(by, name, len(times), min(known, default=None), max(known, default=None))


def _topic_partition(entry: Entry) -> tuple[str, int]:
    return entry.position[:2] if entry.position else ("", 0)


def _partition(entry: Entry) -> str:
    return "{} {}".format(*_topic_partition(entry)) if entry.position else _UNKNOWN


def _period(entries: Sequence[Entry]) -> str:
    times = [entry.dead_lettered_at for entry in entries if entry.dead_lettered_at is not None]
    return _DAY if times and max(times) - min(times) > HOURS / timedelta(milliseconds=1) else _HOUR


def _start(milliseconds: int | None, period: str, *, local: bool) -> str:
    """Of the hour or day: `2023-07-15T12:00Z`, `2023-07-15`. Unknown outside of the years 1 to 9999."""
    if milliseconds is None:
        return _UNKNOWN
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone(None if local else UTC)
    except (ValueError, OverflowError, OSError):
        return _UNKNOWN
    if period == _DAY:
        return moment.date().isoformat()
    return moment.replace(minute=0).isoformat(timespec="minutes").replace("+00:00", "Z")
