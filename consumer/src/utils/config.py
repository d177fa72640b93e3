"""Settings: a JSON file, overridden by environment variables, validated once against a msgspec type."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin

import msgspec

from src.utils.secret import ClientSettings, Secret, read_secret
from src.utils.text import printable

Settings = TypeVar("Settings", bound=msgspec.Struct)

_LOCATED = re.compile(r"^(?P<problem>.*) - at (`key` in )?`\$\.?(?P<path>.*)`$", re.DOTALL)
_INJECTED = re.compile(r"^(tcp|udp)://")
_INDEX = re.compile(r"\[[^\]]*\]")


class ConfigurationError(Exception):
    """A setting is invalid. The text, one line, says what is wrong, where, and what to change; the program exits 2."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


@dataclass(frozen=True)
class Variable:
    """An environment variable and the setting that it overrides.

    The text of a list is `a,b`, of a mapping `a=x,b=y`; both may also be JSON.
    A secret one can also be given as NAME_FILE, the path of a file that contains it, and its value is never shown.
    """

    name: str
    path: tuple[str, ...]
    secret: bool = False


class _Value(NamedTuple):
    """The value of a variable, and where it comes from."""

    source: str
    text: str
    file: Path | None = None


def load(
    schema: type[Settings],
    path: Path,
    variables: Sequence[Variable],
    environ: Mapping[str, str],
) -> Settings:
    """The settings of the file, overridden by the variables that are set. Raises ConfigurationError."""
    tree = _read(path)
    values = {variable: value for variable in variables if (value := _value_of(variable, environ))}
    for variable, value in values.items():
        tree = _overridden(tree, variable.path, _converted(schema, variable, value))
    return parse(schema, tree, origin=str(path), overriding=values)


def parse(
    schema: type[Settings], tree: Mapping[str, Any], origin: str = "config", overriding: Collection[Variable] = ()
) -> Settings:
    """The settings in a tree of plain values.

    Raises ConfigurationError, which names `origin`, and the variables whose values are part of a wrong combination.
    """
    try:
        return msgspec.convert(tree, schema, dec_hook=_decode)
    except msgspec.ValidationError as error:
        problem = _located(str(error), schema, tree)
        names = ", ".join(variable.name for variable in overriding if _is_named(variable, problem))
        raise ConfigurationError(f"{origin}{f' and {names}' if names else ''}: {problem}") from error


def _is_named(variable: Variable, problem: str) -> bool:
    return all(re.search(rf"\b{re.escape(name)}\b", problem) for name in variable.path)


def _decode(kind: type[Secret | ClientSettings], value: object) -> Secret | ClientSettings:
    return value if isinstance(value, kind) else kind.decode(value)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the configuration file {path}: {_reason(error)}") from None
    try:
        tree = json.loads(text, object_pairs_hook=_without_duplicates)
    except ValueError as error:  # which holds the whole text, passwords too
        raise ConfigurationError(f"{path} is not a JSON object: {error}") from None
    except RecursionError as error:  # its text depends on the call stack
        raise ConfigurationError(f"{path} is nested too deeply") from error
    if not isinstance(tree, dict):
        raise ConfigurationError(f"{path} is not a JSON object but {type(tree).__name__}")
    return tree


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"duplicate key {duplicate!r}; keep one")
    return tree


def _value_of(variable: Variable, environ: Mapping[str, str]) -> _Value | None:
    """The variable's text, trimmed; None where it is unset or blank."""
    text = environ.get(variable.name, "").strip()
    file_name = environ.get(f"{variable.name}_FILE", "").strip() if variable.secret else ""
    if text and file_name:
        raise ConfigurationError(f"{variable.name} and {variable.name}_FILE are both set; unset one")
    if file_name:
        return _secret_in(f"{variable.name}_FILE={file_name}", Path(file_name))
    return _Value(f"environment variable {variable.name}", text) if text else None


def _secret_in(source: str, path: Path) -> _Value:
    try:
        return _Value(source, read_secret(path), path)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{source}: cannot read the secret: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Why a file could not be read, without any of its content."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)


def _converted(schema: type[msgspec.Struct], variable: Variable, value: _Value) -> Any:
    source, text, file = value
    declared = _type_at(schema, variable.path)
    try:
        converted = msgspec.convert(_structured(text, declared), declared, strict=False, dec_hook=_decode)
    except ValueError as error:
        shown = "" if variable.secret else f", found {text!r}"
        hint = (
            f". It looks like what Kubernetes sets for a service named {variable.name.split('_')[0].lower()}:"
            " rename that service or set enableServiceLinks: false"
            if _INJECTED.match(text)
            else ""
        )
        raise ConfigurationError(f"{source}: {_described(str(error), declared)}{shown}{hint}") from error
    if file is None:
        return converted
    return (converted if isinstance(converted, Secret) else Secret(text)).in_file(file)


def _structured(text: str, declared: Any) -> Any:
    """The items of a list or a mapping. Raises ValueError."""
    kind = get_origin(declared)
    if kind not in (tuple, dict):
        return text
    if text.startswith(("[", "{")):
        return _from_json(text)
    items = [item.strip() for item in text.split(",") if item.strip()]
    return items if kind is tuple else _mapping(items)


def _from_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"Expected JSON after `{text[0]}`: {reason}") from error


def _mapping(items: Sequence[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in items]
    if not all(separator for _, separator, _ in pairs):
        raise ValueError("Expected name=value, or several of them with commas")
    return _without_duplicates([(name.strip(), value.strip()) for name, _, value in pairs])


def _type_at(schema: Any, path: Sequence[str]) -> Any:
    """The declared type of a setting; None if there is no such setting. In a free-form section every value is text."""
    if not path:
        return schema
    struct = next((kind for kind in (schema, *get_args(schema)) if _is_struct(kind)), None)
    if struct is None:
        return str
    declared = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
    return _type_at(declared.get(path[0]), path[1:])


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _overridden(tree: Any, path: tuple[str, ...], value: Any) -> Any:
    if not path:
        return value
    if not isinstance(tree, dict):
        return tree  # the file is invalid here, and parse() reports it
    return {**tree, path[0]: _overridden(tree.get(path[0], {}), path[1:], value)}


def _located(problem: str, schema: type[msgspec.Struct], tree: Mapping[str, Any]) -> str:
    located = _LOCATED.match(problem)
    if located is None:
        return problem
    path = _INDEX.sub("", located["path"]).split(".")
    value = _value_at(tree, path)
    declared = _type_at(schema, path)
    shown = f", found {value!r}" if value is not None and _is_plain(declared) else ""
    return f"{located['path'].replace('[...]', '')}: {_described(located['problem'], declared)}{shown}"


def _described(problem: str, declared: Any) -> str:
    """A regular expression is no explanation: the description of the type is shown in its place; and all choices."""
    if "Invalid enum value" in problem:
        return f"{problem.partition(' - at ')[0]}; use one of {', '.join(_choices(declared))}"
    if "matching regex" not in problem:
        return problem
    descriptions = [part.description for part in _parts(declared) if isinstance(part, msgspec.Meta)]
    return next((f"Expected {text}" for text in descriptions if text), problem)


def _choices(declared: Any) -> list[str]:
    return [str(value) for part in _parts(declared) if get_origin(part) is Literal for value in get_args(part)]


def _parts(declared: Any) -> Iterator[Any]:
    """The type, and those that it consists of."""
    yield declared
    for part in get_args(declared):
        yield from _parts(part)


def _is_plain(declared: Any) -> bool:
    """Whether a setting of this type contains no secret."""
    kinds = (declared, *get_args(declared))
    return declared is not None and not any(
        isinstance(kind, type) and issubclass(kind, msgspec.Struct | Secret | ClientSettings) for kind in kinds
    )


def _value_at(tree: Any, path: Sequence[str]) -> Any:
    for name in path:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree
