"""Exclusive locks on files. On Windows, which has no `flock`, nothing is locked."""

import sys
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl

LOCKS = sys.platform != "win32"


def lock(file: BinaryIO) -> bool:
    """Lock the file; False if another process holds the lock. Closing the file or exiting releases it."""
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
