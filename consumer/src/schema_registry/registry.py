"""Decodes messages with the schemas of a registry. Each schema is requested once."""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
from confluent_kafka.schema_registry import (
    RegisteredSchema,
    Schema,
    SchemaRegistryClient,
    SchemaRegistryError,
    record_subject_name_strategy,
)
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer
from referencing import Registry

from src.model.check_result import CheckResult
from src.model.errors import ConsumerError, InvalidMessage, SchemaRegistryUnavailable
from src.schema_registry import SCHEMA_MISMATCH, UNKNOWN_SCHEMA, schema_id
from src.schema_registry.json_types import as_json
from src.schema_registry.protobuf import ProtobufDecoder
from src.settings import SchemaRegistrySettings
from src.utils.config import ConfigurationError

logger = logging.getLogger(__name__)

TIMEOUT = 10  # seconds for each step of a request
MAX_ID = 2**31 - 1
MAX_TEXT = 300  # characters of an error, which may contain a whole page or message

_NOT_FOUND = (40401, 40402, 40403)  # a registry's own codes: a 404 of another server says nothing about a schema

Answer = TypeVar("Answer")


class ConfluentSchemaRegistry:
    """Raises ConfigurationError if the CA file cannot be read."""

    def __init__(self, settings: SchemaRegistrySettings, timeout: float = TIMEOUT) -> None:
        self._settings = settings
        self._timeout = timeout
        self._url = str(settings.url)
        try:
            self._connect()
        except OSError as error:
            path = settings.ssl_ca_location
            raise ConfigurationError(f"schema_registry.ssl_ca_location: cannot read {path!r}: {error}") from error

    def decode(self, value: bytes) -> object:
        try:
            return self._decode(value)
        except SchemaRegistryUnavailable:
            self._renew_credentials()
            raise

    def check(self) -> CheckResult:
        try:
            types = self._client.get_schema_types()
        except ConsumerError as error:
            return CheckResult("schema registry", False, str(error))
        return CheckResult("schema registry", True, f"{self._url} is reachable, it has {', '.join(map(str, types))}")

    def _decode(self, value: bytes) -> object:
        number = schema_id(value)
        if number > MAX_ID:
            raise InvalidMessage(UNKNOWN_SCHEMA, f"{number} is no id of a schema")
        kind = self._client.get_schema(number).schema_type or "AVRO"
        if kind not in self._decoders:
            raise InvalidMessage(UNKNOWN_SCHEMA, f"schema {number} is of the type {kind}, which cannot be decoded")
        try:
            return self._decoders[kind](value)
        except ConsumerError:
            raise
        except Exception as error:  # the libraries raise whatever the bytes lead to
            text = f"the value does not fit schema {number} ({kind}): {type(error).__name__}: {error}"
            raise InvalidMessage(SCHEMA_MISMATCH, text[:MAX_TEXT]) from error

    def _connect(self) -> None:
        self._credentials = self._read_credentials()
        self._client, serialized = self._new_client(), self._new_client()
        avro, protobuf = AvroDeserializer(self._client), ProtobufDecoder(self._client, serialized)
        self._decoders: dict[str, Callable[[bytes], object]] = {
            "AVRO": lambda value: as_json(avro(value)),
            "JSON": _JsonDecoder(
                None,
                schema_registry_client=self._client,
                conf={"subject.name.strategy": record_subject_name_strategy},
                json_decode=msgspec.json.decode,
            ),
            "PROTOBUF": lambda value: as_json(protobuf(value)),
        }

    def _new_client(self) -> "_Client":
        settings: dict[str, Any] = {"url": self._url, "timeout": self._timeout, "max.retries": 0}
        if any(self._credentials):
            settings["basic.auth.user.info"] = ":".join(self._credentials)
        if self._settings.ssl_ca_location:
            settings["ssl.ca.location"] = self._settings.ssl_ca_location
        return _Client(settings)

    def _read_credentials(self) -> list[str]:
        return [secret.reveal() if secret else "" for secret in (self._settings.username, self._settings.password)]

    def _renew_credentials(self) -> None:
        if self._read_credentials() != self._credentials:
            with suppress(OSError):  # of the CA file: the clients stay as they are
                self._connect()
                logger.info("secret file changed, reconnecting", extra={"setting": "schema_registry"})


class _Client(SchemaRegistryClient):
    """Raises SchemaRegistryUnavailable, or InvalidMessage if the registry says that there is no such schema."""

    def get_schema(self, *arguments: Any, **options: Any) -> Schema:
        return self._answer(lambda: super(_Client, self).get_schema(*arguments, **options), lambda schema: schema)

    def get_version(self, *arguments: Any, **options: Any) -> RegisteredSchema:
        return self._answer(lambda: super(_Client, self).get_version(*arguments, **options), lambda found: found.schema)

    def get_schema_types(self) -> list[str]:
        return self._answer(super().get_schema_types)

    def _answer(self, request: Callable[[], Answer], schema_in: Callable[[Answer], Schema] | None = None) -> Answer:
        try:
            answer = request()
            if schema_in and not isinstance(schema_in(answer).schema_str, str):
                self.clear_caches()  # type: ignore[no-untyped-call]
                raise TypeError("the response contains no schema")
        except SchemaRegistryError as error:
            if error.http_status_code == 404 and error.error_code in _NOT_FOUND:
                raise InvalidMessage(UNKNOWN_SCHEMA, f"schema registry: {error}"[:MAX_TEXT]) from error
            raise self._unavailable(error) from error
        except Exception as error:  # no response, or not a registry's: a proxy's page, for example
            raise self._unavailable(f"{type(error).__name__}: {error}") from error
        return answer

    def _unavailable(self, problem: object) -> SchemaRegistryUnavailable:
        return SchemaRegistryUnavailable(f"{self._conf['url']}: {problem}"[:MAX_TEXT])


class _JsonDecoder(JSONDeserializer):
    """Requests nothing but from the registry: the library would follow any URL in a schema."""

    def _get_parsed_schema(self, schema: Any) -> tuple[Any, Any]:
        parsed, references = super()._get_parsed_schema(schema)
        return parsed, Registry().with_resources((references or {}).items())
