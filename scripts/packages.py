"""Python packages, installed from lock files. Run by lib.sh and lock.sh, with the standard library alone."""

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

# pip's options that say where packages come from, and how they are fetched. Others of the user's (target, prefix, user,
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
SECTIONS = ("global", "install", ":env:")  # the later wins

_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[.*\])?==(?P<version>[^\s;\\]+)")
_INCLUDE = re.compile(r"-r\s+(?P<file>\S+)")
_FOREIGN = re.compile(r"^\s*--(?!hash=sha256:)|://", re.MULTILINE)  # an index's address among them


def pins(file: Path) -> dict[str, str]:
    """Package and version of each line, and of the files that it includes."""
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
    """Why the lock file does not belong to the requirements."""
    locked = pins(lock)
    text = lock.read_text(encoding="utf-8")
    for file in requirements:
        for name, version in pins(file).items():
            if locked.get(name) != version:
                yield f"{lock}: {name} is {locked.get(name, 'missing')}, in {file} it is {version}; run scripts/lock.sh"
    body = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    if _FOREIGN.search(body):
        yield f"{lock}: only pins and hashes may be in it, no address of an index"
    for entry in re.split(r"\n(?=\S)", body.strip()):
        if "--hash=sha256:" not in entry:
            yield f"{lock}: no hash for {entry.split()[0]}; run scripts/lock.sh"


def pip_environment(environ: Mapping[str, str], configured: str) -> dict[str, str]:
    """`environ` for pip, with only those of the user's options that are KEPT. `configured`: from `pip config list`."""
    options: dict[str, str] = {}
    for section in SECTIONS:
        for line in configured.splitlines():
            name, _, value = line.partition("=")
            option = name.removeprefix(f"{section}.").replace("_", "-")
            if name.startswith(f"{section}.") and option in KEPT and value != "''":  # as pip ignores empty ones
                options[f"PIP_{option.replace('-', '_').upper()}"] = str(ast.literal_eval(value))
    others = {name: value for name, value in environ.items() if not name.startswith("PIP_")}
    return {**others, **options, "PIP_CONFIG_FILE": os.devnull}


def install(lock: Path) -> int:
    pip = [sys.executable, "-m", "pip"]
    environ = {name: value for name, value in os.environ.items() if name != "PIP_PYTHON"}
    listed = subprocess.run([*pip, "config", "list"], env=environ, text=True, stdout=subprocess.PIPE, check=False)
    if listed.returncode:
        return listed.returncode
    arguments = ["install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", str(lock)]
    return subprocess.run([*pip, *arguments], env=pip_environment(environ, listed.stdout), check=False).returncode


def check_installed(requirements: Iterable[Path]) -> Iterator[str]:
    """What is missing in this environment, or cannot be imported."""
    for file in requirements:
        for name, version in pins(file).items():
            try:
                distribution = importlib.metadata.distribution(name)
                if distribution.version != version:
                    yield f"{name} is {distribution.version}, not {version}"
                for module in _modules(distribution):
                    importlib.import_module(module)
            except Exception as error:  # noqa: BLE001 - whatever an import raises, the package is of no use
                yield f"{name}: {type(error).__name__}: {error}"


def _modules(distribution: importlib.metadata.Distribution) -> set[str]:
    """The names that the package is imported by; none for one that is a program only."""
    names = {Path(file).parts[0] for file in distribution.files or () if Path(file).suffix in (".py", ".so", ".pyd")}
    modules = {name.removesuffix(".py").partition(".")[0] for name in names if not name.startswith((".", "_"))}
    return {module for module in modules if module.isidentifier()}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="packages")
    parser.add_argument("command", choices=("check-lock", "install"))
    parser.add_argument("lock", type=Path)
    parser.add_argument("requirements", type=Path, nargs="+")
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
