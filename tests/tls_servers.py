"""Servers with TLS and certificates of a private CA: a Kafka with SCRAM logins, and a proxy before a MongoDB."""

import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme
from confluent_kafka.admin import (
    AclBinding,
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from confluent_kafka.cimpl import NewTopic
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from local.protocols import MongoProtocol
from local.relay import Relay
from tests.docker_engine import image

PATIENCE = 60.0  # seconds to wait for a broker
START_TIMEOUT = 180  # seconds, on a loaded machine
SECRETS = "/etc/kafka/secrets"
BROKER = {
    "CLUSTER_ID": "MkU3OEVBNTcwNTJENDM2Qk",
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9094",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_INTER_BROKER_LISTENER_NAME": "ADMIN",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "TLS:SASL_SSL,ADMIN:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "KAFKA_LISTENER_NAME_TLS_SASL_ENABLED_MECHANISMS": "SCRAM-SHA-512",
    "KAFKA_LISTENER_NAME_TLS_SCRAM___SHA___512_SASL_JAAS_CONFIG": (
        "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    ),
    "KAFKA_SSL_KEYSTORE_TYPE": "PEM",
    "KAFKA_SSL_KEYSTORE_LOCATION": f"{SECRETS}/server.pem",
    "KAFKA_AUTHORIZER_CLASS_NAME": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "KAFKA_SUPER_USERS": "User:ANONYMOUS",  # the clients of the listener ADMIN
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
}


class Certificates:
    """`ca.pem`, `server.pem` for this machine, and `other-ca.pem`, which has not issued it."""

    def __init__(self, folder: Path) -> None:
        ca = trustme.CA()
        issued = ca.issue_cert("127.0.0.1", "localhost")
        self.ca, self.server, self.other_ca = folder / "ca.pem", folder / "server.pem", folder / "other-ca.pem"
        ca.cert_pem.write_to_path(str(self.ca))
        trustme.CA().cert_pem.write_to_path(str(self.other_ca))
        self.server.write_bytes(_pkcs8(issued.private_key_pem.bytes()) + issued.cert_chain_pems[0].bytes())
        self.server.chmod(0o644)  # the broker is another user
        folder.chmod(0o755)


def _pkcs8(key: bytes) -> bytes:
    """The only form that Kafka reads."""
    private_key = load_pem_private_key(key, password=None)
    return private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class KafkaWithTls:
    """A broker on this machine: `servers` takes TLS and SCRAM, and this object administrates it without."""

    def __init__(self, servers: str, admin_servers: str) -> None:
        self.servers = servers
        self._admin = AdminClient({"bootstrap.servers": admin_servers, "log_level": 0})

    def create_topics(self, *names: str) -> None:
        self._done(self._admin.create_topics([NewTopic(name, 1, 1) for name in names]))

    def create_user(self, name: str, password: str, acls: Iterable[AclBinding]) -> None:
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        user = UserScramCredentialUpsertion(name, info, password.encode())
        self._done(self._admin.alter_user_scram_credentials([user]))
        self._done(self._admin.create_acls(list(acls)))

    @staticmethod
    def _done(results: Mapping[Any, Future[Any]]) -> None:
        wait(results.values(), PATIENCE)
        for result in results.values():
            result.result(0)


@contextmanager
def kafka_with_tls(certificates: Certificates) -> Iterator[KafkaWithTls]:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    tls, admin = free_port(), free_port()
    listeners = f"TLS://{{0}}:{tls},ADMIN://{{0}}:{admin}"
    container = DockerContainer(image("KAFKA_IMAGE")).with_envs(
        **BROKER,
        KAFKA_LISTENERS=listeners.format("0.0.0.0") + ",CONTROLLER://localhost:9094",
        KAFKA_ADVERTISED_LISTENERS=listeners.format("127.0.0.1"),
    )
    container.with_volume_mapping(str(certificates.server.parent), SECRETS, "ro")
    container.waiting_for(LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(START_TIMEOUT))
    with container.with_bind_ports(tls, tls).with_bind_ports(admin, admin):
        yield KafkaWithTls(f"127.0.0.1:{tls}", f"127.0.0.1:{admin}")


def tls_proxy(host: str, port: int, certificates: Certificates) -> Relay:
    """Takes TLS connections for a MongoDB without, as stunnel does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server)
    return Relay((host, port), MongoProtocol, name="tls-proxy", tls=context)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
