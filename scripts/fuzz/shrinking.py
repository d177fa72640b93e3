"""From an input that shows a fault to a smaller one that shows the same."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

TRIES = 400

T = TypeVar("T")


def shrunk(value: T, smaller: Callable[[T], Iterable[T]], fails: Callable[[T], bool]) -> T:
    """The smallest that a limited number of tries leads to."""
    tries = 0
    again = True
    while again:
        again = False
        for candidate in smaller(value):
            tries += 1
            if tries > TRIES:
                return value
            if fails(candidate):
                value, again = candidate, True
                break
    return value


def shorter(content: bytes) -> Iterator[bytes]:
    """Without one part of it: large parts first, in the end single bytes."""
    size = len(content)
    while size:
        size = (size + 1) // 2 if size > 1 else 0
        for begin in range(0, len(content), size) if size > 0 and len(content) // size < TRIES else ():
            yield content[:begin] + content[begin + size :]
