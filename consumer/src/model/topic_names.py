"""The names of topics, and patterns of them, which librdkafka matches as regular expressions of POSIX."""

import re

NAME = r"^(?!\.{1,2}\Z)[a-zA-Z0-9._-]{1,249}\Z"
PATTERN = r"^\^([a-zA-Z0-9._\-\[\]()|*+?{},^$]|\\\.)*\Z"
"""Only what Python understands as POSIX does: the client matches topics, and the tools have to find the same."""

_NOT_POSIX = re.compile(r"\(\?|[*+?}][+?]|\{(?!\d+(,\d*)?\})")


def check_pattern(pattern: str) -> None:
    """Raises ValueError."""
    if found := _NOT_POSIX.search(pattern):
        raise ValueError(f"`{pattern}` has `{found[0]}`, which is not in POSIX extended regular expressions")
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"`{pattern}` is not a regular expression: {error}") from error


def matches(pattern: str, topic: str) -> bool:
    return re.search(pattern, topic) is not None


def of_whole_names(pattern: str) -> str:
    """The pattern for brokers, which match whole names."""
    return f"^.*({pattern}).*"


def exactly(topic: str) -> str:
    """A pattern that matches this topic only."""
    return f"^{topic.replace('.', '[.]')}$"
