"""The error of a local run."""


class CannotRun(Exception):
    """The run cannot start or continue. The text is one sentence for the user; exit status 2."""
