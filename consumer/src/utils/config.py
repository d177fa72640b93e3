"""Settings: a JSON file, the environment laid over it, checked once against a msgspec type."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

import msgspec

Settings = TypeVar("Settings", bound=msgspec.Struct)

_LOCATED = re.compile(r"^(?P<problem>.*) - at `\$\.?(?P<place>.*)`$", re.DOTALL)
_INJECTED = re.compile(r"^(tcp|udp)://")


class ConfigurationError(Exception):
    """A setting is wrong. The text names its place and the mend, in one line; the program exits 2."""

    def __init__(self, text: str) -> None:
        super().__init__("".join(char if char.isprintable() else ascii(char)[1:-1] for char in text))


@dataclass(frozen=True)
class Variable:
    """An environment variable and the setting it overrides.

    A secret one may also be given as NAME_FILE, the path of a file that holds it, and its value is never shown.
    """

    name: str
    path: tuple[str, ...]
    secret: bool = False


class _Given(NamedTuple):
    """What a variable says, and where it stands."""

    place: str
    text: str


def load(
    schema: type[Settings],
    path: Path,
    variables: Sequence[Variable],
    environ: Mapping[str, str],
) -> Settings:
    """What the file says, with each variable that is set laid over it. Raises ConfigurationError."""
    tree = _read(path)
    for variable in variables:
        given = _given(variable, environ)
        if given is not None:
            tree = _laid_over(tree, variable.path, _converted(schema, variable, given))
    return parse(schema, tree, origin=str(path), secrets=[v.path for v in variables if v.secret])


def parse(
    schema: type[Settings],
    tree: Mapping[str, Any],
    origin: str = "config",
    secrets: Sequence[tuple[str, ...]] = (),
) -> Settings:
    """The settings that a tree of plain values describes. Raises ConfigurationError, which names `origin`."""
    try:
        return msgspec.convert(tree, schema)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{origin}: {_sentence(str(error), tree, secrets)}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the configuration file {path}: {_reason(error)}") from error
    try:
        tree = json.loads(text, object_pairs_hook=_without_repeats)
    except ValueError as error:
        raise ConfigurationError(f"{path} is not a JSON object: {error}") from error
    except RecursionError as error:  # Python's own words differ with where it happens
        raise ConfigurationError(f"{path} is nested too deeply") from error
    if not isinstance(tree, dict):
        raise ConfigurationError(f"{path} is not a JSON object but {type(tree).__name__}")
    return tree


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands there twice; keep one")
    return tree


def _given(variable: Variable, environ: Mapping[str, str]) -> _Given | None:
    """The variable's text, trimmed; None where it is unset or blank."""
    text = environ.get(variable.name, "").strip()
    file_name = environ.get(f"{variable.name}_FILE", "").strip() if variable.secret else ""
    if text and file_name:
        raise ConfigurationError(f"{variable.name} and {variable.name}_FILE are both set; unset one")
    if file_name:
        return _secret_in(f"{variable.name}_FILE={file_name}", file_name)
    return _Given(f"environment variable {variable.name}", text) if text else None


def _secret_in(place: str, file_name: str) -> _Given:
    """The secret that a file holds, less the one line end that an editor leaves."""
    try:
        text = Path(file_name).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigurationError(f"{place}: cannot read the secret: {_reason(error)}") from error
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret.strip():
        raise ConfigurationError(f"{place}: the file is empty; write the secret into it")
    return _Given(place, secret)


def _reason(error: Exception) -> str:
    """Why a file could not be read, without a word of what it holds."""
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else "it is not UTF-8 text"


def _converted(schema: type[msgspec.Struct], variable: Variable, given: _Given) -> Any:
    place, text = given
    try:
        return msgspec.convert(text, _type_at(schema, variable.path), strict=False)
    except msgspec.ValidationError as error:
        shown = "" if variable.secret else f", found {text!r}"
        guess = (
            f". It looks like what Kubernetes injects for a service named {variable.name.split('_')[0].lower()}:"
            " rename that service or set enableServiceLinks: false"
            if _INJECTED.match(text)
            else ""
        )
        raise ConfigurationError(f"{place}: {error}{shown}{guess}") from error


def _type_at(schema: Any, path: tuple[str, ...]) -> Any:
    """The declared type of a setting; below a free-form section every value is text."""
    if not path:
        return schema
    struct = next((kind for kind in (schema, *get_args(schema)) if _is_struct(kind)), None)
    if struct is None:
        return str
    declared = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
    return _type_at(declared[path[0]], path[1:])


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _laid_over(tree: Any, path: tuple[str, ...], value: Any) -> Any:
    if not path:
        return value
    if not isinstance(tree, dict):
        return tree  # the file is wrong here, and parse() will say so
    return {**tree, path[0]: _laid_over(tree.get(path[0], {}), path[1:], value)}


def _sentence(problem: str, tree: Mapping[str, Any], secrets: Sequence[tuple[str, ...]]) -> str:
    located = _LOCATED.match(problem)
    if located is None:
        return problem
    place = tuple(located["place"].split("."))
    value = _value_at(tree, place)
    hidden = any(_is_within(place, secret) or _is_within(secret, place) for secret in secrets)
    shown = "" if hidden or value is None or isinstance(value, dict) else f", found {value!r}"
    return f"{located['place']}: {located['problem']}{shown}"


def _is_within(inner: Sequence[str], outer: Sequence[str]) -> bool:
    return inner[: len(outer)] == outer


def _value_at(tree: Any, place: tuple[str, ...]) -> Any:
    for name in place:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree
