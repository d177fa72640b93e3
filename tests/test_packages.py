"""Packages are installed from lock files into the environment of the scripts, regardless of pip settings."""

import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import packages

ROOT = Path(__file__).resolve().parent.parent
LOCKS = [path for path in ROOT.glob("**/*.lock") if not {".venv", ".local", "venv"} & set(path.parts)]
OLD = "old==1.0 --hash=sha256:0\n"
STALE = "old is no longer required; run scripts/lock.sh"
NOT_A_PIN = "contains an option or a URL; only pins and hashes are allowed"
PIN = "first==1.0 --hash=sha256:0\nsecond-one==2.0 --hash=sha256:0\n"


def wheel(folder: Path, name: str, source: str) -> Path:
    """A package of one module."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [f"{file},sha256={_base64(text)},{len(text)}\n" for file, text in files.items()]
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": "".join([*lines, f"{info}/RECORD,,\n"])}.items():
            archive.writestr(file, text)
    return path


def _base64(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


class Machine:
    """A virtual environment, a folder with wheels, and the user's pip settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock, self.requirements = folder / "requirements.lock", folder / "requirements.txt"
        self.python = folder / "venv" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)

    def write(self, name: str, source: str = "") -> None:
        path = wheel(self.folder, name, source)
        self.lock.write_text(f"{name}==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n")
        self.requirements.write_text(f"{name}==1.0  # for a test\n")

    def install(self, **environ: str) -> subprocess.CompletedProcess[str]:
        others = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.folder)}
        return subprocess.run(
            [self.python, ROOT / "scripts" / "packages.py", "install", self.lock, self.requirements],
            env={**others, **index, **environ},
            text=True,
            capture_output=True,
        )

    def imports(self, name: str) -> bool:
        return subprocess.run([self.python, "-c", f"import {name}"], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine"))


def test_a_package_is_installed_into_the_environment_despite_variables_of_the_user(
    machine: Machine, tmp_path: Path
) -> None:
    elsewhere = str(tmp_path / "elsewhere")
    machine.write("first_package")

    done = machine.install(
        PIP_TARGET=elsewhere,
        PIP_PREFIX=elsewhere,
        PIP_ROOT=elsewhere,
        PIP_USER="1",
        PYTHONUSERBASE=elsewhere,
        PIP_DRY_RUN="1",
        PIP_CONSTRAINT=elsewhere,
        PIP_PYTHON=elsewhere,
    )

    assert done.returncode == 0, done.stderr
    assert machine.imports("first_package")
    assert list(tmp_path.iterdir()) == []


def test_a_package_is_installed_into_the_environment_despite_a_file_of_the_user(
    machine: Machine, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    machine.write("second_package")
    (tmp_path / "pip.conf").write_text(
        f"[global]\nno-index = true\nfind-links = {machine.folder}\n[install]\ntarget = {elsewhere}\ndry-run = true\n"
    )

    done = machine.install(PIP_NO_INDEX="", PIP_FIND_LINKS="", PIP_CONFIG_FILE=str(tmp_path / "pip.conf"))

    assert done.returncode == 0, done.stderr
    assert machine.imports("second_package")
    assert not elsewhere.exists()


def test_a_package_that_does_not_import_is_an_error(machine: Machine) -> None:
    machine.write("broken", "import no_such_module")

    done = machine.install()

    assert done.returncode == 1
    assert "broken: ModuleNotFoundError: No module named 'no_such_module'" in done.stderr


def test_a_package_with_another_hash_is_not_installed(machine: Machine) -> None:
    machine.write("changed")
    machine.lock.write_text(f"changed==1.0 --hash=sha256:{'0' * 64}\n")

    assert machine.install().returncode != 0
    assert not machine.imports("changed")


def test_a_package_that_is_missing_or_has_another_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("pytest==0.1\nno-such-package==1.0\n")

    problems = list(packages.check_installed([tmp_path / "requirements.txt"]))

    assert [problem.split()[0] for problem in problems] == ["pytest", "no-such-package:"]
    assert "not 0.1" in problems[0]


def test_only_the_pip_settings_for_downloads_apply() -> None:
    configured = "\n".join(
        [
            ":env:.proxy='http://p'",
            ":env:.index-url=''",
            "global.index-url='https://one'",
            "global.trusted_host='a\\nb'",
            "install.index-url='https://two'",
            "install.target='/elsewhere'",
            "download.proxy='http://other'",
        ]
    )

    environ = packages.pip_environment({"PIP_USER": "1", "PIP_PROXY": "http://p", "HOME": "/h"}, configured)

    assert environ == {
        "HOME": "/h",
        "PIP_PROXY": "http://p",
        "PIP_INDEX_URL": "https://two",
        "PIP_TRUSTED_HOST": "a\nb",
        "PIP_CONFIG_FILE": os.devnull,
    }


@pytest.mark.parametrize(
    ("requirements", "lock", "problem"),
    [
        ("first==1.0\n-r more.txt\n", PIN, None),
        ("first==1.1 # newer\n", PIN, "first is 1.0, but 1.1 in {file}; run scripts/lock.sh"),
        ("third==1.0\n", PIN, "third is missing, but 1.0 in {file}; run scripts/lock.sh"),
        ("", "first==1.0\n    # via a\n", "no hash for first; run scripts/lock.sh"),
        ("", f"{PIN}{OLD}    # via\n    #   -r requirements.txt\n", STALE),
        ("", f"{PIN}{OLD}    # via first\n", None),
        ("", f"--index-url https://index.example\n{PIN}", NOT_A_PIN),
        ("", f"{PIN}third @ https://a.example/third.whl --hash=sha256:0\n", NOT_A_PIN),
    ],
)
def test_a_difference_between_a_lock_file_and_its_requirements_is_reported(
    tmp_path: Path, requirements: str, lock: str, problem: str | None
) -> None:
    (tmp_path / "requirements.txt").write_text(requirements)
    (tmp_path / "more.txt").write_text("Second_One[extra]==2.0  # spelled otherwise\n")
    (tmp_path / "requirements.lock").write_text(lock)

    problems = list(packages.check_lock(tmp_path / "requirements.lock", [tmp_path / "requirements.txt"]))

    expected = problem and f"{tmp_path / 'requirements.lock'}: {problem.format(file=tmp_path / 'requirements.txt')}"
    assert problems[:1] == ([expected] if expected else [])


def test_all_lock_files_have_the_same_version_of_a_package() -> None:
    versions = [packages.pins(lock) for lock in LOCKS]

    assert len(LOCKS) == 5
    assert {(name, version) for each in versions for name, version in each.items()} == set(
        packages.pins(ROOT / "requirements-dev.lock").items()
    )
