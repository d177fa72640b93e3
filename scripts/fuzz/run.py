"""A process a target; one that dies of an input is started again behind it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fuzz.options import Options, Task
from fuzz.worker import chunks, prepare_progress, read_progress

ROOT = Path(__file__).resolve().parent.parent.parent
ENOUGH = 10  # findings of a target, after which it is left alone
AT_A_TIME = 2  # targets

Command = Callable[[Task], Sequence[str]]


@dataclass
class Report:
    """What became of a target's inputs."""

    task: Task
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[Mapping[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def inputs(self) -> int:
        return sum(self.outcomes.values())


def program(task: Task) -> Sequence[str]:
    return [sys.executable, "-m", f"fuzz.{task.service}"]


def run(options: Options, results: Path, command: Command = program) -> int:
    """The exit status. Findings go into files under `results`."""
    print(f"seed {options.seed}; to repeat: scripts/fuzz.sh --seed {options.seed} --messages {options.messages}")
    with ThreadPoolExecutor(AT_A_TIME) as executor:
        reports = list(executor.map(lambda task: _fed(task, options, command), options.tasks))
    for report in reports:
        _print(report)
        for finding in report.findings:
            _keep(finding, report.task, options, results)
    found = sum(len(report.findings) for report in reports)
    print(f"{'FAIL' if found else 'PASS'}: {sum(r.inputs for r in reports):,} inputs, {found} findings")
    return 1 if found else 0


def _fed(task: Task, options: Options, command: Command) -> Report:
    report = Report(task)
    began = time.monotonic()
    with _folder() as folder:
        Feeding(report, options, folder, command(task)).run()
    report.seconds = time.monotonic() - began
    return report


class Feeding:
    """One target's inputs, through as many processes as it takes."""

    def __init__(self, report: Report, options: Options, folder: Path, command: Sequence[str]) -> None:
        self._report = report
        self._options = options
        self._folder = folder
        self._command = command
        self._progress = folder / "progress"
        self._skip: list[int] = []
        first = options.at or 0
        self._next = first
        self._end = first + 1 if options.at is not None else max(1, options.messages // report.task.share)

    def run(self) -> None:
        one_by_one = False
        while self._next < self._end and len(self._report.findings) < ENOUGH:
            code, said = self._work(one_by_one)
            if code == 0:
                continue
            if not one_by_one and code < 0:
                one_by_one = True  # the same again, to know which of the batch it was
            else:
                self._died(code, said)
                one_by_one = False

    def _work(self, one_by_one: bool) -> tuple[int, str]:
        """The exit code of a process, and its last words. What it has reported is taken in."""
        prepare_progress(self._progress, self._next)
        with (self._folder / "errors").open("w+b") as errors:
            process = subprocess.Popen(
                [*self._command, *self._arguments(one_by_one)],
                cwd=ROOT / self._report.task.service,
                env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")},
                stdout=subprocess.PIPE,
                stderr=errors,
            )
            with process:
                for chunk in chunks(process.stdout or ()):
                    self._take_in(chunk)
                    if len(self._report.findings) >= ENOUGH:
                        process.terminate()
            errors.seek(0)
            return process.returncode, errors.read().decode(errors="replace")

    def _arguments(self, one_by_one: bool) -> list[str]:
        options = self._options
        return [
            self._report.task.target,
            *("--seed", str(options.seed)),
            *("--first", str(self._next)),
            *("--count", str(self._end - self._next)),
            *(word for index in self._skip for word in ("--skip", str(index))),
            *("--deadline", str(options.deadline)),
            *("--folder", str(self._folder)),
            *("--progress", str(self._progress)),
            *(("--mongodb", options.mongodb) if options.mongodb else ()),
            *(("--one-by-one",) if one_by_one else ()),
        ]

    def _take_in(self, chunk: Mapping[str, Any]) -> None:
        self._report.outcomes.update(chunk["outcomes"])
        for finding in chunk["findings"]:
            if all(_kind(finding) != _kind(known) for known in self._report.findings):
                self._report.findings.append(finding)
        self._next = chunk["next"]

    def _died(self, code: int, said: str) -> None:
        index = read_progress(self._progress)
        if code > 0:
            problem = f"the process ended with {code}"
        elif -code == signal.SIGALRM:
            problem = f"hang: an input took more than {self._options.deadline:g} s"
        else:
            problem = f"crash: {signal.Signals(-code).name}"
        self._report.outcomes["WRONG"] += 1
        self._report.findings.append({"index": index, "problem": problem, "trace": said})
        self._skip.append(index)
        if code > 0:
            self._next = self._end  # it is not the input's fault


def _kind(finding: Mapping[str, Any]) -> str:
    """The same for the same fault: of each the first is enough."""
    return str(finding["problem"])[:30]


@contextmanager
def _folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="fuzz_") as name:
        yield Path(name)


def _print(report: Report) -> None:
    task = report.task
    print(f"\n{task.name}: {report.inputs:,} inputs in {report.seconds:.0f} s")
    for outcome, number in report.outcomes.most_common():
        print(f"  {number:>9,}  {outcome}")


def _keep(finding: Mapping[str, Any], task: Task, options: Options, results: Path) -> None:
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"{task.name}-{options.seed}-{finding['index']}.json"
    again = f"scripts/fuzz.sh --seed {options.seed} --only {task.name} --at {finding['index']}"
    path.write_text(json.dumps({"repeat": again, **finding}, indent=2) + "\n", encoding="utf-8")
    print(f"\n  {finding['problem'][:300]}\n  {path}\n  {again}")
