"""Gives a message the shape that its document has: the section `document` of the settings, compiled once.

The steps are the same for every message, whether it is decoded together with others or alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

from src.model.errors import InvalidMessage
from src.model.record import Record, original_coordinates
from src.settings import DocumentSettings
from src.stores.document import Identity, date_converter, kind_of, own_object, parents_and_name, require_identity

COORDINATES, KEY = "coordinates", "key"

Document = dict[str, Any]
Step = Callable[[Document], None]
"""Changes a document, but no object in it: that is replaced by a copy. Raises InvalidMessage."""

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list, tuple),
}
_MISSING = object()


class Shape:
    """`reasons` are those of the InvalidMessage errors that depend on the settings."""

    def __init__(self, settings: DocumentSettings) -> None:
        self._from_record = _IDENTITIES.get(settings.id)
        self._from_message = None if self._from_record else _identity_at(settings.id)
        self._is_own = settings.identity_field == "_id"
        self._steps = tuple(_steps(settings))
        self.reasons = (
            *(f"missing_{path}" for path in settings.required),
            *(f"invalid_{path}" for path in (*settings.dates, *settings.checks)),
            *(["rename_conflict"] if settings.rename else []),
        )

    def applied(self, message: Mapping[str, Any]) -> Document:
        """The document of a message; without the identity where it is not in the message. Raises InvalidMessage."""
        document = dict(message)
        identity = None if self._from_message is None else self._from_message(document)
        for step in self._steps:
            step(document)
        if identity is not None and self._is_own:
            document["_id"] = identity
        return document

    def identified(self, document: Document, record: Record) -> Document:
        """The same document, with the identity that is not in the message. Raises InvalidMessage."""
        if self._from_record is not None:
            document["_id"] = self._from_record(record)
        return document


def _steps(settings: DocumentSettings) -> Iterator[Step]:
    for path in settings.required:
        yield _require(path)
    for path, kind in settings.checks.items():
        yield _check(path, kind)
    for path in settings.dates:
        yield date_converter(path)
    for path in settings.drop:
        yield _drop(path)
    if settings.keep:
        yield _keep([*settings.keep, *(["id"] if settings.identity_field == "id" else [])])
    if settings.rename:
        yield _rename(settings.rename)
    yield _check_reserved({"_id", "kafka"} - {settings.id})


# -- identity


def _identity_at(path: str) -> Callable[[Document], Identity]:
    value_at = _getter(path)

    def identity_of(document: Document) -> Identity:
        value = value_at(document)
        if value is _MISSING:
            raise _missing_id(document, path)
        return require_identity(value, path)

    return identity_of


def _missing_id(document: Document, path: str) -> InvalidMessage:
    if document.keys() == {"schema", "payload"}:
        text = "the message is wrapped in schema and payload; set schemas.enable=false in the producer"
        return InvalidMessage("connect_envelope", text)
    return InvalidMessage("missing_id", f"the message has no {path}")


def _key(record: Record) -> Identity:
    if record.key is None:
        raise InvalidMessage("missing_id", "the message has no key")
    try:
        return require_identity(record.key.decode(), "the key")
    except UnicodeDecodeError as error:
        raise InvalidMessage("invalid_id", f"the key is not UTF-8: {error.reason}") from error


_IDENTITIES: Mapping[str, Callable[[Record], Identity]] = {KEY: _key, COORDINATES: original_coordinates}


# -- steps


def _require(path: str) -> Step:
    value_at = _getter(path)

    def require(document: Document) -> None:
        if value_at(document) is _MISSING:
            raise InvalidMessage(f"missing_{path}", f"the message has no {path}")

    return require


def _check(path: str, kind: str) -> Step:
    value_at, types, is_boolean = _getter(path), _TYPES[kind], kind == "boolean"
    wanted = f"{'an' if kind[0] in 'aio' else 'a'} {kind}"

    def check(document: Document) -> None:
        value = value_at(document)
        if value is not _MISSING and (not isinstance(value, types) or isinstance(value, bool) is not is_boolean):
            raise InvalidMessage(f"invalid_{path}", f"{path} is {kind_of(value)} instead of {wanted}")

    return check


def _drop(path: str) -> Step:
    take = _taker(path)

    def drop(document: Document) -> None:
        take(document)

    return drop


def _keep(paths: Sequence[str]) -> Step:
    outermost = [path for path in paths if not any(path.startswith(f"{other}.") for other in paths)]
    fields = [(_getter(path), path.split(".")) for path in dict.fromkeys(outermost)]

    def keep(document: Document) -> None:
        kept: Document = {}
        for value_at, path in fields:
            if (value := value_at(document)) is not _MISSING:
                _put(kept, path, value)
        document.clear()
        document.update(kept)

    return keep


def _rename(paths: Mapping[str, str]) -> Step:
    fields = [(_taker(old), new.split("."), f"{old} cannot be renamed to {new}") for old, new in paths.items()]

    def rename(document: Document) -> None:
        values = [(new, take(document), problem) for take, new, problem in fields]
        for new, value, problem in values:
            if value is not _MISSING and not _put(document, new, value):
                raise InvalidMessage("rename_conflict", f"{problem}, which the message has, too")

    return rename


def _check_reserved(names: Set[str]) -> Step:
    def check(document: Document) -> None:
        if not names.isdisjoint(document):
            raise InvalidMessage("reserved_field", "_id and kafka are reserved for the store; rename the field")

    return check


# -- values at paths


def has(message: Mapping[str, Any], path: str) -> bool:
    return _getter(path)(message) is not _MISSING


def _getter(path: str) -> Callable[[Mapping[str, Any]], Any]:
    """The value at the path, or _MISSING."""
    parents, name = parents_and_name(path)

    def value_at(document: Mapping[str, Any]) -> Any:
        fields: Any = document
        for parent in parents:
            fields = fields.get(parent)
            if not isinstance(fields, dict):
                return _MISSING
        return fields.get(name, _MISSING)

    return value_at


def _taker(path: str) -> Callable[[Document], Any]:
    """The same value, which the document no longer has, nor an object that is empty without it."""
    parents, name = parents_and_name(path)
    take_parent = _taker(".".join(parents)) if parents else None

    def take(document: Document) -> Any:
        fields = own_object(document, parents)
        value = _MISSING if fields is None else fields.pop(name, _MISSING)
        if take_parent and not fields and value is not _MISSING:
            take_parent(document)
        return value

    return take


def _put(document: Document, path: Sequence[str], value: object) -> bool:
    """False if there is a value already, or another one in place of an object on the way."""
    for name in path[:-1]:
        inner = document.setdefault(name, {})
        if not isinstance(inner, dict):
            return False
        document[name] = document = dict(inner)
    if path[-1] in document:
        return False
    document[path[-1]] = value
    return True
