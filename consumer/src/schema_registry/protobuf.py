"""Decodes Protobuf without generated code: the classes are made from the registry's schemas."""

import io
from base64 import b64decode
from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.common.protobuf import _init_pool, _is_builtin
from confluent_kafka.schema_registry.serde import SchemaId
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

ROOT = "the schema itself"  # the name of its file

Get = Callable[[SchemaRegistryClient, str | None], Schema]
"""Requests a schema in a form; None is that in which it was registered."""


class ProtobufDecoder:
    """The clients have caches of their own, because a client has one form of a schema: its text or a descriptor."""

    def __init__(self, client: SchemaRegistryClient, serialized: SchemaRegistryClient) -> None:
        self._client = client
        self._serialized = serialized
        self._classes: dict[tuple[int, Sequence[int]], type[Message]] = {}

    def __call__(self, value: bytes) -> dict[str, Any]:
        prefix = SchemaId("PROTOBUF")
        payload = prefix.from_bytes(io.BytesIO(value))
        key = int(prefix.id or 0), tuple(prefix.message_indexes or ())
        if key not in self._classes:
            self._classes[key] = self._message_class(*key)
        message = self._classes[key]()
        message.ParseFromString(payload.read())
        return _fields(message)

    def _message_class(self, number: int, indexes: Sequence[int]) -> type[Message]:
        pool = DescriptorPool()
        _init_pool(pool)  # the types that every registry knows
        self._add(pool, ROOT, lambda client, form: client.get_schema(number, None, form))
        message_class: type[Message] = GetMessageClass(_message_type(pool.FindFileByName(ROOT), indexes))
        return message_class

    def _add(self, pool: DescriptorPool, name: str, get: Get) -> None:
        """A file, after those that it imports."""
        schema = get(self._client, None)
        file = _descriptor(schema) or _descriptor(get(self._serialized, "serialized"))
        if file is None:
            raise ValueError(f"the registry does not return a descriptor of {name}")
        for reference in schema.references or ():
            if not _is_builtin(imported := str(reference.name)):
                self._add(pool, imported, _version(reference))
        file.name = name
        pool.Add(file)


def _version(reference: Any) -> Get:
    return lambda client, form: client.get_version(reference.subject, reference.version, True, form).schema


def _descriptor(schema: Schema) -> FileDescriptorProto | None:
    """None if the schema is the text of a .proto file."""
    try:
        return FileDescriptorProto.FromString(b64decode(schema.schema_str or "", validate=True))
    except (ValueError, DecodeError):
        return None


def _message_type(file: FileDescriptor, indexes: Sequence[int]) -> Descriptor:
    """The message at a position in the file, or in another message."""
    messages = list(file.message_types_by_name.values())
    for index in indexes:
        if not 0 <= index < len(messages):
            raise ValueError(f"it has no message at {list(indexes)}")
        found = messages[index]
        messages = found.nested_types
    return found


# -- values


def _fields(message: Message) -> dict[str, Any]:
    """A field that is not set is left out; one that cannot tell has its default, as in Protobuf's own JSON."""
    present = (field for field in message.DESCRIPTOR.fields if not field.has_presence or message.HasField(field.name))
    return {field.name: _value(field, getattr(message, field.name)) for field in present}


def _value(field: FieldDescriptor, value: Any) -> Any:
    kind = field.message_type
    if kind and kind.GetOptions().map_entry:
        of_value = kind.fields_by_name["value"]
        return {_key(key): _single(of_value, value[key]) for key in value}
    return [_single(field, item) for item in value] if field.is_repeated else _single(field, value)


def _key(key: str | int) -> str:
    return key if isinstance(key, str) else str(key).lower()  # true and false, as in JSON


def _single(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return _of_message(value) if field.message_type else value


def _of_message(message: Message) -> Any:
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Timestamp":
        return message.ToDatetime(tzinfo=UTC)
    if message.DESCRIPTOR.file.name == "google/protobuf/wrappers.proto":
        return message.value
    return MessageToDict(message) if name.startswith("google.protobuf.") else _fields(message)
