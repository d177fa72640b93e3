"""Messages with the id of a schema: which are decoded to what, which are invalid, and what is an outage."""

import base64
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID

import pytest

pytest.importorskip("confluent_kafka.schema_registry.protobuf", exc_type=ImportError)

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import DESCRIPTOR as STRUCT
from google.protobuf.timestamp_pb2 import DESCRIPTOR as TIMESTAMP
from google.protobuf.wrappers_pb2 import DESCRIPTOR as WRAPPERS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.broker import EmbeddedBroker
from src.audit.content import contents
from src.check import check
from src.data_processor import DataProcessor, processor_for
from src.model.errors import InvalidMessage, SchemaRegistryUnavailable
from src.model.record import Record
from src.pipeline.retry import WriterStopped
from src.schema_registry import open_registry
from src.schema_registry.json_types import as_json
from src.schema_registry.registry import ConfluentSchemaRegistry
from src.settings import DEFAULT_FILE, DocumentSettings, SchemaRegistrySettings, Settings, load_settings
from src.stores.validation import validated
from src.utils.config import ConfigurationError, parse
from tests.fake_registry import FakeRegistry, avro, framed, running
from tests.fakes import record
from tests.test_consumer import CONFIG, World
from tests.writer_world import WriterWorld

SERVICE = Path(__file__).parents[1]
ORDER = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [{"name": "id", "type": "string"}, {"name": "total", "type": "long"}],
}


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with running(FakeRegistry()) as fake:
        yield fake


def settings_of(registry: FakeRegistry, **others: Any) -> SchemaRegistrySettings:
    return parse(Settings, {"schema_registry": {"url": registry.url, **others}}).schema_registry


def opened(registry: FakeRegistry, timeout: float = 5.0, **others: Any) -> ConfluentSchemaRegistry:
    return ConfluentSchemaRegistry(settings_of(registry, **others), timeout=timeout)


def processor_of(registry: FakeRegistry, **document: Any) -> DataProcessor:
    return DataProcessor(DocumentSettings(**document), opened(registry))


def order(registry: FakeRegistry, identity: str = "1", total: int = 2**40) -> bytes:
    number = next((key for key, each in registry.schemas.items() if each["schema"] == json.dumps(ORDER)), None)
    return framed(number or registry.add_avro(ORDER), avro(ORDER, {"id": identity, "total": total}))


def reason_of(registry: FakeRegistry, value: bytes) -> tuple[str, str]:
    with pytest.raises(InvalidMessage) as caught:
        opened(registry).decode(value)
    return caught.value.reason, str(caught.value)


# -- Avro


def logical(kind: str, name: str, **others: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": name, **others}


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ("long", 2**63 - 1, 2**63 - 1),
        ("double", 0.5, 0.5),
        ("boolean", True, True),
        (["null", "string"], None, None),
        (["null", "long", "string"], "text", "text"),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B", "B"),
        ({"type": "array", "items": "bytes"}, [b"\0\xff"], ["AP8="]),
        ({"type": "map", "values": "long"}, {"a": 1}, {"a": 1}),
        ({"type": "fixed", "name": "F", "size": 2}, b"ab", "YWI="),
        (
            {"type": "record", "name": "I", "fields": [{"name": "x", "type": logical("int", "date")}]},
            {"x": date(2024, 1, 2)},
            {"x": "2024-01-02"},
        ),
        (logical("bytes", "decimal", precision=20, scale=2), Decimal("1234567890123456.50"), "1234567890123456.50"),
        (logical("string", "uuid"), UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (logical("int", "time-millis"), time(1, 2, 3), "01:02:03"),
        (logical("long", "timestamp-millis"), datetime(2024, 1, 2, 3, tzinfo=UTC), datetime(2024, 1, 2, 3, tzinfo=UTC)),
        (logical("long", "timestamp-micros"), datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)),
        (logical("long", "local-timestamp-millis"), datetime(2024, 1, 2), "2024-01-02T00:00:00"),  # noqa: DTZ001
    ],
)
def test_a_value_in_avro_becomes_one_that_a_store_can_hold(
    registry: FakeRegistry, schema: Any, value: object, expected: object
) -> None:
    fields = [{"name": "id", "type": "string"}, {"name": "value", "type": schema}]
    record_schema = {"type": "record", "name": "R", "fields": fields}
    message = framed(registry.add_avro(record_schema), avro(record_schema, {"id": "1", "value": value}))

    document = processor_of(registry).process(record(0, message))

    assert document == {"id": "1", "value": expected}
    assert validated(document) == document


@pytest.mark.parametrize(
    ("schema", "value", "reason"),
    [("double", float("nan"), "number_out_of_range"), ("string", "a", None)],
)
def test_what_no_store_can_hold_is_invalid_as_in_json(
    registry: FakeRegistry, schema: str, value: object, reason: str | None
) -> None:
    record_schema = {
        "type": "record",
        "name": "R",
        "fields": [{"name": "id", "type": "string"}, {"name": "v", "type": schema}],
    }
    message = framed(registry.add_avro(record_schema), avro(record_schema, {"id": "1", "v": value}))
    world = WriterWorld(processor=processor_of(registry))

    result = world.write_one([record(0, message)])

    assert [each.reason for each in result.rejections] == ([reason] if reason else [])


def test_a_message_passes_through_the_settings_of_the_document(registry: FakeRegistry) -> None:
    processor = processor_of(registry, id="total", rename={"id": "order"}, checks={"total": "integer"}, dates=())

    assert processor.process(record(0, order(registry, "o-1", 7))) == {"_id": 7, "order": "o-1", "total": 7}


def test_a_schema_may_refer_to_others(registry: FakeRegistry) -> None:
    address = {"type": "record", "name": "Address", "namespace": "shop", "fields": [{"name": "city", "type": "string"}]}
    registry.versions["address/1"] = {"subject": "address", "version": 1, "id": 9, "schema": json.dumps(address)}
    whole = {
        "type": "record",
        "name": "P",
        "fields": [{"name": "id", "type": "string"}, {"name": "a", "type": address}],
    }
    schema = {**whole, "fields": [whole["fields"][0], {"name": "a", "type": "shop.Address"}]}
    reference = {"name": "shop.Address", "subject": "address", "version": 1}
    payload = avro(whole, {"id": "1", "a": {"city": "Zug"}})

    decoded = opened(registry).decode(framed(registry.add_avro(schema, reference), payload))

    assert decoded == {"id": "1", "a": {"city": "Zug"}}


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(payload=st.binary(max_size=40), kind=st.sampled_from(["AVRO", "JSON", "PROTOBUF"]))
def test_any_bytes_are_decoded_or_invalid(registry: FakeRegistry, payload: bytes, kind: str) -> None:
    schema = {"AVRO": json.dumps(ORDER), "JSON": "{}", "PROTOBUF": serialized(file_of_order())}[kind]
    registry.schemas = {1: {"schema": schema, "schemaType": kind}}

    with suppress(InvalidMessage):
        DataProcessor(schema_registry=opened(registry)).process(record(0, framed(1, payload)))


JSON_VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False)
)
OTHER_VALUES = (
    st.binary(max_size=5)
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.uuids()
    | st.dates()
    | st.times()
    | st.datetimes()
)


@settings(deadline=None)
@given(
    st.recursive(
        JSON_VALUES | OTHER_VALUES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    )
)
def test_every_value_becomes_one_of_json_and_those_of_json_stay(value: Any) -> None:
    converted = as_json({"value": value})

    json.dumps(converted)
    assert as_json(converted) == converted


# -- JSON Schema

JSON_SCHEMA = {
    "title": "Order",
    "type": "object",
    "properties": {"id": {"type": "string"}, "at": {"$ref": "place.json"}},
    "required": ["id"],
}


def test_json_is_decoded_and_validated_against_its_schema_and_those_that_it_refers_to(registry: FakeRegistry) -> None:
    reference = {"name": "place.json", "subject": "place", "version": 2}
    number = registry.add(json.dumps(JSON_SCHEMA), schemaType="JSON", references=[reference])
    registry.versions["place/2"] = {"subject": "place", "version": 2, "id": 9, "schema": '{"type": "integer"}'}

    assert opened(registry).decode(framed(number, b'{"id": "1", "at": 5}')) == {"id": "1", "at": 5}
    assert reason_of(registry, framed(number, b'{"id": "1", "at": "x"}')) == (
        "schema_mismatch",
        f"the value does not fit schema {number} (JSON): SerializationError: 'x' is not of type 'integer'",
    )
    assert reason_of(registry, framed(number, b'{"id": '))[0] == "schema_mismatch"


def test_nothing_is_requested_from_a_url_in_a_schema(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    message = framed(registry.add('{"$ref": "http://elsewhere.invalid/a.json"}', schemaType="JSON"), b"{}")
    hosts, look_up = set[str](), socket.getaddrinfo

    def recording(host: str, *others: Any, **options: Any) -> Any:
        hosts.add(host)
        return look_up(host, *others, **options)

    monkeypatch.setattr(socket, "getaddrinfo", recording)

    assert reason_of(registry, message)[0] == "schema_mismatch"
    assert "elsewhere.invalid" not in hosts


# -- Protobuf

FIELD = FieldDescriptorProto


def serialized(file: FileDescriptorProto) -> str:
    return base64.b64encode(file.SerializeToString()).decode()


def file_of_place() -> FileDescriptorProto:
    file = FileDescriptorProto(name="place.proto", package="shop", syntax="proto3")
    file.message_type.add(name="Place").field.add(name="city", number=1, type=FIELD.TYPE_STRING, label=1)
    return file


def file_of_order() -> FileDescriptorProto:
    file = FileDescriptorProto(name="order.proto", package="shop", syntax="proto3")
    order = file.message_type.add(name="Order")
    order.field.add(name="id", number=1, type=FIELD.TYPE_STRING, label=1)
    return file


def file_with_all_kinds() -> FileDescriptorProto:
    """Its second message is `All`, which contains a message `Inner` and the entries of a map."""
    imports = ["place.proto", TIMESTAMP.name, WRAPPERS.name, STRUCT.name]
    file = FileDescriptorProto(name="all.proto", package="shop", syntax="proto3", dependency=imports)
    file.enum_type.add(name="Kind").value.add(name="SMALL", number=0)
    file.message_type.add(name="Other")
    message = file.message_type.add(name="All")
    entry = message.nested_type.add(name="CountsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=FIELD.TYPE_BOOL, label=1)
    entry.field.add(name="value", number=2, type=FIELD.TYPE_INT64, label=1)
    message.nested_type.add(name="Inner").field.add(name="id", number=1, type=FIELD.TYPE_STRING, label=1)
    scalars = [FIELD.TYPE_STRING, FIELD.TYPE_INT64, FIELD.TYPE_BYTES, FIELD.TYPE_BOOL]
    for number, (name, kind) in enumerate(zip(("id", "total", "raw", "unset"), scalars, strict=True), 1):
        message.field.add(name=name, number=number, type=kind, label=1)
    message.field.add(name="kind", number=5, type=FIELD.TYPE_ENUM, type_name=".shop.Kind", label=1)
    types = {
        "place": ".shop.Place",
        "at": ".google.protobuf.Timestamp",
        "number": ".google.protobuf.Int64Value",
        "struct": ".google.protobuf.Struct",
        "absent": ".shop.Place",
    }
    for number, (name, kind_name) in enumerate(types.items(), 6):
        message.field.add(name=name, number=number, type=FIELD.TYPE_MESSAGE, type_name=kind_name, label=1)
    message.field.add(name="counts", number=12, type=FIELD.TYPE_MESSAGE, type_name=".shop.All.CountsEntry", label=3)
    message.field.add(name="places", number=13, type=FIELD.TYPE_MESSAGE, type_name=".shop.Place", label=3)
    return file


def message_of_all_kinds() -> bytes:
    pool = DescriptorPool()
    for known in (TIMESTAMP, WRAPPERS, STRUCT):
        pool.AddSerializedFile(known.serialized_pb)
    pool.Add(file_of_place())
    pool.Add(file_with_all_kinds())
    message = GetMessageClass(pool.FindMessageTypeByName("shop.All"))(id="1", total=2**62, raw=b"\0", kind=3)
    message.at.FromJsonString("2024-01-02T03:04:05.678Z")
    message.place.city = "Zug"
    message.number.value = 2**61
    message.struct["a"] = [1, "b"]
    message.counts[True] = 5
    message.places.add(city="Bern")
    return bytes(message.SerializeToString())


@pytest.mark.parametrize("form", ["serialized", "text"])
def test_protobuf_is_decoded_by_the_descriptors_of_the_registry(registry: FakeRegistry, form: str) -> None:
    reference = {"name": "place.proto", "subject": "place", "version": 1}
    schema = {"schema": serialized(file_with_all_kinds()), "schemaType": "PROTOBUF", "references": [reference]}
    registry.versions["place/1"] = {
        "subject": "place",
        "version": 1,
        "id": 8,
        "schema": serialized(file_of_place()),
        "schemaType": "PROTOBUF",
    }
    registry.serialized[1] = schema
    registry.schemas[1] = schema if form == "serialized" else {**schema, "schema": 'syntax = "proto3";'}

    document = opened(registry).decode(framed(1, b"\x02\x02" + message_of_all_kinds()))

    assert document == {
        "id": "1",
        "total": 2**62,
        "raw": "AA==",
        "unset": False,
        "kind": 3,
        "place": {"city": "Zug"},
        "at": datetime(2024, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
        "number": 2**61,
        "struct": {"a": [1.0, "b"]},
        "counts": {"true": 5},
        "places": [{"city": "Bern"}],
    }


@pytest.mark.parametrize(
    ("indexes", "expected"), [(b"\0", {}), (b"\x04\x02\x02", {"id": "1"}), (b"\x02\x06", None), (b"\x02\x01", None)]
)
def test_the_indexes_before_a_message_in_protobuf_say_which_type_it_is(
    registry: FakeRegistry, indexes: bytes, expected: object
) -> None:
    reference = {"name": "place.proto", "subject": "place", "version": 1}
    registry.versions["place/1"] = {"subject": "place", "version": 1, "id": 8, "schema": serialized(file_of_place())}
    number = registry.add(serialized(file_with_all_kinds()), schemaType="PROTOBUF", references=[reference])
    message = framed(number, indexes + b"\x0a\x011")

    if expected is None:
        assert "it has no message at" in reason_of(registry, message)[1]
    else:
        assert opened(registry).decode(message) == expected


def test_a_registry_without_descriptors_is_named(registry: FakeRegistry) -> None:
    registry.schemas[1] = registry.serialized[1] = {"schema": 'syntax = "proto3";', "schemaType": "PROTOBUF"}

    assert "the registry does not return a descriptor of" in reason_of(registry, framed(1, b"\0"))[1]


# -- whose fault it is


def test_a_schema_that_the_registry_does_not_know_is_the_fault_of_the_message(registry: FakeRegistry) -> None:
    assert reason_of(registry, framed(7, b"x")) == (
        "unknown_schema",
        "schema registry: Schema not found (HTTP status code 404, SR code 40403)",
    )
    assert len(registry.requests) == 1


def test_an_id_that_no_registry_can_have_is_not_requested(registry: FakeRegistry) -> None:
    assert reason_of(registry, framed(2**31, b"x")) == ("unknown_schema", f"{2**31} is no id of a schema")
    assert registry.requests == []


def test_a_type_of_schema_without_a_decoder_is_named(registry: FakeRegistry) -> None:
    number = registry.add("<x/>", schemaType="XML")

    assert reason_of(registry, framed(number, b"x")) == (
        "unknown_schema",
        f"schema {number} is of the type XML, which cannot be decoded",
    )


@pytest.mark.parametrize("payload", [b"", b"\xff\xff", b"\x02"])
def test_bytes_that_do_not_fit_their_schema_are_the_fault_of_the_message(
    registry: FakeRegistry, payload: bytes
) -> None:
    reason, text = reason_of(registry, framed(registry.add_avro(ORDER), payload))

    assert reason == "schema_mismatch"
    assert text.startswith("the value does not fit schema 1 (AVRO): ")


def test_a_value_that_is_no_object_is_invalid(registry: FakeRegistry) -> None:
    message = framed(registry.add_avro("string"), avro("string", "text"))

    with pytest.raises(InvalidMessage, match="not an object but a string"):
        processor_of(registry).process(record(0, message))


OUTAGES = [
    (401, b'{"error_code": 401, "message": "Unauthorized"}'),
    (403, b'{"error_code": 40301, "message": "Forbidden"}'),
    (404, b'{"error_code": 404, "message": "HTTP 404 Not Found"}'),
    (404, b"<html>no such page</html>"),
    (404, b""),
    (301, b""),
    (408, b""),
    (422, b'{"error_code": 42201, "message": "?"}'),
    (429, b""),
    (500, b'{"error_code": 50001, "message": "Error in the backend data store"}'),
    (502, b"<html>bad gateway</html>"),
    (503, b""),
    (200, b"<html>log in first</html>"),
    (200, b""),
    (200, b"[]"),
    (200, b"{}"),
    (200, b'{"schema": 5}'),
]


@pytest.mark.parametrize(("status", "body"), OUTAGES)
def test_any_other_response_is_an_outage(registry: FakeRegistry, status: int, body: bytes) -> None:
    message = order(registry)
    client = opened(registry)
    registry.response = status, body

    with pytest.raises(SchemaRegistryUnavailable, match=f"{registry.url}: "):
        client.decode(message)

    registry.response = None
    assert client.decode(message) == {"id": "1", "total": 2**40}


@pytest.mark.parametrize("kind", ["AVRO", "JSON", "PROTOBUF"])
def test_so_is_one_to_the_request_of_a_schema_that_is_referred_to(registry: FakeRegistry, kind: str) -> None:
    reference = {"name": "other", "subject": "other", "version": 1}
    schema = {"AVRO": json.dumps(ORDER), "JSON": "{}", "PROTOBUF": serialized(file_of_order())}[kind]
    number = registry.add(schema, schemaType=kind, references=[reference])
    registry.versions["other/1"] = {"no": "schema"}

    with pytest.raises(SchemaRegistryUnavailable):
        opened(registry).decode(framed(number, b"\0\0"))


def test_so_is_no_response_at_all(registry: FakeRegistry) -> None:
    message = order(registry)
    registry.gate = Event()

    with pytest.raises(SchemaRegistryUnavailable, match="ReadTimeout"):
        opened(registry, timeout=0.05).decode(message)

    registry.gate.set()
    nobody = FakeRegistry()
    nobody.url = "http://127.0.0.1:9"
    with pytest.raises(SchemaRegistryUnavailable, match="ConnectError"):
        opened(nobody).decode(message)


def test_a_known_schema_is_not_requested_again_and_outlives_an_outage(registry: FakeRegistry) -> None:
    client, message = opened(registry), order(registry)
    client.decode(message)
    registry.response = 503, b""

    assert client.decode(message) == {"id": "1", "total": 2**40}
    assert registry.requests == ["/schemas/ids/1"]


# -- the consumer


def test_json_and_messages_with_a_schema_are_stored_from_one_topic(registry: FakeRegistry) -> None:
    world = WriterWorld(processor=processor_of(registry))

    result = world.write_one(
        [record(0), record(1, order(registry, "a")), record(2, b"{"), record(3, framed(9, b"x")), record(4)]
    )

    assert list(world.store.documents) == ["0-0", "a", "0-4"]
    assert [(each.record.offset, each.reason) for each in result.rejections] == [
        (2, "not_json"),
        (3, "unknown_schema"),
    ]


def test_in_an_outage_of_the_registry_the_writer_waits_and_dead_letters_nothing(registry: FakeRegistry) -> None:
    world = WriterWorld(processor=processor_of(registry))
    records = [record(0), record(1, order(registry, "a")), record(2, b"{"), record(3, order(registry, "b"))]
    registry.response = 503, b""

    def recover_at_the_third_retry(cause: str) -> None:
        world.retries.append(cause)
        if len(world.retries) == 3:
            registry.response = None

    world.writer._retrier.on_retry = recover_at_the_third_retry
    result = world.write_one(records)

    assert set(world.retries) == {"schema_registry"}
    assert list(world.store.documents) == ["0-0", "a", "b"]
    assert [each.reason for each in result.rejections] == ["not_json"]
    assert world.writer.blocked_by is None


def test_a_stop_in_an_outage_of_the_registry_leaves_the_batch_unsettled(registry: FakeRegistry) -> None:
    world = WriterWorld(processor=processor_of(registry))
    registry.response = 503, b""
    world.writer._retrier.on_retry = lambda _cause: world.stop.set()

    with pytest.raises(WriterStopped):
        world.write([record(0), record(1, order(registry))])

    assert (list(world.store.documents), world.dead_letters.rejections) == ([], [])


def test_the_consumer_says_that_the_registry_is_unavailable_polls_on_and_recovers(registry: FakeRegistry) -> None:
    known, unknown = order(registry, "a"), framed(7, avro(ORDER, {"id": "b", "total": 1}))
    config = {**CONFIG, "schema_registry": {"url": registry.url}}
    world = World(known, config=config)

    with world.running():
        world.wait(lambda: world.committed == 1)
        registry.response = 503, b'{"error_code": 50301, "message": "starting"}'
        world.produce(unknown, b'{"id": "c"}', known, unknown, b'{"id": "d"}')
        world.hours_passed += 1
        world.wait(lambda: world.consumer.readiness_failures())
        world.wait(lambda: world.metric("consumer_paused", reason="schema_registry") == 1)
        assert world.consumer.readiness_failures() == [
            f"schema_registry: {registry.url}: starting (HTTP status code 503, SR code 50301)"
        ]
        assert world.metric("consumer_paused", reason="storage") == 0
        polls = world.client.polls
        world.wait(lambda: world.client.polls > polls)
        registry.schemas[7] = registry.schemas[1]
        registry.response = None
        world.wait(lambda: world.committed == 6)

    assert world.dead_letters.rejections == []
    assert list(world.store.documents) == ["a", "b", "c", "d"]
    assert world.metric("consumer_paused", reason="schema_registry") == 0
    assert (world.metric("consumer_retries_total", cause="schema_registry") or 0) > 0


def test_a_stop_during_an_outage_ends_the_consumer_and_commits_nothing(registry: FakeRegistry) -> None:
    registry.response = 503, b""
    world = World(order(registry), config={**CONFIG, "schema_registry": {"url": registry.url}})

    world.until(lambda: world.consumer.readiness_failures())

    assert (world.committed, world.dead_letters.rejections) == (0, [])


def test_the_audit_compares_decoded_messages_and_ends_where_it_cannot(registry: FakeRegistry) -> None:
    processor, records = processor_of(registry), [record(0, order(registry, "a")), record(1)]

    assert [identity for identity, _ in contents(processor, validated, records)] == ["a", "0-1"]

    registry.response = 503, b""
    with pytest.raises(SchemaRegistryUnavailable):
        contents(processor_of(registry), validated, records)


# -- keys


@pytest.mark.parametrize(
    ("schema", "key", "identity"), [("string", "k-1", "k-1"), ("long", 5, 5), (ORDER, {"id": "1", "total": 1}, None)]
)
def test_a_key_with_a_schema_is_decoded(registry: FakeRegistry, schema: Any, key: object, identity: object) -> None:
    processor = processor_of(registry, id="key", checks={}, dates=())
    framed_key = framed(registry.add_avro(schema), avro(schema, key))

    for value, fields in ((b'{"a": 1}', {"a": 1}), (order(registry), {"id": "1", "total": 2**40})):
        with_key = Record("t", 0, 0, framed_key, value)
        assert processor.process_ordinary([with_key]) == [None]
        if identity is None:
            with pytest.raises(InvalidMessage, match="the key is an object instead of a string or an integer"):
                processor.process(with_key)
        else:
            assert processor.process(with_key) == {"_id": identity, **fields}


def test_a_plain_key_stays_text_and_a_tombstone_has_the_identity_of_its_key(registry: FakeRegistry) -> None:
    processor = processor_of(registry, id="key", write="replace", on_tombstone="delete")
    key = framed(registry.add_avro("string"), avro("string", "k-1"))

    assert processor.process(Record("t", 0, 0, b"plain", b"{}")) == {"_id": "plain"}
    assert processor.process(Record("t", 0, 0, key, None)) == {"_id": "k-1"}


# -- settings


def test_a_password_that_is_renewed_in_its_file_is_used(registry: FakeRegistry, tmp_path: Path) -> None:
    file, message = tmp_path / "password", order(registry)
    file.write_text("old\n")
    registry.login = "user:new:with-colon"
    environ = {"SCHEMA_REGISTRY_URL": registry.url, "SCHEMA_REGISTRY_USERNAME": "user"}
    loaded = load_settings(DEFAULT_FILE, {**environ, "SCHEMA_REGISTRY_PASSWORD_FILE": str(file)})
    client = ConfluentSchemaRegistry(loaded.schema_registry)

    with pytest.raises(SchemaRegistryUnavailable, match="HTTP status code 401"):
        client.decode(message)
    file.write_text("new:with-colon\n")
    with pytest.raises(SchemaRegistryUnavailable):
        client.decode(message)

    assert client.decode(message) == {"id": "1", "total": 2**40}


def test_no_error_and_no_representation_contains_the_password(registry: FakeRegistry) -> None:
    settings = settings_of(registry, username="hunter1", password="hunter2")
    registry.response = 401, b""

    with pytest.raises(SchemaRegistryUnavailable) as caught:
        ConfluentSchemaRegistry(settings).decode(order(registry))

    assert "hunter" not in f"{settings!r} {caught.value} {caught.value.__cause__}"
    assert registry.url in repr(settings)


@pytest.mark.parametrize(
    "url", ["registry:8081", "ftp://registry", "http://", "http://user:hunter2@registry", "http://a,b", " http://a"]
)
def test_a_url_that_cannot_be_one_is_named_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"schema_registry\.url: it must be http:// or https://") as caught:
        parse(Settings, {"schema_registry": {"url": url}})

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://registry:8081", "https://registry/apis/ccompat/v7", "http://a:1, http://b:2/", "http://[::1]:8081"]
)
def test_a_url_is_accepted_and_shown(url: str) -> None:
    assert str(parse(Settings, {"schema_registry": {"url": url}}).schema_registry.url) == url


def test_a_ca_file_that_cannot_be_read_is_named(registry: FakeRegistry) -> None:
    settings = settings_of(registry, ssl_ca_location="/no/such.pem")

    with pytest.raises(ConfigurationError, match=r"schema_registry\.ssl_ca_location: cannot read '/no/such\.pem'"):
        open_registry(settings)


def test_packages_that_are_not_installed_are_named_with_the_command_that_installs_them(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "src.schema_registry.registry")
    monkeypatch.setitem(sys.modules, "confluent_kafka.schema_registry.avro", None)

    with pytest.raises(ConfigurationError, match=r"run `pip install -r requirements-schema-registry\.lock`, or build"):
        processor_for(parse(Settings, {"schema_registry": {"url": registry.url}}))


def test_without_a_url_nothing_is_imported() -> None:
    program = (
        "import sys, src.consumer, src.check; from src.data_processor import processor_for; from src.settings import"
    )
    program += " Settings; processor_for(Settings()); sys.exit('confluent_kafka.schema_registry' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], cwd=SERVICE, check=False).returncode == 0


@pytest.mark.parametrize(
    ("response", "code", "line"),
    [
        (None, 0, "ok schema registry {url} is reachable, it has AVRO, JSON, PROTOBUF"),
        ((401, b""), 2, "FAIL schema registry {url}: "),
    ],
)
def test_check_asks_the_registry(
    registry: FakeRegistry, tmp_path: Path, response: tuple[int, bytes] | None, code: int, line: str
) -> None:
    registry.response, shown = response, list[str]()
    with EmbeddedBroker({"data-topic": 1, "data-topic.dlq": 1}) as broker:
        tree = {
            "kafka": {"bootstrap_servers": broker.address},
            "mongodb": {"uri": f"sqlite:///{tmp_path}/store.db"},
            "schema_registry": {"url": registry.url},
        }
        assert check(parse(Settings, tree), Path("config.json"), show=shown.append, timeout=10.0) == code

    assert any(" ".join(each.split()).startswith(line.format(url=registry.url)) for each in shown)
