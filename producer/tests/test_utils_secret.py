"""A secret is shown as `***` in every way to show a value."""

import copy
import io
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from src.settings import KafkaSettings, Settings, load_settings
from src.utils.config import ConfigurationError, parse
from src.utils.logging import configure
from src.utils.secret import ClientSettings, Secret

PASSWORD = "hunter2"
SETTINGS = parse(Settings, {"kafka": {"client": {"sasl.password": PASSWORD, "linger.ms": 7}}})
CREDENTIALS = [
    "sasl.username",
    "sasl.password",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
    "sasl.jaas.config",
    "sasl.kerberos.kinit.cmd",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.assertion.private.key.passphrase",
]


def in_a_log(style: str) -> Callable[[Any], str]:
    def logged(value: Any) -> str:
        root = logging.getLogger()
        before = (root.handlers[:], root.level)
        root.handlers.clear()
        stream = io.StringIO()
        try:
            configure(service="s", version="1", style=style, stream=stream)
            logging.getLogger("test").warning("event %s %r", value, value, extra={"value": value, "values": [value]})
        finally:
            root.handlers[:], root.level = before
            logging.captureWarnings(False)
        return stream.getvalue()

    return logged


def in_a_traceback(value: Any) -> str:
    try:
        raise ConfigurationError(f"invalid: {value}")
    except ConfigurationError as error:
        return "".join(traceback.format_exception(error))


def encoded(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=dict_or_text).decode()


def dict_or_text(value: Any) -> Any:
    return dict(value) if isinstance(value, ClientSettings) else str(value)


WAYS: dict[str, Callable[[Any], str]] = {
    "str": str,
    "repr": repr,
    "ascii": ascii,
    "format": lambda value: f"{value} {value!r} {value!s}",
    "%": lambda value: "%s %r" % (value, value),  # noqa: UP031 - the way under test
    "a container": lambda value: repr([{"a": (value,)}]),
    "an exception": lambda value: repr(ValueError(value)),
    "a traceback": in_a_traceback,
    "a JSON log line": in_a_log("json"),
    "a text log line": in_a_log("text"),
    "json": lambda value: json.dumps([value], default=dict_or_text),
    "msgspec": encoded,
    "builtins": lambda value: repr(msgspec.to_builtins(value, enc_hook=dict_or_text)),
    "pickle": lambda value: repr(pickle.dumps(value)),
    "pickle, and back": lambda value: repr(pickle.loads(pickle.dumps(value))),
    "a copy": lambda value: repr((copy.copy(value), copy.deepcopy(value))),
}


@pytest.mark.parametrize("value", [Secret(PASSWORD), SETTINGS.kafka.client, SETTINGS.kafka, SETTINGS], ids=repr)
@pytest.mark.parametrize("way", WAYS)
def test_a_secret_is_shown_as_its_mask(value: Any, way: str) -> None:
    shown = WAYS[way](value)

    assert "***" in shown
    assert PASSWORD not in shown


def test_the_fields_of_settings_do_not_contain_a_secret() -> None:
    assert not hasattr(Secret(PASSWORD), "__dict__")
    assert not hasattr(SETTINGS.kafka.client, "__dict__")
    assert PASSWORD not in repr(msgspec.structs.asdict(SETTINGS.kafka))
    assert PASSWORD not in repr(list(SETTINGS.kafka.client.items()))


@pytest.mark.parametrize("encode", [json.dumps, msgspec.json.encode, msgspec.msgpack.encode])
def test_an_encoder_without_a_hook_rejects_a_secret(encode: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError) as caught:
        encode(Secret(PASSWORD))

    assert PASSWORD not in str(caught.value)


def test_a_mask_can_be_aligned() -> None:
    assert f"{Secret(PASSWORD):>5}|" == "  ***|"


def test_the_configuration_of_a_client_has_the_secret() -> None:
    assert Secret(PASSWORD).reveal() == PASSWORD
    assert SETTINGS.kafka.client_settings["sasl.password"] == PASSWORD
    assert SETTINGS.kafka.client.reveal() == {"sasl.password": PASSWORD, "linger.ms": 7}


def test_equal_secrets_are_equal() -> None:
    assert Secret(PASSWORD) == Secret(PASSWORD) != Secret("other")
    assert len({Secret(PASSWORD), Secret(PASSWORD), ClientSettings({"a": 1}), ClientSettings({"a": 1})}) == 2
    assert Secret(PASSWORD) != PASSWORD


@pytest.mark.parametrize("key", CREDENTIALS)
@pytest.mark.parametrize("value", [PASSWORD, 77123])
def test_the_value_of_a_credential_is_a_secret(key: str, value: str | int) -> None:
    client = parse(KafkaSettings, {"client": {key: value}}).client

    assert client[key] == Secret(str(value))
    assert str(value) not in repr(client)
    assert client.reveal() == {key: str(value)}


@pytest.mark.parametrize(
    "key", ["ssl.ca.pem", "ssl.key.location", "sasl.mechanism", "sasl.oauthbearer.token.endpoint.url"]
)
def test_a_value_that_is_not_a_credential_is_shown(key: str) -> None:
    assert parse(KafkaSettings, {"client": {key: "plain"}}).client == {key: "plain"}


@pytest.mark.parametrize("value", [[PASSWORD], {PASSWORD: 1}, None])
def test_an_error_names_an_invalid_credential_and_does_not_show_it(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"sasl\.password") as caught:
        parse(Settings, {"kafka": {"client": {"sasl.password": value}}})

    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


def test_credentials_from_the_environment_are_secrets(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "password").write_text(PASSWORD)
    environ = {"KAFKA_SASL_USERNAME": PASSWORD, "KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password")}

    settings = load_settings(tmp_path / "config.json", environ)

    assert PASSWORD not in repr(settings)
    assert settings.kafka.client.reveal() == {"sasl.username": PASSWORD, "sasl.password": PASSWORD}


def test_a_secret_in_a_file_is_what_the_file_contains_now(tmp_path: Path) -> None:
    config, file = tmp_path / "config.json", tmp_path / "password"
    config.write_text("{}")
    file.write_text("first\n")
    environ = {"KAFKA_SASL_PASSWORD_FILE": str(file)}
    settings = load_settings(config, environ).kafka
    before = hash(settings)
    seen = [settings.client_settings["sasl.password"]]

    file.write_bytes(b"second\r\n")
    seen.append(settings.client_settings["sasl.password"])

    assert seen == ["first", "second"]
    assert hash(settings) == before
    assert "second" not in repr(settings)


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff"])
def test_a_file_that_holds_no_secret_any_more_leaves_the_first_one(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "password"
    secret = Secret("first").in_file(file)

    if content is not None:
        file.write_bytes(content)

    assert secret.reveal() == "first"
