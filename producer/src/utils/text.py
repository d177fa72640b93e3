"""Text for people: timestamps, and data of other programs on a terminal."""

from datetime import UTC, datetime


def utc_text(instant: float | datetime) -> str:
    """An instant, or its seconds since the epoch, as an ISO 8601 timestamp in UTC: `2023-07-15T12:34:56.789Z`.

    Raises ValueError, OverflowError or OSError for seconds outside of the years 1 to 9999.
    """
    date = instant if isinstance(instant, datetime) else datetime.fromtimestamp(instant, UTC)
    return date.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def local_text(instant: float | datetime) -> str:
    """The same instant in the time zone of this machine: `2023-07-15T14:34:56.789+02:00`. Raises as `utc_text`."""
    date = instant if isinstance(instant, datetime) else datetime.fromtimestamp(instant, UTC)
    return date.astimezone().isoformat(timespec="milliseconds")


def printable(text: str) -> str:
    """The text in one line. Control characters, which could change the terminal, are escaped."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
