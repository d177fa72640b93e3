"""The standard streams of a program, which may be closed or on a full disk."""

import io
import os
import signal
import sys
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TextIO

FAILED, INTERRUPTED, OUTPUT_CLOSED = 1, 128 + signal.SIGINT, 128 + signal.SIGPIPE  # exit codes


class OutputError(Exception):
    """Standard output is closed, or cannot be written; raised once, after that output is discarded."""


class StandardStreams:
    """In the block, standard output and standard error raise no errors of the operating system.

    Standard output raises OutputError, which has an exit code. Errors of standard error are ignored. A
    stream that is closed from the start is opened, so that no file or connection takes its number.
    """

    def __init__(self, program: str) -> None:
        self._program = program
        self._streams = sys.stdout, sys.stderr
        self._output: _Output | None = None

    @property
    def exit_code(self) -> int:
        """0 if all output could be written."""
        error = self._output.error if self._output else None
        if error is None:
            return 0
        return OUTPUT_CLOSED if isinstance(error, BrokenPipeError) else FAILED

    def flush(self) -> None:
        """Write everything printed, or find the error."""
        with suppress(OutputError):
            sys.stdout.flush()
        sys.stderr.flush()

    def __enter__(self) -> Self:
        _open_closed_streams()
        if sys.stderr is None or sys.stderr is sys.__stderr__:
            sys.stderr = _text(_Discarding(2), sys.stderr)
        if sys.stdout is None or sys.stdout is sys.__stdout__:
            self._output = _Output(self._program)
            sys.stdout = _text(self._output, sys.stdout)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.flush()
        sys.stdout, sys.stderr = self._streams


class _Discarding(io.FileIO):
    """Discards everything after an error."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.error: OSError | None = None

    def write(self, data: Any, /) -> int:
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
                self.on_error(error)
        return len(data)

    def on_error(self, error: OSError) -> None:
        """Called once."""


class _Output(_Discarding):
    def __init__(self, program: str) -> None:
        super().__init__(1)
        self._program = program

    def on_error(self, error: OSError) -> None:
        """A reader that ends early, such as `head`, is not an error."""
        if not isinstance(error, BrokenPipeError):
            sys.stderr.write(f"{self._program}: cannot write to standard output: {error.strerror}\n")
        raise OutputError(error.strerror) from error


def _text(stream: _Discarding, like: TextIO | None) -> io.TextIOWrapper:
    """Written line by line, so that a reader sees each. A character that the encoding lacks is escaped."""
    return io.TextIOWrapper(
        io.BufferedWriter(stream),
        encoding=like.encoding if like else "utf-8",
        errors="backslashreplace",
        line_buffering=True,
        write_through=isinstance(like, io.TextIOWrapper) and like.write_through,
    )


def _open_closed_streams() -> None:
    """Standard output for reading only: a closed one is an error, not output that is discarded."""
    for descriptor, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
