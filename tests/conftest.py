"""What several files of tests share."""

from tests.stack import stack

__all__ = ["stack"]
