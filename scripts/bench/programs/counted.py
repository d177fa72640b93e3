"""`python -m bench.programs.counted FILE MODULE ARGUMENT...`: runs a program and counts Python's instructions.

The counts of each function, in all threads, are written to the file at the end. They depend neither on the machine nor
on its load, unlike CPU time, but what libraries do in C counts as the one instruction that calls them.
"""

import json
import runpy
import sys
import threading
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

Trace = Callable[[FrameType, str, Any], Any]


class InstructionCounter:
    """`trace` is a trace function that counts the instructions of the frames that start from now on."""

    def __init__(self) -> None:
        self._counts: dict[CodeType, count[int]] = {}
        self._traces: dict[CodeType, Trace] = {}

    def trace(self, frame: FrameType, _event: str, _argument: Any) -> Trace:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        code = frame.f_code
        if code not in self._traces:
            self._counts[code] = count()
            self._traces[code] = _counting(self._counts[code].__next__)
        return self._traces[code]

    def result(self) -> Counter[str]:
        """The number of instructions by function."""
        found: Counter[str] = Counter()
        for code, counter in self._counts.items():
            found[f"{Path(code.co_filename).stem}.{code.co_qualname}"] += next(counter)
        return found


def _counting(add: Callable[[], object]) -> Trace:
    def on_event(_frame: FrameType, event: str, _argument: Any) -> Trace:
        if event == "opcode":
            add()
        return on_event

    return on_event


def main() -> None:
    file, module, *arguments = sys.argv[1:]
    counter = InstructionCounter()
    sys.argv = [module, *arguments]
    threading.settrace(counter.trace)
    sys.settrace(counter.trace)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        sys.settrace(None)
        Path(file).write_text(json.dumps(counter.result()), encoding="utf-8")


if __name__ == "__main__":
    main()
