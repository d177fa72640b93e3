"""A SASL password that was renewed in its file."""

import logging
from typing import Protocol

from confluent_kafka import KafkaError

from src.settings import KafkaSettings

logger = logging.getLogger(__name__)

_LOGIN_FAILED = (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED)


class Client(Protocol):
    """What is needed of any client of confluent_kafka."""

    def set_sasl_credentials(self, username: str, password: str, /) -> None:
        """For the connections that are made from now on."""


class SaslCredentials:
    """The credentials of the clients. After a failed login the files are read again."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._used = self._read()
        self._login_failed = False

    def record_error(self, error: KafkaError) -> None:
        """For the client's callback, in which the client must not be called: it would abort the process."""
        self._login_failed = self._login_failed or error.code() in _LOGIN_FAILED

    def renew_after_failed_login(self, *clients: Client) -> None:
        """For the thread that polls, outside of callbacks."""
        if not self._login_failed:
            return
        self._login_failed = False
        credentials = self._read()
        if credentials == self._used or credentials is None:
            return
        self._used = credentials
        for client in clients:
            client.set_sasl_credentials(*credentials)
        logger.info("secret file changed, reconnecting", extra={"setting": "kafka.client"})

    def _read(self) -> tuple[str, str] | None:
        client = self._settings.client_settings
        username, password = client.get("sasl.username"), client.get("sasl.password")
        return None if username is None or password is None else (str(username), str(password))
