"""Settings are validated before anything connects."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from src.settings import DEFAULT_FILE, RESERVED, VARIABLES, Settings, load_settings
from src.utils.config import ConfigurationError, Variable
from src.utils.secret import Secret

VALUES = {
    "KAFKA_BOOTSTRAP_SERVERS": "a:1",
    "KAFKA_COMPRESSION_TYPE": "none",
    "PRODUCER_MAX_RETRIES": "7",
    "PRODUCER_ON_OUTAGE": "wait",
    "KAFKA_SSL_CA_LOCATION": __file__,
    "KAFKA_SSL_CERTIFICATE_LOCATION": __file__,
    "KAFKA_SSL_KEY_LOCATION": __file__,
    "LOG_LEVEL": "DEBUG",
    "LOG_FORMAT": "text",
    "METRICS_ENABLED": "false",
}


def loaded(folder: Path, tree: dict[str, Any] | None = None, **environ: str) -> Settings:
    file = folder / "config" / "config.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(tree or {}))
    return load_settings(file, environ)


def test_the_default_file_is_valid_and_has_the_documented_values() -> None:
    settings = load_settings(DEFAULT_FILE, {})

    assert (settings.kafka.bootstrap_servers, settings.kafka.topic) == ("kafka:9092", "data-topic")
    assert (settings.producer.interval_ms, settings.producer.batch_size) == (36, 100)
    assert (settings.producer.max_retries, settings.producer.initial_retry_delay_ms) == (3, 3000)
    assert settings.metrics.port == 8000


def test_the_default_file_and_the_defaults_are_equal() -> None:
    file, defaults = load_settings(DEFAULT_FILE, {}), Settings()

    assert (file.kafka, file.logging, file.metrics) == (defaults.kafka, defaults.logging, defaults.metrics)


def test_the_interval_applies_per_message() -> None:
    assert Settings().producer.batch_interval == pytest.approx(3.6)


def test_environment_variables_override_the_file(tmp_path: Path) -> None:
    tree = {"kafka": {"topic": "file"}, "producer": {"batch_size": 1}}

    settings = loaded(
        tmp_path, tree, KAFKA_TOPIC="env", PRODUCER_BATCH_SIZE="7", PRODUCER_INTERVAL_MS="0.5", METRICS_ENABLED="false"
    )

    assert (settings.kafka.topic, settings.producer.batch_size, settings.producer.interval_ms) == ("env", 7, 0.5)
    assert not settings.metrics.enabled


def test_the_undelivered_folder_is_relative_to_the_parent_of_the_configuration_folder(tmp_path: Path) -> None:
    relative = loaded(tmp_path)
    absolute = loaded(tmp_path, PRODUCER_UNDELIVERED_DIR="/var/spool/undelivered")

    assert relative.producer.undelivered_dir == str(tmp_path / "undelivered")
    assert absolute.producer.undelivered_dir == "/var/spool/undelivered"


def test_whitespace_and_empty_entries_in_the_servers_are_removed(tmp_path: Path) -> None:
    settings = loaded(tmp_path, KAFKA_BOOTSTRAP_SERVERS=" a:9092 ,\tb:9092,")

    assert settings.kafka.client_settings["bootstrap.servers"] == "a:9092,b:9092"


def test_tls_and_sasl_settings_reach_the_client(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("p@ss\r\n")

    settings = loaded(
        tmp_path,
        KAFKA_SECURITY_PROTOCOL="SASL_SSL",
        KAFKA_SASL_MECHANISM="SCRAM-SHA-512",
        KAFKA_SASL_USERNAME="me",
        KAFKA_SASL_PASSWORD_FILE=str(secret),
    )

    assert settings.kafka.client.reveal() == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "me",
        "sasl.password": "p@ss",
    }


def test_variables_injected_by_kubernetes_are_ignored(tmp_path: Path) -> None:
    injected = {"KAFKA_PORT": "tcp://10.0.0.1:9092", "PRODUCER_PORT_8000_TCP": "tcp://10.0.0.1:8000"}

    assert loaded(tmp_path, None, **injected) == loaded(tmp_path)


def test_blank_variables_are_ignored(tmp_path: Path) -> None:
    assert loaded(tmp_path, KAFKA_TOPIC="", METRICS_PORT=" ", PRODUCER_BATCH_SIZE="\r") == loaded(tmp_path)


@pytest.mark.parametrize("key", sorted(RESERVED))
def test_a_reserved_client_key_is_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigurationError, match=key):
        loaded(tmp_path, {"kafka": {"client": {key: "1"}}})


@pytest.mark.parametrize(
    ("tree", "place"),
    [
        ({"kafka": {"topics": "x"}}, "topics"),
        ({"kafka": {"topic": "a b"}}, "kafka.topic"),
        ({"kafka": {"topic": "data-topic\n"}}, "kafka.topic"),
        ({"kafka": {"bootstrap_servers": "kafka"}}, "kafka.bootstrap_servers"),
        ({"kafka": {"compression_type": "rar"}}, "kafka.compression_type"),
        ({"producer": {"batch_size": 0}}, "producer.batch_size"),
        ({"producer": {"interval_ms": -1}}, "producer.interval_ms"),
        ({"producer": {"interval_ms": "36"}}, "producer.interval_ms"),
        ({"producer": {"max_retries": 1.5}}, "producer.max_retries"),
        ({"producer": {"delivery_timeout_ms": 1}}, "producer.delivery_timeout_ms"),
        ({"producer": {"undelivered_dir": ""}}, "producer.undelivered_dir"),
        ({"logging": {"level": "LOUD"}}, "logging.level"),
        ({"metrics": {"port": 70000}}, "metrics.port"),
        ({"producer": []}, "producer"),
    ],
)
def test_an_invalid_setting_is_named(tmp_path: Path, tree: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigurationError, match=place):
        loaded(tmp_path, tree)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("METRICS_PORT", "tcp://10.0.0.1:8000"),
        ("PRODUCER_BATCH_SIZE", "1_000x"),
        ("PRODUCER_BATCH_SIZE", "-1"),
        ("PRODUCER_INTERVAL_MS", "nan"),
        ("PRODUCER_INTERVAL_MS", "inf"),
        ("LOG_LEVEL", '"INFO"'),
        ("KAFKA_TOPIC", "a\rb"),
    ],
)
def test_an_invalid_variable_is_named_with_its_value_escaped(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, None, **{name: text})

    assert name in str(caught.value)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda variable: variable.name)
def test_the_value_of_a_secret_variable_is_shown_as_a_mask_and_that_of_others_is_not(variable: Variable) -> None:
    section: Any = load_settings(DEFAULT_FILE, {variable.name: VALUES.get(variable.name, "7000")})
    for name in variable.path:
        section = section[name] if isinstance(section, Mapping) else getattr(section, name)

    assert isinstance(section, Secret) is variable.secret


@pytest.mark.parametrize("topic", [".", "..", "a/b", "ä", "a" * 250, "a\n"])
def test_a_name_that_kafka_does_not_allow_for_a_topic_is_rejected_with_the_rule(tmp_path: Path, topic: str) -> None:
    with pytest.raises(ConfigurationError, match="Expected the name of a topic: 1 to 249 letters, digits") as in_file:
        loaded(tmp_path, {"kafka": {"topic": topic}})
    assert str(in_file.value).partition(": ")[2].startswith("kafka.topic: ")

    if topic != "a\n":  # a variable is trimmed
        with pytest.raises(ConfigurationError, match=r"KAFKA_TOPIC: Expected the name of a topic: .* neither `\.` nor"):
            loaded(tmp_path, KAFKA_TOPIC=topic)


@pytest.mark.parametrize("topic", ["...", ".a", "a.", "_", "a" * 249])
def test_a_name_that_kafka_allows_for_a_topic_is_accepted(tmp_path: Path, topic: str) -> None:
    assert loaded(tmp_path, KAFKA_TOPIC=topic).kafka.topic == topic


def test_servers_without_a_port_are_rejected_with_the_rule(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="KAFKA_BOOTSTRAP_SERVERS: Expected host:port, or several of them"):
        loaded(tmp_path, KAFKA_BOOTSTRAP_SERVERS="localhost")
