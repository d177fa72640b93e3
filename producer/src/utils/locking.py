"""A file that one process has for itself. On Windows, which has no `flock`, nothing is locked."""

import sys
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl

LOCKS = sys.platform != "win32"


def lock(file: BinaryIO) -> bool:
    """Whether the lock is ours now; it is let go when the file is closed, however the process ends."""
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
