"""Converts a Kafka record to a document, or raises the reason why it is invalid. Needs neither Kafka nor MongoDB.

A valid message is a JSON object in UTF-8, or an object that a schema registry's serializer encoded, see
`schema_registry`. The section `document` of the settings says the rest; by default:
- `id` is required, a non-empty string or an integer of 64 bits. Ids are compared exactly as sent: upper and lower case,
  braces and `urn:uuid:` make different ids.
- `created_at`, if present, is a date in RFC 3339 with a time zone, `name` a string, `metadata` an object. Any other
  field is kept unchanged; its key may contain any character except NUL. The last of several equal keys is kept.
- What no store can hold (an integer of more than 64 bits, more than 100 levels, …) is rejected later, by the store.

`created_at` becomes a date in UTC, truncated to milliseconds. Invalid are a leap second (`:60`), `24:00:00`, a comma
before the fraction, the format without dashes and colons, and a date without time or time zone. Valid are lower case
`t` and `z`, a space instead of `T`, and `+0530`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from src.model.errors import InvalidMessage
from src.model.record import Record
from src.schema_registry import REASONS as REGISTRY_REASONS
from src.schema_registry import SchemaRegistry, is_framed, open_registry, schema_id
from src.settings import DocumentSettings, Settings
from src.stores.document import ValidDocument, kind_of, require_identity
from src.stores.ordinary import ordinary_documents, ordinary_message
from src.stores.shape import KEY, Shape
from src.stores.validation import require_encodable
from src.user_transform import TRANSFORM_FAILED, load_transform

REASONS = (
    "tombstone",
    "empty_value",
    "byte_order_mark",
    "not_utf8",
    "not_json",
    "nesting_too_deep",
    "not_an_object",
    "encoded_twice",
    "schema_registry_framing",
    "connect_envelope",
    "missing_id",
    "invalid_id",
    "invalid_created_at",
    "invalid_name",
    "invalid_metadata",
    "reserved_field",
    "integer_out_of_range",
    "number_out_of_range",
    "invalid_key",
    "invalid_string",
)
"""Every `reason` of the InvalidMessage errors that DataProcessor raises."""

_UTF16 = (b"\xff\xfe", b"\xfe\xff", b"{\x00", b"\x00{\x00")

_decode = msgspec.json.Decoder().decode


class DataProcessor:
    """Turns messages into documents. `document` is the section of this name in the settings.

    Raises ConfigurationError if the transform cannot be imported.
    """

    def __init__(
        self,
        document: DocumentSettings = DocumentSettings(),  # noqa: B008 - immutable
        schema_registry: SchemaRegistry | None = None,
    ) -> None:
        self.schema_registry = schema_registry
        self._decodes_keys = schema_registry is not None and document.id == KEY
        self.shape = Shape(document)
        self._transform = load_transform(document)
        self._deletes = document.on_tombstone == "delete"
        self._has_default_shape = _shape_settings(document) == _shape_settings(DocumentSettings())
        self.reasons = (
            *REASONS,
            *self.shape.reasons,
            *([TRANSFORM_FAILED] if self._transform else []),
            *(REGISTRY_REASONS if schema_registry else []),
        )

    def process(self, record: Record) -> dict[str, Any] | None:
        """The document of a record; None if the transform skips it; of a tombstone that deletes, the identity alone.

        Raises InvalidMessage, or SchemaRegistryUnavailable.
        """
        if record.value is None and self._deletes:
            return self._identified({}, record)
        document = self.check(self._message(record.value))
        return None if document is None else self._identified(document, record)

    def process_ordinary(self, records: Sequence[Record]) -> list[ValidDocument | None]:
        """The valid documents of ordinary messages; None for each record that is left to `process`.

        The documents are those that `process` and the store's validation return, in a fraction of the time; only the
        order of their fields may differ. With a transform, with keys that may have a schema, and for a subclass with
        rules of its own, no message is ordinary.
        """
        kind = type(self)
        if (
            self._transform
            or self._decodes_keys
            or kind.process is not DataProcessor.process
            or kind.check is not DataProcessor.check
        ):
            return [None] * len(records)
        if self._has_default_shape:
            return ordinary_documents([record.value or b"" for record in records])
        return [self._ordinary_document(record) for record in records]

    def check(self, message: Mapping[str, Any]) -> dict[str, Any] | None:
        """The document of a decoded message, as far as it does not depend on the record. Raises InvalidMessage."""
        if self._transform is not None:
            transformed = self._transform(dict(message))
            if transformed is None:
                return None
            message = transformed
        return self.shape.applied(message)

    def _message(self, value: bytes | None) -> dict[str, Any]:
        if self.schema_registry and is_framed(value):
            return _require_object(self.schema_registry.decode(value))
        return _object(value)

    def _identified(self, document: dict[str, Any], record: Record) -> dict[str, Any]:
        if self._decodes_keys and self.schema_registry and is_framed(record.key):
            return {**document, "_id": require_identity(self.schema_registry.decode(record.key), "the key")}
        return self.shape.identified(document, record)

    def _ordinary_document(self, record: Record) -> ValidDocument | None:
        message = ordinary_message(record.value or b"")
        try:
            return None if message is None else self.shape.identified(self.shape.applied(message), record)
        except InvalidMessage:
            return None


def processor_for(settings: Settings) -> DataProcessor:
    """What consumer, audit, `--check` and `transform` run: to change the processing, return a subclass here."""
    return DataProcessor(settings.document, open_registry(settings.schema_registry))


def _shape_settings(document: DocumentSettings) -> tuple[object, ...]:
    fields = document.required, document.dates, document.checks, document.drop, document.keep, document.rename
    return document.id, *fields


# -- from bytes to an object


def _object(value: bytes | None) -> dict[str, Any]:
    if value is None:
        raise InvalidMessage("tombstone", "the record has no value")
    try:
        decoded = _decode(value)
    except RecursionError as error:
        raise InvalidMessage("nesting_too_deep", "the JSON is nested too deeply to be parsed") from error
    except ValueError as error:  # includes UnicodeDecodeError
        _raise_diagnosis(value, error)
    if isinstance(decoded, str) and _contains_json(decoded):
        raise InvalidMessage("encoded_twice", "the value is a JSON string that contains JSON; encode it only once")
    return _require_object(decoded)


def _require_object(decoded: object) -> dict[str, Any]:
    if not isinstance(decoded, dict):
        raise InvalidMessage("not_an_object", f"the value is not an object but {kind_of(decoded)}")
    return decoded


def _contains_json(text: str) -> bool:
    try:
        return isinstance(_decode(text), dict | list | str)
    except RecursionError:
        return True
    except ValueError:
        return False


def _raise_diagnosis(value: bytes, error: ValueError) -> NoReturn:
    """Why the value cannot be parsed. A more lenient parser finds out whether its syntax or its content is at fault."""
    if not value:
        raise InvalidMessage("empty_value", "the value is empty") from error
    if value.startswith(b"\xef\xbb\xbf"):
        raise InvalidMessage("byte_order_mark", "the value starts with a byte order mark; send it without") from error
    if value.startswith(_UTF16):
        raise InvalidMessage("not_utf8", "the value looks like UTF-16; send UTF-8") from error
    if is_framed(value):
        text = f"the value has the prefix of a schema registry's serializer, schema id {schema_id(value)};"
        text += " set schema_registry.url, or send plain JSON"
        raise InvalidMessage("schema_registry_framing", text) from error
    try:
        lenient = json.loads(value.decode(), parse_int=_bounded, parse_constant=_reject_constant)
        require_encodable(lenient)
    except UnicodeDecodeError as decode_error:
        raise InvalidMessage("not_utf8", f"the value is not UTF-8: {decode_error.reason}") from error
    except RecursionError:
        raise InvalidMessage("nesting_too_deep", "the JSON is nested too deeply to be parsed") from error
    except ValueError:
        pass
    raise InvalidMessage("not_json", f"the value is not JSON: {error}") from error


def _bounded(digits: str) -> int:
    """An integer, or enough digits of it to be out of range: Python does not convert very long ones."""
    return int(digits[:40])


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
