"""What can go wrong with a local run."""


class CannotRun(Exception):
    """The local run can't start or go on. The text is one sentence for the user; exit 2."""
