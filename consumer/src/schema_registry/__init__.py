"""Messages of a schema registry's serializers: a zero, the id of the schema in four bytes, and the encoded value.

They are decoded by the serializers' own library, which is optional: nothing of it is imported without a registry.
"""

from typing import Protocol, TypeGuard

from src.model.check_result import CheckResult
from src.settings import SchemaRegistrySettings
from src.utils.config import ConfigurationError

PREFIX = 5  # bytes
REQUIREMENTS = "requirements-schema-registry.lock"
UNKNOWN_SCHEMA, SCHEMA_MISMATCH = REASONS = "unknown_schema", "schema_mismatch"
"""Of the InvalidMessage errors."""


class SchemaRegistry(Protocol):
    def decode(self, value: bytes) -> object:
        """The value behind the prefix, in types of JSON and datetimes. Raises InvalidMessage (REASONS).

        Raises SchemaRegistryUnavailable while it is unknown whether the message is valid.
        """

    def check(self) -> CheckResult: ...


def is_framed(value: bytes | None) -> TypeGuard[bytes]:
    return value is not None and value.startswith(b"\0") and len(value) >= PREFIX


def schema_id(value: bytes) -> int:
    return int.from_bytes(value[1:PREFIX], "big")


def open_registry(settings: SchemaRegistrySettings) -> SchemaRegistry | None:
    """None if there is no URL. Raises ConfigurationError, also if the library is not installed."""
    if settings.url is None:
        return None
    try:
        from src.schema_registry.registry import ConfluentSchemaRegistry
    except ImportError as error:
        text = f"schema_registry.url is set, but its packages are not installed ({error}): run `pip install -r"
        text += f" {REQUIREMENTS}`, or build the image with CONSUMER_REQUIREMENTS={REQUIREMENTS}"
        raise ConfigurationError(text) from error
    return ConfluentSchemaRegistry(settings)
