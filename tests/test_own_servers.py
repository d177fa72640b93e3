"""The services on servers with TLS, logins and permissions: what docs/your-own-servers.md promises.

Each user has the permissions that docs/configuration.md lists, and no others.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType
from pymongo import MongoClient

from tests.docker_engine import image, require_containers
from tests.test_docs import CONFIGURATION, ROOT, quoted, rows
from tests.tls_servers import Certificates, KafkaWithTls, kafka_with_tls, tls_proxy

TIMEOUT = 120  # seconds for one command, on a loaded machine
NAMES = {"kafka.topic": "data-topic", "kafka.dead_letter_topic": "data-topic.dlq", "kafka.group_id": "my-group"}
PROGRAMS = {"producer": ("producer",), "consumer": ("consumer", "`src.dead_letters` and `src.audit`")}
PASSWORD = "p@ss: /?#%41"

pytestmark = pytest.mark.docker

Environment = dict[str, str]


def acls(user: str) -> list[AclBinding]:
    """The permissions of the programs that this user runs, from the table in docs/configuration.md."""
    return [
        AclBinding(
            ResourceType[resource.split()[0].upper()],
            NAMES[quoted(resource)[0]],
            ResourcePatternType.LITERAL,
            f"User:{user}",
            "*",
            AclOperation[quoted(operation)[0].upper()],
            AclPermissionType.ALLOW,
        )
        for program, resource, operation in rows(CONFIGURATION, "ACLs")
        if program in PROGRAMS[user]
    ]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def kafka(certificates: Certificates) -> Iterator[KafkaWithTls]:
    require_containers("Kafka with TLS in a container", "KAFKA_IMAGE")
    with kafka_with_tls(certificates) as kafka:
        kafka.create_topics(NAMES["kafka.topic"], NAMES["kafka.dead_letter_topic"])
        for user in PROGRAMS:
            kafka.create_user(user, PASSWORD, acls(user))
        yield kafka


@pytest.fixture(scope="module")
def mongodb(certificates: Certificates) -> Iterator[str]:
    """The URI of a user who may read and write one database, and whose login is in `admin`."""
    require_containers("MongoDB in a container", "MONGO_IMAGE")
    from testcontainers.community.mongodb import MongoDbContainer

    with MongoDbContainer(image("MONGO_IMAGE")) as container:
        url = container.get_connection_url()
        with MongoClient[dict[str, object]](url) as client:
            roles = [{"role": "readWrite", "db": "pubsub"}]
            client.admin.command("createUser", "consumer", pwd="secret", roles=roles)
        address = urlsplit(url)
        with tls_proxy(address.hostname or "", address.port or 0, certificates) as proxy:
            host, port = proxy.address
            yield f"mongodb://consumer:secret@{host}:{port}/?authSource=admin&tls=true&tlsCAFile={certificates.ca}"


@pytest.fixture
def environments(
    kafka: KafkaWithTls, mongodb: str, certificates: Certificates, tmp_path: Path
) -> dict[str, Environment]:
    """The variables of each service, with its secrets in files."""
    password, uri = tmp_path / "password", tmp_path / "uri"
    password.write_text(f"{PASSWORD}\n")
    uri.write_text(f"{mongodb}\n")
    common = {
        "PATH": os.environ["PATH"],
        "KAFKA_BOOTSTRAP_SERVERS": kafka.servers,
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "KAFKA_SASL_PASSWORD_FILE": str(password),
        "KAFKA_SSL_CA_LOCATION": str(certificates.ca),
        "METRICS_PORT": "0",
    }
    producer = {**common, "KAFKA_SASL_USERNAME": "producer", "PRODUCER_UNDELIVERED_DIR": str(tmp_path / "undelivered")}
    group = {"CONSUMER_GROUP_ID": NAMES["kafka.group_id"]}
    consumer = {**common, **group, "KAFKA_SASL_USERNAME": "consumer", "MONGODB_URI_FILE": str(uri)}
    return {"producer": producer, "consumer": consumer}


def command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"src.{module}", *arguments]


def run(
    service: str, environ: Mapping[str, str], module: str, *arguments: str, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(module, *arguments),
        cwd=ROOT / service,
        env=environ,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def test_messages_are_stored_or_dead_lettered_and_audited(environments: dict[str, Environment]) -> None:
    producer, consumer = environments["producer"], environments["consumer"]
    messages = '{"id": "1", "name": "a"}\n{"id": "2", "name": 7}\n{"id": "3"}\n'

    sent = run("producer", producer, "producer", "--input", "-", stdin=messages)
    with subprocess.Popen(command("consumer"), cwd=ROOT / "consumer", env=consumer, stdout=subprocess.PIPE) as process:
        try:
            audit = run("consumer", consumer, "audit", "--json", "--wait", "60")
        finally:
            process.terminate()
            process.communicate(timeout=TIMEOUT)
    dead_letters = run("consumer", consumer, "dead_letters", "list")

    report = json.loads(audit.stdout)
    assert (sent.returncode, audit.returncode, process.returncode) == (0, 0, 0), sent.stderr + audit.stderr
    assert (report["stored"], report["dead_lettered"], report["lost"]) == (2, 1, 0)
    assert "invalid_type" in dead_letters.stdout or "name" in dead_letters.stdout, dead_letters.stderr


@pytest.mark.parametrize("service", PROGRAMS)
def test_every_check_passes(environments: dict[str, Environment], service: str) -> None:
    checked = run(service, environments[service], service, "--check")

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "warn" not in checked.stdout


@pytest.mark.parametrize("service", PROGRAMS)
def test_a_certificate_of_an_unknown_ca_is_named(
    environments: dict[str, Environment], certificates: Certificates, service: str
) -> None:
    environ = environments[service] | {"KAFKA_SSL_CA_LOCATION": str(certificates.other_ca)}

    checked = run(service, environ, service, "--check")

    assert checked.returncode == 2
    assert "broker certificate could not be verified" in checked.stdout


@pytest.mark.parametrize("service", PROGRAMS)
def test_a_rejected_login_is_named(environments: dict[str, Environment], service: str) -> None:
    environ = environments[service] | {"KAFKA_SASL_USERNAME": "nobody"}

    checked = run(service, environ, service, "--check")

    assert checked.returncode == 2
    assert "invalid credentials with SASL mechanism SCRAM-SHA-512" in checked.stdout


def test_a_mongodb_with_the_certificate_of_an_unknown_ca_is_named(
    environments: dict[str, Environment], mongodb: str, certificates: Certificates
) -> None:
    uri = mongodb.replace(str(certificates.ca), str(certificates.other_ca))
    environ = environments["consumer"] | {"MONGODB_URI_FILE": "", "MONGODB_URI": uri, "MONGODB_TIMEOUT_MS": "2000"}

    checked = run("consumer", environ, "consumer", "--check")

    assert checked.returncode == 2
    assert "certificate verify failed" in checked.stdout
    assert "secret" not in checked.stdout
