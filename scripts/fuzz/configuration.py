"""Configuration files and environment variables, and how a service has to treat them.

Either they are accepted, and the service can be built from them, or they are rejected with one line that names the
place, and the program exits with 2. No secret is shown anywhere.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

from hypothesis import assume
from hypothesis import strategies as st

from fuzz.strategies import damaged, json_values, texts

SECRET = "hush"  # noqa: S105 - part of every secret, so that one is recognized wherever it is shown
START_TIMEOUT = 30.0  # seconds
UNREACHABLE = "127.0.0.1:1"
VALUES = (
    *("", " ", "0", "-1", "1", "1.5", "1_000", "1e3", "NaN", "Infinity", "99999999999999999999", "true", "TRUE", "yes"),
    *("null", '"INFO"', "info", "tcp://10.0.0.1:9092", "localhost", "localhost:9092", " a:9092 , b:9092,"),
    *("[::1]:9092", "a:99999", "data-topic\r", "data topic", "a\tb", "\x1b[31m", "é", "x" * 300, "http://example.org"),
    *("sqlite://", "sqlite:///a.db", "mongodb://", "mongodb://[::1", "mongodb://h/?w=0", "mongodb://h/?nonsense=1"),
    *("mongodb://h/?connectTimeoutMS=x", "mongodb+srv://h", "mongodb://a%zz@h"),
)
CLIENT_KEYS = ("acks", "group.id", "session.timeout.ms", "linger.ms", "ssl.ca.location", "sasl.mechanism", "nonsense")


class Variable(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def path(self) -> tuple[str, ...]: ...

    @property
    def secret(self) -> bool: ...


@dataclass(frozen=True)
class Service:
    name: str
    default_file: Path
    variables: Sequence[Variable]
    error: type[Exception]
    load: Callable[[Path, Mapping[str, str]], Any]
    main: Callable[[Sequence[str]], int]
    build: Callable[[Any, Path], None]
    """Builds the service from its settings, and closes it. Connects to nothing, and writes only into the folder."""


@dataclass(frozen=True)
class Configuration:
    """A configuration file, environment variables, and the files that the variables name."""

    file: bytes
    environ: Mapping[str, str]
    files: Mapping[str, bytes]


plain_values = st.sampled_from(VALUES) | texts
scalars = st.sampled_from((None, True, False, 0, -1, 1, 1.5, 10**6, 10**30, 1e308, float("nan"), float("inf")))
setting_values = st.recursive(
    scalars | plain_values,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
secrets = st.from_regex(rf"{SECRET}[a-zA-Z0-9]{{1,11}}", fullmatch=True)


def _secret_values(secret: str) -> st.SearchStrategy[Any]:
    """A secret in a valid form, or in another."""
    uri = f"mongodb://user:{secret}@host/"
    other = (f"http://{secret}", [secret], {"uri": [secret]}, f" {uri}\n", f"{uri}?w=0")
    return st.sampled_from((secret, uri, *other))


@st.composite
def configurations(draw: st.DrawFn, service: Service) -> Configuration:
    tree = json.loads(service.default_file.read_bytes())
    for _ in range(draw(st.integers(0, 2))):
        _change(draw, tree, service.variables)
    text = json.dumps(tree, indent=draw(st.sampled_from((None, 2)))).encode()
    environ, files = _environment(draw, service.variables)
    other_files = (
        damaged(st.just(text))
        | st.sampled_from((b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"), text.decode().encode("utf-16")))
        | json_values
        | st.binary(max_size=100)
    )
    file = draw(other_files) if draw(st.integers(0, 4)) == 4 else text
    return Configuration(file, environ, files)


def _change(draw: st.DrawFn, tree: dict[str, Any], variables: Sequence[Variable]) -> None:
    """A setting gets another value, is deleted or added; or a whole section is replaced."""
    path = draw(
        st.sampled_from(variables).flatmap(lambda variable: st.sampled_from(_prefixes(variable.path)))
        | st.sampled_from(CLIENT_KEYS).map(lambda key: ("kafka", "client", key))
        | texts.map(lambda name: ("kafka", name))
    )
    secret = any(variable.secret and variable.path[: len(path)] == path for variable in variables)
    for name in path[:-1]:
        section = tree.setdefault(name, {})
        if not isinstance(section, dict):
            return
        tree = section
    if draw(st.integers(0, 7)) == 7:
        tree.pop(path[-1], None)
    else:
        tree[path[-1]] = draw(secrets.flatmap(_secret_values) if secret else setting_values)


def _prefixes(path: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [path[: length + 1] for length in range(len(path))]


def _environment(draw: st.DrawFn, variables: Sequence[Variable]) -> tuple[dict[str, str], dict[str, bytes]]:
    environ: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for variable in draw(st.lists(st.sampled_from(variables), max_size=3, unique_by=lambda each: each.name)):
        text = str(draw(secrets.flatmap(_secret_values) if variable.secret else scalars | plain_values))
        if variable.secret and draw(st.booleans()):
            content = text.encode()
            files[f"{variable.name}_FILE"] = draw(st.sampled_from((content, content + b"\r\n", b"", b"\n", b"\xff")))
        if not files or draw(st.booleans()):
            environ[variable.name] = text.replace("\0", "")
    if draw(st.integers(0, 9)) == 9:
        environ["KAFKA_PORT"] = environ["MONGODB_PORT"] = "tcp://10.0.0.1:9092"
    return environ, files


def check(service: Service, configuration: Configuration) -> None:
    """Load the configuration, and build the service or see the program rejecting it."""
    with _written(configuration) as (path, environ):
        try:
            settings = service.load(path, environ)
        except service.error as error:
            _check_rejected(service, path, environ, str(error))
        else:
            assert SECRET not in repr(settings)
            _check_built(service, settings, path.parent)


def check_process(service: Service, configuration: Configuration) -> None:
    """Start a process with a configuration that is rejected."""
    with _written(configuration) as (path, environ):
        try:
            service.load(path, environ)
        except service.error as error:
            text = str(error)
        else:
            assume(False)
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        done = subprocess.run(
            [sys.executable, "-m", f"src.{service.name}", "--config", str(path)],
            env={**inherited, **environ, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            timeout=START_TIMEOUT,
            check=False,
        )
    _check_output(done.returncode, done.stderr.decode(), text)


@contextmanager
def _written(configuration: Configuration) -> Iterator[tuple[Path, dict[str, str]]]:
    """The path of the configuration file, and the environment variables with the paths of their files."""
    with tempfile.TemporaryDirectory(prefix="fuzz_") as name:
        folder = Path(name)
        path = folder / "config.json"
        path.write_bytes(configuration.file)
        environ = dict(configuration.environ)
        for variable, content in configuration.files.items():
            (folder / variable).write_bytes(content)
            environ[variable] = str(folder / variable)
        yield path, environ


def _check_rejected(service: Service, path: Path, environ: Mapping[str, str], text: str) -> None:
    assert text.isprintable(), "more than one line, or control characters"
    assert any(place in text for place in (str(path), *environ)), "no place is named"
    assert SECRET not in text
    output = StringIO()
    with _environ(environ), redirect_stderr(output):
        status = service.main(["--config", str(path)])
    _check_output(status, output.getvalue(), text)


def _check_output(status: int, output: str, text: str) -> None:
    assert status == 2
    assert "Traceback" not in output
    assert output.count("\n") == 1
    assert text in output
    assert SECRET not in output


def _check_built(service: Service, settings: Any, folder: Path) -> None:
    """A client may still reject its settings."""
    try:
        service.build(settings, folder)
    except service.error as error:
        assert str(error).isprintable()
        assert SECRET not in str(error)


@contextmanager
def _environ(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
