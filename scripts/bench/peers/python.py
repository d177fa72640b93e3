"""Peers in Python: `NAME/consumer.py`, in a virtual environment with the packages of `NAME/requirements.txt`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import STDOUT, run

from bench.contender import Contender, Job
from local.errors import CannotRun
from packages import pins, run_pip

PEERS = Path(__file__).resolve().parent

# Ours keeps memory low with a setting of the allocator, and has the bench's modules on its path. A peer has neither.
OWN_ENVIRONMENT = ("env", "-u", "MALLOC_ARENA_MAX", "-u", "PYTHONPATH")


def peer(name: str, environments: Path, guarantee: str, note: str, *, on_embedded: bool = True) -> Contender:
    requirements, venv = PEERS / name / "requirements.txt", environments / name

    def command(_job: Job, _folder: Path) -> Sequence[str]:
        # -P: the folder of the program, which has the package's name, is not searched for modules
        return [*OWN_ENVIRONMENT, str(venv / "bin" / "python"), "-P", str(PEERS / name / "consumer.py")]

    return Contender(
        name,
        command,
        batches=(5_000,),
        prepare=lambda: install(requirements, venv),
        on_embedded=on_embedded,
        guarantee=guarantee,
        note=f"version {pins(requirements)[name]}; {note}",
    )


def install(requirements: Path, venv: Path) -> None:
    """Raises CannotRun. Does nothing if the same packages have been installed before."""
    stamp, log = venv / "complete.stamp", venv / "pip.log"
    wanted = requirements.read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    created = run([sys.executable, "-m", "venv", "--clear", str(venv)], capture_output=True, text=True, check=False)
    if created.returncode:
        raise CannotRun(f"cannot create the virtual environment {venv}: {created.stderr.strip()}")
    python = str(venv / "bin" / "python")
    with log.open("wb") as output:
        if run_pip(["install", "--quiet", "-r", str(requirements)], python, stdout=output, stderr=STDOUT):
            raise CannotRun(f"its packages cannot be installed; see {log}")
    stamp.write_text(wanted, encoding="utf-8")
