"""Mistakes in the settings that `--check` names without any server."""

from pathlib import Path

import pytest

from src.settings import DEFAULT_FILE, VARIABLES, load_settings
from src.utils.config import ConfigurationError
from src.utils.secret import ClientSettings
from src.utils.settings_check import require_files, warnings_about

OTHERS = [
    "PATH",
    "HOME",
    "LOGNAME",
    "LOG_FILE",
    "LOG_PATH",
    "KAFKA_OPTS",
    "KAFKA_HEAP_OPTS",
    "KAFKA_JMX_PORT",
    "KAFKA_PORT",
    "KAFKA_SERVICE_HOST",
    "KAFKA_SERVICE_PORT",
    "KAFKA_PORT_9092_TCP",
    "KAFKA_PORT_9092_TCP_ADDR",
    "PRODUCER_SERVICE_PORT",
    "METRICS_PATH",
    "KAFKA_CLIENT_ID",
    "KAFKA_IMAGE",
    "KAFKA_HOST_PORT",
    "KAFKA_PARTITIONS",
    "KAFKA_RETENTION_HOURS",
    "TEST_KAFKA_SERVERS",
    "CONSUMER_GROUP_ID",
    "CONSUMER_BATCH_SIZE",
    "CONSUMER_MAX_RETRIES",
    "MONGODB_URI",
    "MONGODB_DATABASE",
]
FILES = ("KAFKA_SSL_CA_LOCATION", "KAFKA_SSL_CERTIFICATE_LOCATION", "KAFKA_SSL_KEY_LOCATION")


@pytest.mark.parametrize("variable", FILES)
def test_a_missing_file_is_a_wrong_setting_and_is_named_with_its_key(variable: str) -> None:
    [key] = [each.path[2] for each in VARIABLES if each.name == variable]

    with pytest.raises(ConfigurationError) as caught:
        load_settings(DEFAULT_FILE, {variable: "/no/such/file.pem"})

    problem = f"kafka.client: cannot read {key}=/no/such/file.pem: No such file or directory"
    assert str(caught.value) == f"{DEFAULT_FILE} and the environment: {problem}"


def test_every_missing_file_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"/no/ca\.pem: .*, ssl\.key\.location=/no/key\.pem: "):
        require_files(
            ClientSettings({"ssl.ca.location": "/no/ca.pem", "ssl.key.location": "/no/key.pem"}), "config.json"
        )


@pytest.mark.parametrize("value", ["", "probe"])
def test_values_that_are_no_paths_are_allowed(value: str) -> None:
    require_files(ClientSettings({"ssl.ca.location": value}), "config.json")


def test_existing_files_and_folders_are_allowed(tmp_path: Path) -> None:
    certificate = tmp_path / "cert.pem"
    certificate.touch()

    require_files(
        ClientSettings({"ssl.ca.location": str(tmp_path), "ssl.certificate.location": str(certificate)}), "config.json"
    )


def test_a_path_that_no_file_can_have_is_named() -> None:
    with pytest.raises(ConfigurationError, match="embedded null"):
        require_files(ClientSettings({"ssl.ca.location": "\0"}), "config.json")


@pytest.mark.parametrize(
    ("client", "warnings"),
    [
        ({"sasl.username": "u", "security.protocol": "SASL_SSL", "ssl.ca.location": "/ca"}, []),
        ({"ssl.ca.location": "/ca", "security.protocol": "ssl"}, []),
        ({"security.protocol": "plaintext"}, []),
        (
            {"sasl.username": "u", "sasl.password": "p"},
            ["no effect: sasl.password, sasl.username, because security.protocol is plaintext; set it to SASL_SSL"],
        ),
        (
            {"sasl.username": "u", "security.protocol": "SSL"},
            ["no effect: sasl.username, because security.protocol is SSL; set it to SASL_SSL"],
        ),
        (
            {"ssl.ca.location": "/ca", "security.protocol": "SASL_PLAINTEXT"},
            ["no effect: ssl.ca.location, because security.protocol is SASL_PLAINTEXT; set it to SSL or SASL_SSL"],
        ),
    ],
)
def test_keys_without_effect_are_warned_of(client: dict[str, str], warnings: list[str]) -> None:
    assert warnings_about((), ClientSettings(client), {}) == warnings


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("KAFKA_BOOTSTRAP_SERVER", "KAFKA_BOOTSTRAP_SERVERS"),
        ("KAFKA_SASL_MECHANISMS", "KAFKA_SASL_MECHANISM"),
        ("KAFKA_SASL_USER", "KAFKA_SASL_USERNAME"),
        ("KAFKA_SASL_PASS", "KAFKA_SASL_PASSWORD"),
        ("kafka_topic", "KAFKA_TOPIC"),
        ("KAFKA_SSL_CA_LOCATION_FILE", "KAFKA_SSL_CA_LOCATION"),
    ],
)
def test_a_name_close_to_that_of_a_variable_is_warned_of(name: str, meant: str) -> None:
    assert warnings_about(VARIABLES, ClientSettings(), {name: "x"}) == [
        f"the variable {name} is not read; did you mean {meant}?"
    ]


def test_names_of_others_are_not_warned_of() -> None:
    secrets = [f"{variable.name}_FILE" for variable in VARIABLES if variable.secret]
    own = [variable.name for variable in VARIABLES]

    assert warnings_about(VARIABLES, ClientSettings(), dict.fromkeys([*OTHERS, *own, *secrets], "x")) == []
