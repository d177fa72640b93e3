"""Settings files and environments, read as a service reads them: taken, or refused in a sentence that names the place.

No secret is in the sentence. Programs started on what is refused exit with 2 and say no more than it; what is taken is
enough to build the service from, or its clients refuse it in the same way.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from fuzz import configurations
from fuzz.chance import Chance
from fuzz.configurations import Given, Variable
from fuzz.target import require

STARTS_WITHIN = 30.0  # seconds


@dataclass(frozen=True)
class Service:
    """What of a service is needed here."""

    name: str
    base: Mapping[str, Any]
    variables: Sequence[Variable]
    error: type[Exception]
    load: Callable[[Path, Mapping[str, str]], Any]
    main: Callable[[Sequence[str]], int]
    build: Callable[[Any], None]
    """Makes the service from its settings, and lets go of it. Nothing is sent anywhere."""


class ServiceSettings:
    at_once = 1

    def __init__(self, service: Service, folder: Path) -> None:
        self._service = service
        self._folder = folder / "config"
        self._folder.mkdir(exist_ok=True)
        self._path = self._folder / "config.json"

    def make(self, chance: Chance, _index: int) -> Given:
        return configurations.given(chance, self._service.base, self._service.variables)

    def check(self, inputs: Sequence[Given]) -> Counter[str]:
        return Counter(self._check(given) for given in inputs)

    def smaller(self, value: Given) -> Iterable[Given]:
        return configurations.smaller(value)

    def shown(self, value: Given) -> Mapping[str, Any]:
        return {
            "file": repr(value.file),
            "environ": dict(value.environ),
            "files": {name: repr(content) for name, content in value.files.items()},
        }

    def close(self) -> None:
        """Nothing is open."""

    def _check(self, given: Given) -> str:
        environ = self._written(given)
        try:
            settings = self._service.load(self._path, environ)
        except self._service.error as error:
            self._check_sentence(str(error), given, environ)
            self._check_start(given, environ, str(error))
            return "refused"
        return self._built(settings, given) if given.built else "taken"

    def _written(self, given: Given) -> dict[str, str]:
        """The environment, once the files that it names are there."""
        self._path.write_bytes(given.file)
        environ = dict(given.environ)
        for name, content in given.files.items():
            path = self._folder / name
            path.write_bytes(content)
            environ[name] = str(path)
        return environ

    def _check_sentence(self, sentence: str, given: Given, environ: Mapping[str, str]) -> None:
        require(sentence.isprintable(), f"more than a line, or control characters: {sentence!a}")
        places = (str(self._path), *environ)
        require(any(place in sentence for place in places), f"no place is named: {sentence!a}")
        require(not any(secret in sentence for secret in given.secrets), f"a secret is told: {sentence!a}")

    def _check_start(self, given: Given, environ: Mapping[str, str], sentence: str) -> None:
        said = StringIO()
        with _environment(environ), redirect_stderr(said):
            code = self._service.main(["--config", str(self._path)])
        _check_end(code, said.getvalue(), sentence)
        if given.started:
            _check_end(*self._start_process(environ), sentence)

    def _start_process(self, environ: Mapping[str, str]) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", f"src.{self._service.name}", "--config", str(self._path)],
            env={**_ours(), **environ, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            timeout=STARTS_WITHIN,
            check=False,
        )
        return done.returncode, done.stderr.decode()

    def _built(self, settings: Any, given: Given) -> str:
        try:
            self._service.build(settings)
        except self._service.error as error:
            require(str(error).isprintable(), f"more than a line, or control characters: {error!a}")
            require(not any(secret in str(error) for secret in given.secrets), f"a secret is told: {error!a}")
            return "refused by a client"
        return "built"


def read(path: Path) -> dict[str, Any]:
    tree = json.loads(path.read_bytes())
    assert isinstance(tree, dict)  # noqa: S101 - the service's own file
    return tree


def _check_end(code: int, said: str, sentence: str) -> None:
    require(code == 2, f"exit code {code}")
    require("Traceback" not in said and said.count("\n") == 1, f"more than a sentence: {said!a:.500}")
    require(sentence in said, f"another sentence: {said!a:.500}")


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _ours() -> dict[str, str]:
    """What a process of ours needs of the environment."""
    return {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "PYTHONPATH", "LANG")}
