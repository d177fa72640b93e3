"""Install packages from lock files. Run by lib.sh and lock.sh; uses only the standard library."""

import argparse
import ast
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# The pip settings of the user that apply: where packages are downloaded from, and how. Others (target, prefix, user,
# dry-run, constraint, …) would change where packages are installed, or whether they are.
KEPT = (
    "index-url",
    "extra-index-url",
    "no-index",
    "find-links",
    "trusted-host",
    "proxy",
    "cert",
    "client-cert",
    "keyring-provider",
    "use-feature",
    "cache-dir",
    "no-cache-dir",
    "timeout",
    "default-timeout",
    "retries",
)
SECTIONS = ("global", "install", ":env:")  # in increasing precedence

_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[.*\])?==(?P<version>[^\s;\\]+)")
_DIRECT = re.compile(r"# +(via +)?-r ")  # annotation of a package that a requirements file names
_INCLUDE = re.compile(r"-r\s+(?P<file>\S+)")
_NOT_A_PIN = re.compile(r"^\s*--(?!hash=sha256:)|://", re.MULTILINE)  # such as the URL of an index


def pins(file: Path) -> dict[str, str]:
    """The packages and versions in a file and in those that it includes."""
    found: dict[str, str] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if included := _INCLUDE.match(line):
            found |= pins(file.parent / included["file"])
        elif pin := _PIN.match(line):
            found[normalized(pin["name"])] = pin["version"]
    return found


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def check_lock(lock: Path, requirements: Iterable[Path]) -> Iterator[str]:
    """Differences between a lock file and its requirements."""
    locked = pins(lock)
    text = lock.read_text(encoding="utf-8")
    required = {normalized(name) for file in requirements for name in pins(file)}
    for file in requirements:
        for name, version in pins(file).items():
            if locked.get(name) != version:
                yield f"{lock}: {name} is {locked.get(name, 'missing')}, but {version} in {file}; run scripts/lock.sh"
    body = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    if _NOT_A_PIN.search(body):
        yield f"{lock}: contains an option or a URL; only pins and hashes are allowed"
    for entry in re.split(r"\n(?=[\w-])", text.strip()):
        pin = _PIN.match(entry)
        if pin and "--hash=sha256:" not in entry:
            yield f"{lock}: no hash for {pin['name']}; run scripts/lock.sh"
        if pin and _DIRECT.search(entry) and normalized(pin["name"]) not in required:
            yield f"{lock}: {pin['name']} is no longer required; run scripts/lock.sh"


def pip_environment(environ: Mapping[str, str], configured: str) -> dict[str, str]:
    """The environment to run pip in, with only the KEPT settings of `environ` and of `pip config list`'s output."""
    options: dict[str, str] = {}
    for section in SECTIONS:
        for line in configured.splitlines():
            name, _, value = line.partition("=")
            option = name.removeprefix(f"{section}.").replace("_", "-")
            if name.startswith(f"{section}.") and option in KEPT and value != "''":  # pip ignores empty values too
                options[f"PIP_{option.replace('-', '_').upper()}"] = str(ast.literal_eval(value))
    others = {name: value for name, value in environ.items() if not name.startswith("PIP_")}
    return {**others, **options, "PIP_CONFIG_FILE": os.devnull}


def run_pip(arguments: Sequence[str], python: str = sys.executable, **streams: Any) -> int:
    """The exit code. Of the user's settings of pip only those in KEPT apply."""
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    environ = {name: value for name, value in os.environ.items() if name != "PIP_PYTHON"}
    listed = subprocess.run([*pip, "config", "list"], env=environ, text=True, stdout=subprocess.PIPE, check=False)
    if listed.returncode:
        return listed.returncode
    settings = pip_environment(environ, listed.stdout)
    return subprocess.run([*pip, *arguments], env=settings, check=False, **streams).returncode


def install(lock: Path) -> int:
    return run_pip(["install", "--quiet", "--require-hashes", "-r", str(lock)])


def check_installed(requirements: Iterable[Path]) -> Iterator[str]:
    """The packages that are missing in this environment, or fail to import."""
    for file in requirements:
        for name, version in pins(file).items():
            try:
                distribution = importlib.metadata.distribution(name)
                if distribution.version != version:
                    yield f"{name} is {distribution.version}, not {version}"
                for module in _modules(distribution):
                    importlib.import_module(module)
            except Exception as error:  # noqa: BLE001 - an import can raise anything
                yield f"{name}: {type(error).__name__}: {error}"


def _modules(distribution: importlib.metadata.Distribution) -> set[str]:
    """The modules of a package; none if it only has programs."""
    names = {Path(file).parts[0] for file in distribution.files or () if Path(file).suffix in (".py", ".so", ".pyd")}
    modules = {name.removesuffix(".py").partition(".")[0] for name in names if not name.startswith((".", "_"))}
    return {module for module in modules if module.isidentifier()}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="packages")
    parser.add_argument("command", choices=("check-lock", "install"))
    parser.add_argument("lock", type=Path)
    parser.add_argument("requirements", type=Path, nargs="*")
    options = parser.parse_args(arguments)
    if options.command == "check-lock":
        problems = list(check_lock(options.lock, options.requirements))
    else:
        code = install(options.lock)
        if code:
            return code
        problems = list(check_installed(options.requirements))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
