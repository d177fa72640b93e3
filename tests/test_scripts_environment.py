"""The scripts do not depend on the settings of the user's shell, or on how they are called."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = [*sorted(set((ROOT / "scripts").glob("*.sh")) - {ROOT / "scripts" / "lib.sh"}), ROOT / ".ci" / "run"]

PROBE = r"""
folder="$(cd scripts && pwd)" # a relative path: CDPATH would apply
echo "folder=$folder"
echo "options=$-"
echo "posix=$(set -o | sed -n 's/^posix[[:space:]]*//p')"
echo "star=$(cd "$root/scripts" && echo lib*)"
printf 'word=%s\n' $(echo 'one sister')
echo "grep=$(printf 'a\nb\n' | grep a)"
printf 'number=%.1f\n' 1.5
false_is_not_redefined() { if false; then echo no; else echo yes; fi; }
echo "false=$(false_is_not_redefined)"
env | grep -E '^(PYTHON|PYTEST|SHELLOPTS|BASHOPTS|BASH_ENV|CDPATH|GREP_OPTIONS|POSIXLY_CORRECT)' || true
echo "safe_path=$("$INTERPRETER" -c 'import sys; print(sys.flags.safe_path, sys.flags.optimize, sys.stdout.encoding)')"
"""

BASH_ENV = """
shopt -s expand_aliases
alias cd='cd /' false=true set=: source=:
cd() { builtin cd / && ls; }
IFS=s
set -f
export PYTHONPATH=/nowhere
"""

ENVIRONMENTS: dict[str, dict[str, str]] = {
    "nothing": {},
    "CDPATH": {"CDPATH": ".:{other}"},
    "BASH_ENV": {"BASH_ENV": "{other}/bash_env"},
    "SHELLOPTS": {"SHELLOPTS": "noglob:noclobber:xtrace:posix"},
    "BASHOPTS": {"BASHOPTS": "nullglob:expand_aliases:nocaseglob"},
    "an exported function": {"BASH_FUNC_cd%%": "() { builtin cd /; }", "BASH_FUNC_dirname%%": "() { echo /; }"},
    "POSIXLY_CORRECT": {"POSIXLY_CORRECT": "1"},
    "GREP_OPTIONS": {"GREP_OPTIONS": "--invert-match"},
    "IFS": {"IFS": "s"},
    "locale": {"LANG": "de_DE.ISO-8859-1", "LC_NUMERIC": "de_DE.UTF-8"},
    "LC_ALL": {"LC_ALL": "tr_TR.ISO-8859-9"},
    "PYTHONSAFEPATH": {"PYTHONSAFEPATH": "1"},
    "Python": {
        "PYTHONPATH": "/nowhere",
        "PYTHONHOME": "/nowhere",
        "PYTHONOPTIMIZE": "2",
        "PYTHONIOENCODING": "latin-1",
        "PYTHONINSPECT": "1",
        "PYTHONWARNINGS": "error",
        "PYTEST_ADDOPTS": "--bogus",
    },
}


def preamble(script: Path) -> str:
    """The common beginning of a script, without comments."""
    lines = [line for line in script.read_text().splitlines() if not line.startswith("#")]
    return "\n".join(lines[: next(number for number, line in enumerate(lines) if "lib.sh" in line) + 1])


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with a script that begins like the others, and then prints its environment."""
    scripts = tmp_path / "a check(out)" / "scripts"
    scripts.mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "lib.sh", scripts)
    (scripts / "probe.sh").write_text(f'#!/usr/bin/env bash\n{preamble(SCRIPTS[0])}\ncd "$root"\n{PROBE}')
    (scripts / "probe.sh").chmod(0o755)
    other = tmp_path / "other"
    (other / "scripts").mkdir(parents=True)
    (other / "bash_env").write_text(BASH_ENV)
    return scripts.parent


def run(*command: str | Path, folder: Path, environ: Mapping[str, str] = {}) -> list[str]:
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "INTERPRETER": sys.executable, **environ},
        stdin=subprocess.DEVNULL,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def expected(checkout: Path) -> list[str]:
    return [
        f"folder={checkout}/scripts",
        "star=lib.sh",
        "word=one",
        "word=sister",
        "grep=a",
        "number=1.5",
        "false=yes",
        "posix=off",
        "safe_path=False 0 utf-8",
    ]


def test_all_scripts_start_alike() -> None:
    assert len(SCRIPTS) > 7
    assert {preamble(script) for script in SCRIPTS} == {preamble(SCRIPTS[0])}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_script_runs_the_same_in_any_environment(checkout: Path, name: str) -> None:
    environ = {
        key: value.replace("{other}", str(checkout.parent / "other")) for key, value in ENVIRONMENTS[name].items()
    }

    shown = run("scripts/probe.sh", folder=checkout, environ=environ)

    options = [line for line in shown if line.startswith("options=")]
    assert sorted(set(shown) - set(options)) == sorted(expected(checkout))
    assert not set("fCx") & set(options[0].removeprefix("options="))


@pytest.mark.parametrize("shell", [["bash"], ["bash", "-p"], ["sh"], []], ids=" ".join)
@pytest.mark.parametrize("by", ["its name", "a relative link", "a link to a link", "a linked folder"])
def test_a_script_finds_its_own_checkout(checkout: Path, shell: list[str], by: str) -> None:
    elsewhere = checkout.parent / "other"
    (elsewhere / "link").symlink_to(Path("..") / checkout.name / "scripts" / "probe.sh")
    (elsewhere / "to a link").symlink_to("link")
    (elsewhere / "linked").symlink_to(checkout / "scripts")
    called: dict[str, str | Path] = {
        "its name": checkout / "scripts" / "probe.sh",
        "a relative link": "./link",
        "a link to a link": "./to a link",
        "a linked folder": "linked/probe.sh",
    }

    shown = run(*shell, called[by], folder=elsewhere)

    assert set(expected(checkout)) <= set(shown)


@pytest.mark.parametrize("script", ["check.sh", "setup.sh", "teardown.sh", "test.sh"])
def test_a_script_shows_its_help_wherever_it_is_called_from(tmp_path: Path, script: str) -> None:
    (tmp_path / "link").symlink_to(ROOT / "scripts" / script)

    shown = run("./link", "--help", folder=tmp_path, environ={"CDPATH": ".:/", "SHELLOPTS": "noglob"})

    assert shown[0].startswith(f"Usage: scripts/{script}")
