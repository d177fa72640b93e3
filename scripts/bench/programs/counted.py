"""`python -m bench.programs.counted FILE MODULE ARGUMENT...`: runs a program and counts Python's instructions.

The count of all threads is written to the file at the end. It depends neither on the machine nor on its load, unlike
CPU time, but what libraries do in C counts as the one instruction that calls them.
"""

import runpy
import sys
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

Trace = Callable[[FrameType, str, Any], Any]


def counting(add: Callable[[], object]) -> Trace:
    """A trace function that calls `add` for each instruction of the frames that start from now on."""

    def on_event(_frame: FrameType, event: str, _argument: Any) -> Trace:
        if event == "opcode":
            add()
        return on_event

    def on_call(frame: FrameType, _event: str, _argument: Any) -> Trace:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return on_event

    return on_call


def main() -> None:
    file, module, *arguments = sys.argv[1:]
    counter = count()
    trace = counting(counter.__next__)
    sys.argv = [module, *arguments]
    threading.settrace(trace)
    sys.settrace(trace)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        sys.settrace(None)
        Path(file).write_text(str(next(counter)), encoding="utf-8")


if __name__ == "__main__":
    main()
