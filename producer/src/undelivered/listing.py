"""Prints the messages in the undelivered folder."""

from datetime import datetime
from functools import partial
from pathlib import Path

from src.undelivered.files import count_lines
from src.undelivered.record import from_line
from src.undelivered.segments import corrupt_lines_paths, locked_segment, segment_paths
from src.utils.text import local_text, printable

MAX_VALUE_LENGTH = 200  # characters that are printed of a key or value


def list_messages(folder: Path, *, local: bool = False) -> int:
    """Print every message, and the number of lines in each file of corrupt lines; returns the number of messages.

    Times are in the local time zone or in UTC.
    """
    total = sum(map(partial(_list_segment, local=local), segment_paths(folder)))
    for path in corrupt_lines_paths(folder):
        print(f"{path.name}  {_corrupt_lines(path)}")
    print(f"{total} messages in {folder}")
    return total


def _list_segment(path: Path, *, local: bool) -> int:
    """The segment is locked only for a moment: reading the list may take hours."""
    try:
        with locked_segment(path) as locked:
            in_use = locked is None
        segment = path.open("rb")
    except FileNotFoundError:  # a producer has resent it meanwhile
        return 0
    except OSError as error:
        print(f"{path.name}  (cannot be read: {error.strerror or error})")
        return 0
    print(f"{path.name}{'  (in use)' if in_use else ''}")
    number = 0
    with segment:
        for number, line in enumerate(segment, 1):
            print(f"  {_describe(line, number, local=local)}")
    return number


def _corrupt_lines(path: Path) -> str:
    try:
        return f"{count_lines(path)} corrupt lines, not resent"
    except OSError as error:
        return f"(cannot be read: {error.strerror or error})"


def _describe(line: bytes, number: int, *, local: bool) -> str:
    undelivered = from_line(line)
    if undelivered is None:
        return f"line {number} is corrupt; resend moves it aside"
    record = undelivered.producer_record
    reason = ("rejected: " if undelivered.rejected else "") + printable(undelivered.reason)
    failed_at = _local_time(undelivered.failed_at) if local else printable(undelivered.failed_at)
    return f"{failed_at}  {undelivered.topic}  key={_shorten(record.key)}  {_shorten(record.value)}  {reason}"


def _local_time(text: str) -> str:
    """The text itself if it is not a time: the line may have been edited."""
    try:
        return local_text(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return printable(text)


def _shorten(content: bytes | None) -> str:
    text = "null" if content is None else printable(content.decode(errors="backslashreplace"))
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]}… ({len(content or b'')} bytes)"
