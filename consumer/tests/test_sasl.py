"""After a failed login the clients use the password that is in the secret's file now."""

import logging
from pathlib import Path

import pytest
from confluent_kafka import KafkaError

from src.kafka.sasl import SaslCredentials
from src.settings import KafkaSettings
from src.utils.secret import ClientSettings, Secret

LOGIN_FAILED = KafkaError(KafkaError._AUTHENTICATION, "wrong password")


class Client:
    def __init__(self) -> None:
        self.credentials: list[tuple[str, str]] = []

    def set_sasl_credentials(self, username: str, password: str, /) -> None:
        self.credentials.append((username, password))


def test_every_client_gets_the_renewed_password_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    file = tmp_path / "password"
    file.write_text("first")
    client = ClientSettings({"sasl.username": "user", "sasl.password": Secret("first").in_file(file)})
    credentials, clients = SaslCredentials(KafkaSettings(client=client)), [Client(), Client()]
    credentials.record_error(LOGIN_FAILED)
    credentials.renew_after_failed_login(*clients)
    assert [each.credentials for each in clients] == [[], []]

    file.write_text("second\n")
    credentials.record_error(KafkaError(KafkaError._TRANSPORT))
    credentials.renew_after_failed_login(*clients)
    assert [each.credentials for each in clients] == [[], []]

    credentials.record_error(LOGIN_FAILED)
    credentials.renew_after_failed_login(*clients)
    credentials.record_error(LOGIN_FAILED)
    credentials.renew_after_failed_login(*clients)

    assert [each.credentials for each in clients] == [[("user", "second")]] * 2
    assert caplog.messages == ["secret file changed, reconnecting"]
    assert "second" not in caplog.text


def test_clients_without_sasl_are_left_alone() -> None:
    client = Client()

    credentials = SaslCredentials(KafkaSettings())
    credentials.record_error(LOGIN_FAILED)
    credentials.renew_after_failed_login(client)

    assert client.credentials == []
