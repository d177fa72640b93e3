"""Settings files and environments as nobody should write them, and as somebody does."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from fuzz.chance import Chance

BUILT = 20  # one in so many
STARTED = 200  # one in so many
SECRET = "hush"  # noqa: S105 - begins every secret, so that one is known wherever it shows
VALUES = (
    "",
    " ",
    "0",
    "-1",
    "1",
    "1.5",
    "1_000",
    "1e3",
    "NaN",
    "Infinity",
    "99999999999999999999",
    "true",
    "TRUE",
    "yes",
    "null",
    '"INFO"',
    "info",
    "tcp://10.0.0.1:9092",
    "localhost",
    "localhost:9092",
    " a:9092 , b:9092,",
    "[::1]:9092",
    "a:99999",
    "data-topic\r",
    "data topic",
    "a\tb",
    "\x1b[31m",
    "é",
    "x" * 300,
    "http://example.org",
    "sqlite://",
    "sqlite:///a.db",
    "mongodb://",
    "mongodb://[::1",
    "mongodb://h/?w=0",
    "mongodb://h/?nonsense=1",
    "mongodb://h/?connectTimeoutMS=x",
    "mongodb+srv://h",
    "mongodb://a%zz@h",
)
CLIENT_KEYS = ("acks", "group.id", "session.timeout.ms", "linger.ms", "ssl.ca.location", "sasl.mechanism", "nonsense")


class Variable(Protocol):
    """What of a service's variables is needed here."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> tuple[str, ...]: ...

    @property
    def secret(self) -> bool: ...


class Given(NamedTuple):
    """A settings file, an environment, and the files that the environment names."""

    file: bytes
    environ: Mapping[str, str]
    files: Mapping[str, bytes]
    secrets: frozenset[str]
    built: bool
    """Whether the service is made from it, where it is taken: that takes time."""
    started: bool
    """Whether a process of its own is started with it, where it is refused: that takes more."""


def given(chance: Chance, base: Mapping[str, Any], variables: Sequence[Variable]) -> Given:
    """`base` is the file that comes with the service, `variables` are those it knows."""
    secrets: set[str] = set()
    tree: Any = json.loads(json.dumps(base))
    for _ in range(chance.randrange(3)):
        _change(chance, tree, variables, secrets)
    text = json.dumps(tree, indent=chance.choice((None, 2))).encode()
    environ, files = _environ(chance, variables, secrets)
    file = _written(chance, text)
    return Given(file, environ, files, frozenset(secrets), chance.one_in(BUILT), chance.one_in(STARTED))


def smaller(trial: Given) -> Iterator[Given]:
    """What may show the same fault and is less to look at. Secrets stay where they are."""
    for name in trial.environ:
        yield trial._replace(environ={key: value for key, value in trial.environ.items() if key != name})
    for name in trial.files:
        yield trial._replace(files={key: content for key, content in trial.files.items() if key != name})
    try:
        tree = json.loads(trial.file)
    except (ValueError, RecursionError):
        return
    for less in _without_one(tree):
        yield trial._replace(file=json.dumps(less).encode())


def _without_one(tree: Any) -> Iterator[Any]:
    """The tree without one of its settings, or sections."""
    for name, value in tree.items() if isinstance(tree, dict) else ():
        others = {key: other for key, other in tree.items() if key != name}
        yield others
        for less in _without_one(value):
            yield {**others, name: less}


def _change(chance: Chance, tree: dict[str, Any], variables: Sequence[Variable], secrets: set[str]) -> None:
    """One setting gets another value, or gets lost, or comes new; a section may become something else."""
    variable = chance.choice(variables)
    path = variable.path[: chance.randrange(1, len(variable.path) + 1)]
    if chance.one_in(6):
        path = (*path[:-1], chance.choice((chance.word(), chance.text())))
    if chance.one_in(6):
        path = ("kafka", "client", chance.choice(CLIENT_KEYS))
    secret = any(each.secret and each.path[: len(path)] == path for each in variables)
    for name in path[:-1]:
        section = tree.setdefault(name, {})
        if not isinstance(section, dict):
            return
        tree = section
    if chance.one_in(8):
        tree.pop(path[-1], None)
    else:
        tree[path[-1]] = _secret(chance, secrets) if secret else _value(chance)


def _value(chance: Chance, depth: int = 2) -> Any:
    kind = chance.randrange(8)
    if kind <= 1:
        return chance.choice((None, True, False, 0, -1, 1, 1.5, 10**6, 10**30, 1e308, float("nan"), float("inf")))
    if kind == 2 and depth:
        return [_value(chance, depth - 1) for _ in range(chance.randrange(3))]
    if kind == 3 and depth:
        return {chance.word(): _value(chance, depth - 1) for _ in range(chance.randrange(3))}
    return chance.choice(VALUES) if chance.one_in(2) else chance.text()


def _secret(chance: Chance, secrets: set[str]) -> Any:
    """Of a form that is right, or of another."""
    secret = SECRET + chance.word()
    secrets.add(secret)
    uri = f"mongodb://user:{secret}@host/"
    return chance.choice((secret, uri, uri, f"http://{secret}", [secret], {"uri": [secret]}, f" {uri}\n", f"{uri}?w=0"))


def _environ(
    chance: Chance, variables: Sequence[Variable], secrets: set[str]
) -> tuple[dict[str, str], dict[str, bytes]]:
    environ: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for variable in chance.sample(variables, chance.randrange(4)):
        text = str(_secret(chance, secrets)) if variable.secret else str(_value(chance, depth=0))
        if variable.secret and chance.one_in(2):
            files[f"{variable.name}_FILE"] = chance.choice(
                (text.encode(), text.encode() + b"\r\n", b"", b"\n", b"\xff")
            )
        if not files or chance.one_in(4):
            environ[variable.name] = text.replace("\0", "")
    if chance.one_in(10):
        environ["KAFKA_PORT"] = environ["MONGODB_PORT"] = "tcp://10.0.0.1:9092"
    return environ, files


def _written(chance: Chance, text: bytes) -> bytes:
    kind = chance.randrange(40)
    if kind == 0:
        return b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n")
    if kind == 1:
        return chance.json()
    if kind == 2:
        return text.decode().encode("utf-16")
    if kind == 3:
        return chance.some_bytes(200)
    if kind <= 8:
        return chance.damaged(text)
    return text
