"""Feeds one target, in a process of its own, in the folder of the service that it belongs to.

Says on standard output, a JSON object a line, what became of each chunk of inputs, and what was found. An input that
takes too long ends the process, by the alarm's own default, whatever code it is in; which one it was stands in the
progress file.
"""

import argparse
import json
import logging
import mmap
import signal
import struct
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Generic

from fuzz.chance import Chance
from fuzz.shrinking import shrunk
from fuzz.target import Input, Target

CHUNK = 500  # inputs between two reports
_POSITION = struct.Struct("<q")


class Worker(Generic[Input]):
    def __init__(self, name: str, target: Target[Input], options: argparse.Namespace) -> None:
        self._name = name
        self._target = target
        self._options = options
        self._at_once = 1 if options.one_by_one else target.at_once

    def run(self) -> None:
        last = self._options.first + self._options.count
        with Progress(self._options.progress) as progress, closing(self._target):
            for begin in range(self._options.first, last, CHUNK):
                outcomes, findings = self._feed(range(begin, min(last, begin + CHUNK)), progress)
                _tell({"next": min(last, begin + CHUNK), "outcomes": outcomes, "findings": findings})

    def _feed(self, indexes: range, progress: "Progress") -> tuple[Counter[str], list[Mapping[str, Any]]]:
        outcomes: Counter[str] = Counter()
        findings: list[Mapping[str, Any]] = []
        wanted = [index for index in indexes if index not in self._options.skip]
        for begin in range(0, len(wanted), self._at_once):
            batch = wanted[begin : begin + self._at_once]
            progress.note(batch[0])
            signal.setitimer(signal.ITIMER_REAL, self._options.deadline)
            inputs = [self._made(index) for index in batch]
            try:
                outcomes += self._target.check(inputs)
            except Exception as error:  # noqa: BLE001 - whatever comes out is what is looked for
                signal.setitimer(signal.ITIMER_REAL, 0)
                outcomes["WRONG"] += len(batch)
                findings.append(self._finding(batch, inputs, error))
        signal.setitimer(signal.ITIMER_REAL, 0)
        return outcomes, findings

    def _made(self, index: int) -> Input:
        return self._target.make(Chance.of(self._options.seed, self._name, index), index)

    def _finding(self, batch: Sequence[int], inputs: Sequence[Input], error: Exception) -> Mapping[str, Any]:
        """The one that is to blame, made as small as can be; the first where only all together show it."""
        for index, value in zip(batch, inputs, strict=True):
            if (alone := self._failure([value])) is not None:
                small = self._smallest(value, _kind(alone))
                return self._described(index, value, small, self._failure([small]) or alone)
        return self._described(batch[0], inputs[0], inputs[0], error, together=len(batch))

    def _smallest(self, value: Input, kind: str) -> Input:
        return shrunk(value, self._target.smaller, lambda each: _kind(self._failure([each])) == kind)

    def _failure(self, inputs: Sequence[Input]) -> Exception | None:
        try:
            self._target.check(inputs)
        except Exception as error:  # noqa: BLE001 - see above
            return error
        return None

    def _described(
        self, index: int, value: Input, small: Input, error: Exception, together: int = 1
    ) -> Mapping[str, Any]:
        return {
            "index": index,
            "together": together,
            "problem": f"{type(error).__name__}: {error}",
            "trace": "".join(traceback.format_exception(error)),
            "input": self._target.shown(value),
            "smallest": self._target.shown(small),
        }


def _kind(error: Exception | None) -> str:
    """The same for the same fault, whatever the input."""
    return f"{type(error).__name__}: {error}"[:30]


class Progress:
    """Where the worker is, for whoever finds it dead."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), _POSITION.size)

    def note(self, index: int) -> None:
        _POSITION.pack_into(self._map, 0, index)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._map.close()
        self._file.close()


def prepare_progress(path: Path, index: int) -> None:
    path.write_bytes(_POSITION.pack(index))


def read_progress(path: Path) -> int:
    return int(_POSITION.unpack(path.read_bytes())[0])


def main(service: str, targets: Mapping[str, Callable[[argparse.Namespace], Target[Any]]]) -> int:
    """`python -m fuzz.<service>`."""
    options = _parser(service, targets).parse_args()
    logging.disable(logging.CRITICAL)
    Worker(options.target, targets[options.target](options), options).run()
    return 0


def _parser(service: str, targets: Mapping[str, object]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m fuzz.{service}")
    parser.add_argument("target", choices=targets)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--skip", type=int, action="append", default=[])
    parser.add_argument("--one-by-one", action="store_true")
    parser.add_argument("--deadline", type=float, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--progress", type=Path, required=True)
    parser.add_argument("--mongodb", default="")
    return parser


def _tell(report: Mapping[str, Any]) -> None:
    print(json.dumps(report), flush=True)


def chunks(lines: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    """What workers have said; a line that a death has cut off is not counted."""
    for line in lines:
        if line.endswith(b"\n"):
            yield json.loads(line)
