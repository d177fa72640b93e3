"""Settings, and librdkafka keys that are reserved because the guarantee depends on them."""

import pickle
import traceback
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from src.consumer import main
from src.kafka.group_member import GroupMember
from src.settings import DEFAULT_FILE, RESERVED, VARIABLES, DocumentSettings, Settings, load_settings
from src.utils.config import ConfigurationError, Variable, parse
from src.utils.metrics import ConsumerMetrics
from src.utils.secret import Secret

VALUES = {
    "KAFKA_BOOTSTRAP_SERVERS": "a:1",
    "KAFKA_GROUP_PROTOCOL": "consumer",
    "CONSUMER_MAX_RETRIES": "7",
    "CONSUMER_DEAD_LETTER_STORM_PERCENT": "7",
    "CONSUMER_ON_OFFSET_GAP": "stop",
    "DOCUMENT_WRITE": "merge",
    "DOCUMENT_ON_TOMBSTONE": "dead_letter",
    "MONGODB_URI": "mongodb://user:7000@host",
    "SCHEMA_REGISTRY_URL": "http://7000",
    "DOCUMENT_CHECKS": "a=string",
    "DOCUMENT_RENAME": "a=b",
    "DOCUMENT_TRANSFORM": "module:function",
    "KAFKA_SSL_CA_LOCATION": __file__,
    "KAFKA_SSL_CERTIFICATE_LOCATION": __file__,
    "KAFKA_SSL_KEY_LOCATION": __file__,
    "MONGODB_COLLECTIONS": "data-topic=7",
    "LOG_LEVEL": "DEBUG",
    "LOG_FORMAT": "text",
    "METRICS_ENABLED": "false",
}


def test_the_default_file_is_valid_and_equals_the_defaults() -> None:
    settings = load_settings(DEFAULT_FILE, {})

    folder = str(DEFAULT_FILE.parent.parent / "transforms")
    assert settings == Settings(document=DocumentSettings(transforms_folder=folder))


def test_lists_and_mappings_come_from_the_environment() -> None:
    environ = {
        "DOCUMENT_ID": "meta.event_id",
        "DOCUMENT_DATES": " ts.date , seen_at,",
        "DOCUMENT_CHECKS": "total = number,items=array",
        "DOCUMENT_RENAME": '{"ts": "time", "a,b": "c=d"}',
        "DOCUMENT_DROP": "[]",
    }

    document = load_settings(DEFAULT_FILE, environ).document

    assert (document.id, document.dates) == ("meta.event_id", ("ts.date", "seen_at"))
    assert document.checks == {"total": "number", "items": "array"}
    assert document.rename == {"ts": "time", "a,b": "c=d"}
    assert document.stored_dates == ("time.date", "seen_at")


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"id": "meta..id"}, "document.id: Expected the path of a field: .*'meta..id'"),
        ({"dates": ["a", ".b"]}, r"document.dates\[1\]: Expected the path of a field"),
        ({"rename": {"a.": "b"}}, r"document.rename: Expected the path of a field"),
        ({"checks": {"a": "text"}}, r"'text'; use one of string, number, integer, boolean, object, array"),
        ({"checks": {"created_at": "string"}}, "checks: `created_at` is one of dates"),
        ({"transform": "orders"}, "document.transform: Expected module:function, found 'orders'"),
        ({"keep": ["a"], "drop": ["b"]}, "keep and drop are both set; empty one of them"),
        ({"dates": ["id"]}, "dates: `id` is the identity, and no date"),
        ({"id": "key", "dates": ["_id"]}, "dates: `_id` is the identity, and no date"),
        ({"drop": ["id"]}, "drop: `id` is the identity"),
        ({"rename": {"id": "key"}}, "rename: `id` to `key`: `id` is the identity"),
        ({"rename": {"a": "id"}}, "rename: `a` to `id`: `id` is the identity"),
        ({"rename": {"a": "_id"}}, "rename: `a` to `_id`: _id and kafka are reserved"),
        ({"rename": {"a": "kafka.a"}}, "rename: `a` to `kafka.a`: _id and kafka are reserved"),
        ({"rename": {"a": "x", "b": "x"}}, "rename: `x` and `x` are the same field"),
        ({"rename": {"a": "x", "b": "x.y"}}, "rename: `x` and `x.y` are the same field, or one contains the other"),
        ({"rename": {"a.b": "x", "a": "y"}}, "rename: `a.b` and `a` are the same field, or one contains the other"),
        ({"rename": {"a.b": "x"}, "drop": ["a"]}, "rename: `a.b` to `x`: it is dropped"),
        ({"rename": {"a": "x"}, "keep": ["b"]}, "rename: `a` to `x`: it is not kept"),
    ],
)
def test_contradictions_in_the_document_section_are_named(document: Mapping[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        parse(Settings, {"document": document})


def test_another_identity_leaves_id_an_ordinary_field() -> None:
    document = parse(Settings, {"document": {"id": "key", "drop": ["id"], "rename": {"event": "id"}}}).document

    assert document.identity_field == "_id"


@pytest.mark.parametrize("key", RESERVED)
def test_a_client_key_that_would_undo_the_guarantee_is_rejected_by_name(key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"client\.{key} is reserved: "):
        parse(Settings, {"kafka": {"client": {key: "x"}}})


def test_the_dead_letter_topic_must_differ_from_the_topic() -> None:
    with pytest.raises(ConfigurationError, match=r"config\.json and KAFKA_DEAD_LETTER_TOPIC: kafka: dead_lett"):
        load_settings(DEFAULT_FILE, {"KAFKA_DEAD_LETTER_TOPIC": "data-topic"})


def test_whitespace_and_a_trailing_comma_are_removed_from_the_servers() -> None:
    settings = load_settings(DEFAULT_FILE, {"KAFKA_BOOTSTRAP_SERVERS": " a:9092 , b:9092,"})

    assert settings.kafka.client_settings["bootstrap.servers"] == "a:9092,b:9092"


@pytest.mark.parametrize("percent", ["0", "101", "79.5", "all"])
def test_a_share_that_is_not_a_whole_percentage_is_rejected(percent: str) -> None:
    with pytest.raises(ConfigurationError, match="CONSUMER_DEAD_LETTER_STORM_PERCENT"):
        load_settings(DEFAULT_FILE, {"CONSUMER_DEAD_LETTER_STORM_PERCENT": percent})


@pytest.mark.parametrize("topic", ["a b", "data-topic\n", "", "x" * 250])
def test_a_topic_that_kafka_could_not_have_is_rejected(topic: str) -> None:
    with pytest.raises(ConfigurationError, match=r"kafka\.topic"):
        parse(Settings, {"kafka": {"topic": topic}})


def test_variables_injected_by_kubernetes_are_ignored() -> None:
    injected = {
        "KAFKA_PORT": "tcp://10.0.0.1:9092",
        "MONGODB_PORT": "tcp://10.0.0.1:27017",
        "CONSUMER_PORT": "tcp://x:1",
    }

    assert load_settings(DEFAULT_FILE, injected) == load_settings(DEFAULT_FILE, {})


def test_values_that_the_client_itself_rejects_are_a_wrong_setting() -> None:
    settings = parse(Settings, {"kafka": {"client": {"session.timeout.ms": -5}}})
    metrics = ConsumerMetrics(CollectorRegistry(), version="1", dead_letter_reasons=())

    with pytest.raises(ConfigurationError, match=r"kafka\.client: .*session\.timeout\.ms"):
        GroupMember(settings.kafka, settings.consumer, metrics)


def test_no_message_contains_a_secret(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MONGODB_URI", "http://user:very-secret@host")

    assert main([]) == 2

    assert "very-secret" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("mongodb://user:hunter2@host", "mongodb://user:***@host"),
        ("mongodb://:hunter2@host/", "mongodb://:***@host/"),
        ("mongodb+srv://user:hunter2@a.b/db?replicaSet=r", "mongodb+srv://user:***@a.b/db?replicaSet=r"),
        ("mongodb://user:hunter2@a:1,[::1]:2/?w=1", "mongodb://user:***@a:1,[::1]:2/?w=1"),
        (
            "mongodb://a/?tlsCertificateKeyFilePassword=hunter2&w=1",
            "mongodb://a/?tlsCertificateKeyFilePassword=***&w=1",
        ),
        ("mongodb://a/?authMechanismProperties=AWS_SESSION_TOKEN:hunter2", "mongodb://a/?authMechanismProperties=***"),
        ("mongodb://user@host:27017", "mongodb://user@host:27017"),
        ("sqlite:////a/store.db", "sqlite:////a/store.db"),
        ("mongodb://user:hunter2", "mongodb://***"),
        ("mongodb://user:hu@nter2@host", "mongodb://***"),
        ("mongodb://user:hunter2/hunter2@host", "mongodb://***"),
        ("mongodb://user:1234?hunter2@host", "mongodb://***"),
        ("mongodb://a/?proxyPassword=hunter@hunter2", "mongodb://***"),
        ("mongodb://user:hunter2@host\n", "mongodb://***"),
    ],
)
def test_a_store_uri_is_shown_without_its_secrets(uri: str, shown: str) -> None:
    settings = parse(Settings, {"mongodb": {"uri": uri}})

    assert str(settings.mongodb.uri) == shown
    assert "hunter" not in repr(settings)
    assert "hunter" not in repr(pickle.dumps(settings))
    assert settings.mongodb.uri.reveal() == uri


@pytest.mark.parametrize("uri", ["http://user:hunter2@host", "hunter2", ["hunter2"]])
def test_an_invalid_store_uri_is_named_and_not_shown(uri: object) -> None:
    with pytest.raises(ConfigurationError, match=r"mongodb\.uri: ") as caught:
        parse(Settings, {"mongodb": {"uri": uri}})

    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda variable: variable.name)
def test_the_value_of_a_secret_variable_is_shown_as_a_mask_and_that_of_others_is_not(variable: Variable) -> None:
    section: Any = load_settings(DEFAULT_FILE, {variable.name: VALUES.get(variable.name, "7000")})
    for name in variable.path:
        section = section[name] if isinstance(section, Mapping) else getattr(section, name)

    assert isinstance(section, Secret) is variable.secret


@pytest.mark.parametrize("variable", ["KAFKA_TOPIC", "KAFKA_DEAD_LETTER_TOPIC"])
@pytest.mark.parametrize("topic", [".", "..", "a/b"])
def test_a_name_that_kafka_does_not_allow_for_a_topic_is_rejected_with_the_rule(variable: str, topic: str) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"{variable}: Expected the name of a topic: 1 to 249 letters, digits"
    ):
        load_settings(DEFAULT_FILE, {variable: topic})


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "localhost", "Expected host:port"),
        ("MONGODB_DATABASE", "a.b", "Expected the name of a database"),
        ("MONGODB_COLLECTION", "system.users", "Expected the name of a collection"),
    ],
)
def test_a_rejected_name_comes_with_the_rule_and_not_with_a_regular_expression(
    variable: str, value: str, text: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"{variable}: {text}") as caught:
        load_settings(DEFAULT_FILE, {variable: value})

    assert "regex" not in str(caught.value)


# -- several topics


def test_several_topics_are_read_in_place_of_the_default_one() -> None:
    kafka = load_settings(DEFAULT_FILE, {"KAFKA_TOPICS": "orders, payments"}).kafka

    assert list(kafka.subscription) == list(kafka.known_topics) == ["orders", "payments"]
    assert [kafka.reads(topic) for topic in ("orders", "data-topic")] == [True, False]


def test_which_topics_match_a_pattern_is_known_to_kafka_only_and_the_dead_letter_topic_never_does() -> None:
    kafka = parse(Settings, {"kafka": {"topics": [r"^data[-.]"]}}).kafka

    assert kafka.known_topics == ()
    assert [kafka.reads(topic) for topic in ("data-topic", "data.a", "my-data-topic", "data-topic.dlq")] == [
        *(True, True, False, False)
    ]


@pytest.mark.parametrize(
    ("kafka", "text"),
    [
        ({"topic": "invoices", "topics": ["orders"]}, "topics does not include topic, invoices; add it to topics, or"),
        ({"topic": "invoices", "topics": ["^order"]}, "topics does not include topic, invoices"),
        ({"topics": ["orders", "^pay"]}, "a pattern is the only entry"),
        ({"topics": ["orders", "orders"]}, "a topic is there twice"),
        ({"topics": ["orders", "data-topic.dlq"]}, "would read its own dead letters"),
        ({"topics": ["or ders"]}, "Expected the name of a topic, or `\\^` and a pattern"),
        ({"topics": [r"^\d+"]}, "Expected the name of a topic, or `\\^` and a pattern"),
        ({"topics": ["^(?:data)"]}, "Expected the name of a topic, or `\\^` and a pattern"),
        ({"topics": ["^(?data)"]}, "has `\\(\\?`, which is not in POSIX"),
        ({"topics": ["^a.*?b"]}, "has `\\*\\?`, which is not in POSIX"),
        ({"topics": ["^a{x}"]}, "has `{`, which is not in POSIX"),
        ({"topics": ["^(a"]}, "is not a regular expression: missing \\)"),
    ],
)
def test_topics_that_are_wrong_or_contradict_one_another_are_rejected(kafka: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        parse(Settings, {"kafka": kafka})


def test_a_topic_that_is_repeated_in_topics_is_no_contradiction() -> None:
    kafka = parse(Settings, {"kafka": {"topic": "orders", "topics": ["orders", "payments"]}}).kafka

    assert list(kafka.subscription) == ["orders", "payments"]


def test_the_collection_of_a_topic() -> None:
    settings = {"kafka": {"topics": ["orders", "pay"]}, "mongodb": {"collection": "all"}}
    by_name = {**settings, "mongodb": {"collection": "of_{topic}", "collections": {"pay": "payments"}}}

    assert [parse(Settings, settings).mongodb.collection_of(topic) for topic in ("orders", "pay")] == ["all", "all"]
    assert [parse(Settings, by_name).mongodb.collection_of(topic) for topic in ("orders", "pay")] == [
        *("of_orders", "payments")
    ]


@pytest.mark.parametrize(
    ("mongodb", "text"),
    [
        ({"collections": {"orders": "a", "payment": "b"}}, "mongodb.collections has payment, which is not read"),
        ({"collections": {"orders": "a$b"}}, "Expected the name of a collection"),
        ({"collection": "{topic}"}, "system.log cannot be a collection; give topic system.log another one"),
    ],
)
def test_a_wrong_collection_is_told_at_the_start(mongodb: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        parse(Settings, {"kafka": {"topics": ["orders", "system.log"]}, "mongodb": mongodb})
