"""Static checks of docker-compose.yml and its files; no Docker needed."""

import importlib.util
import re
import subprocess
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
CLUSTER = (ROOT / "docker-compose.cluster.yml").read_text(encoding="utf-8")
REPLICA_SET = (ROOT / "docker-compose.replica-set.yml").read_text(encoding="utf-8")
SETTINGS = dict(re.findall(r"^(\w+)=(\S*)", (ROOT / ".env").read_text(encoding="utf-8"), re.MULTILINE))


def services() -> dict[str, str]:
    """The YAML text of each service."""
    text = COMPOSE.split("\nservices:\n")[1].split("\nvolumes:\n")[0]
    pieces = re.split(r"^  ([a-z-]+):.*\n", text, flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


ALL = sorted(services())
SETUP_JOBS = {"topics", "mongodb-users", "logs-index", "logs-view"}
BASED_ON = {**dict.fromkeys(SETUP_JOBS, "setup"), "producer": "service", "consumer": "service"}


def script(name: str) -> ModuleType:
    """Load the script of a setup job, which is not part of a package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / "compose" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ALL)
def test_a_service_extends_the_common_settings(name: str) -> None:
    assert f"<<: *{BASED_ON.get(name, 'defaults')}\n" in services()[name]


def test_the_common_settings_drop_capabilities_and_limit_log_size() -> None:
    common = COMPOSE.split("\nservices:\n")[0]

    assert "cap_drop: [ALL]" in common
    assert "no-new-privileges:true" in common
    assert "read_only: true" in common
    assert "max-size" in common
    assert "stop_grace_period" in common


@pytest.mark.parametrize("name", sorted(set(ALL) - SETUP_JOBS))
def test_a_service_has_a_memory_limit(name: str) -> None:
    assert "mem_limit: " in services()[name]


@pytest.mark.parametrize("name", sorted(set(ALL) - SETUP_JOBS - {"mongodb-exporter"}))
def test_a_service_has_a_health_check_that_does_not_use_localhost(name: str) -> None:
    check = services()[name].split("healthcheck:")[1]

    assert "test:" in check
    assert "localhost" not in check  # may resolve to ::1


def test_every_published_port_is_on_127_0_0_1() -> None:
    ports = re.findall(r'^    ports: \["(.*)"\]$', COMPOSE, re.MULTILINE)

    assert len(ports) == COMPOSE.count("ports:") == 6
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_a_scalable_service_publishes_no_port_and_has_no_container_name() -> None:
    for name in ("producer", "consumer"):
        assert "ports:" not in services()[name]
    assert "container_name" not in COMPOSE


def test_only_cadvisor_mounts_the_docker_socket_and_read_only() -> None:
    with_socket = [name for name, text in services().items() if "/var/run" in text or "docker.sock" in text]

    assert with_socket == ["cadvisor"]
    assert "/var/run:/var/run:ro" in services()["cadvisor"]


def test_nothing_is_privileged_or_specific_to_linux() -> None:
    for word in ("privileged", "cap_add", "rslave", "devices:", "network_mode"):
        assert word not in COMPOSE


def test_every_image_is_pinned_by_an_exact_tag_in_env() -> None:
    images = re.findall(r"^    image: (\S+)$", COMPOSE, re.MULTILINE)
    pinned = [re.fullmatch(r"\$\{(\w+_IMAGE)\}", image) for image in images]

    names = [match[1] for match in pinned if match]
    assert len(names) == len(pinned) == 13
    assert [SETTINGS[name] for name in names if not re.search(r":v?\d+\.\d+\.\d+$", SETTINGS[name])] == []


def test_images_built_here_have_no_name_that_another_project_could_use() -> None:
    shared = re.search(r"^  image:", COMPOSE, re.MULTILINE)
    built = [text for text in services().values() if "    build:" in text]

    assert shared is None
    assert len(built) == 2
    assert [text for text in built if "    image:" in text] == []


def test_setup_requires_the_versions_documented_in_installation() -> None:
    script = (ROOT / "scripts" / "setup.sh").read_text(encoding="utf-8")
    needed = dict(re.findall(r"^(ENGINE|COMPOSE)=(\S+)", script, re.MULTILINE))

    documentation = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")

    assert f"Docker Engine {needed['ENGINE']} or newer with Compose {needed['COMPOSE']} or newer" in documentation


def test_env_defines_exactly_the_variables_of_the_compose_files_and_an_image_of_the_tests() -> None:
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", COMPOSE + CLUSTER))
    files = (ROOT / "scripts" / "compose").glob("*.env")
    used |= {name for file in files for name in re.findall(r"=\$\{(\w+)\}", file.read_text(encoding="utf-8"))}

    assert used | {"RYUK_IMAGE"} == set(SETTINGS)


def test_no_comment_in_env_is_the_value_of_an_empty_variable() -> None:
    assert re.findall(r"^\w+=[ \t]+#.*", (ROOT / ".env").read_text(encoding="utf-8"), re.MULTILINE) == []


def test_the_compose_file_contains_no_password() -> None:
    assert "PASSWORD" not in COMPOSE


def test_git_ignores_the_random_passwords() -> None:
    ignored = subprocess.run(["git", "check-ignore", "-q", "secrets/mongodb.env"], cwd=ROOT)

    assert ignored.returncode == 0


def test_every_mounted_file_exists() -> None:
    mounted = re.findall(r"\./([\w./-]+):/", COMPOSE)

    assert [path for path in mounted if not (ROOT / path).exists()] == []


def test_the_dead_letter_topic_accepts_every_message_and_keeps_it_for_30_days() -> None:
    environ = {
        "KAFKA_TOPIC": "t",
        "KAFKA_DEAD_LETTER_TOPIC": "t.dlq",
        "KAFKA_PARTITIONS": "6",
        "KAFKA_RETENTION_HOURS": "1",
    }

    messages, dead_letters = script("topics").desired_topics(environ)

    assert (messages.name, messages.partitions, messages.config["retention.ms"]) == ("t", 6, "3600000")
    assert int(dead_letters.config["max.message.bytes"]) == int(messages.config["max.message.bytes"]) + 65_536
    assert dead_letters.config["retention.ms"] == "2592000000"
    assert dead_letters.config["cleanup.policy"] == "delete"


def test_each_topic_that_the_consumer_reads_by_name_is_created() -> None:
    environ = {
        "KAFKA_TOPIC": "t",
        "KAFKA_DEAD_LETTER_TOPIC": "t.dlq",
        "KAFKA_PARTITIONS": "6",
        "KAFKA_RETENTION_HOURS": "1",
    }

    def names(topics: str) -> list[str]:
        return [topic.name for topic in script("topics").desired_topics({**environ, "KAFKA_TOPICS": topics})]

    assert names("t, orders") == ["t", "orders", "t.dlq"]
    assert names("^ord") == names("") == ["t", "t.dlq"]


class Admin:
    """Answers that it does not know the topic, and then with its settings."""

    def __init__(self, *codes: int) -> None:
        self._codes = iter(codes)

    def describe_configs(self, resources: list[Any]) -> dict[Any, Future[Any]]:
        answer: Future[Any] = Future()
        code = next(self._codes, None)
        if code is None:
            answer.set_result({"max.message.bytes": SimpleNamespace(value="1000")})
        else:
            answer.set_exception(KafkaException(KafkaError(code)))
        return {resources[0]: answer}


def test_a_topic_that_a_broker_does_not_know_yet_is_waited_for() -> None:
    assert script("topics").max_message_bytes(Admin(KafkaError.UNKNOWN_TOPIC_OR_PART), "t") == 1000


def test_the_topics_job_does_not_wait_for_other_errors() -> None:
    with pytest.raises(KafkaException, match="AUTHORIZATION"):
        script("topics").max_message_bytes(Admin(KafkaError.TOPIC_AUTHORIZATION_FAILED), "t")


def test_a_raised_maximum_message_size_is_kept() -> None:
    topic = script("topics").Topic("t", 6, {"max.message.bytes": "1000"})

    assert topic.allowing(2000).config["max.message.bytes"] == "2000"
    assert topic.allowing(500).config["max.message.bytes"] == "1000"


def test_the_users_have_only_the_roles_they_need() -> None:
    environ = {"MONGODB_DATABASE": "pubsub", "MONGODB_CONSUMER_PASSWORD": "c", "MONGODB_PASSWORD": "e"}

    consumer, exporter = script("mongodb_users").desired_users(environ)

    assert consumer.roles == [{"role": "readWrite", "db": "pubsub"}]
    assert {role["role"] for role in exporter.roles} == {"clusterMonitor", "read"}


def test_a_password_with_special_characters_survives_the_uri() -> None:
    from pymongo.uri_parser import parse_uri

    users = script("mongodb_users")
    password = "p@ss/w%41$x #\"':?&+\\"

    uri = users.Servers().uri(users.User("consumer", password, []))

    assert parse_uri(uri)["password"] == password


def test_the_uri_of_a_replica_set_has_all_its_hosts() -> None:
    from pymongo.uri_parser import parse_uri

    users = script("mongodb_users")
    servers = users.Servers.of({"MONGODB_HOSTS": "a:1,b:2", "MONGODB_REPLICA_SET": "rs0"})

    uri = parse_uri(servers.uri(users.User("consumer", "p", [])))

    assert uri["nodelist"] == [("a", 1), ("b", 2)]
    assert uri["options"]["replicaSet"] == "rs0"


@pytest.mark.parametrize(("code", "initiated"), [(94, True), (None, False)], ids=["new", "initiated before"])
def test_a_replica_set_is_initiated_once(code: int | None, initiated: bool) -> None:
    users, admin = script("mongodb_users"), ReplicaSetAdmin(code)

    users.initiate(admin, users.Servers(["a:1", "b:2"], "rs0"))

    config = {"_id": "rs0", "members": [{"_id": 0, "host": "a:1"}, {"_id": 1, "host": "b:2"}]}
    assert admin.initiated == ([config] if initiated else [])


def test_other_errors_of_a_replica_set_are_raised() -> None:
    from pymongo.errors import OperationFailure

    users = script("mongodb_users")

    with pytest.raises(OperationFailure):
        users.initiate(ReplicaSetAdmin(13), users.Servers(["a:1"], "rs0"))


class ReplicaSetAdmin:
    """Its status command fails with this code, if there is one."""

    def __init__(self, status_code: int | None) -> None:
        self._status_code = status_code
        self.initiated: list[object] = []

    def command(self, name: str, argument: object = None) -> None:
        from pymongo.errors import OperationFailure

        if name == "replSetInitiate":
            self.initiated.append(argument)
        elif self._status_code is not None:
            raise OperationFailure(name, self._status_code)


def test_a_secret_file_is_readable_by_its_owner_only_and_can_be_replaced(tmp_path: Path) -> None:
    users = script("mongodb_users")
    file = tmp_path / "uri"

    users.write_secret(file, "old")
    users.write_secret(file, "new")

    assert file.read_text(encoding="utf-8") == "new"
    assert file.stat().st_mode & 0o777 == 0o400
    assert list(tmp_path.iterdir()) == [file]


def test_a_rejected_root_password_is_explained() -> None:
    from pymongo.errors import OperationFailure

    message = script("mongodb_users").describe(OperationFailure("Authentication failed.", 18))

    assert "first start" in message


# -- docker-compose.cluster.yml


def test_a_broker_of_the_cluster_has_the_common_settings() -> None:
    brokers = CLUSTER.split("x-broker-environment:")[0]
    common = COMPOSE.split("x-defaults: &defaults\n")[1].split("  stop_grace_period")[0]

    assert common in brokers
    assert "cap_drop: [ALL]" in brokers
    assert 'security_opt: ["no-new-privileges:true"]' in brokers
    assert "options: {max-size: 10m" in brokers


def test_the_brokers_of_the_cluster_differ_in_number_and_port_only() -> None:
    pieces = re.split(r"^  kafka-(\d):\n", CLUSTER, flags=re.MULTILINE)
    brokers = dict(zip(pieces[1::2], (text.split("\n\n")[0] for text in pieces[2::2]), strict=True))

    assert {
        text.replace(f"_{n}_", "_").replace(f"-{n}", "-N").replace(f"ID: {n}", "ID: N") for n, text in brokers.items()
    } == {brokers["1"].replace("-1", "-N").replace("ID: 1", "ID: N")}
    assert len(brokers) == 3


def test_the_cluster_fits_into_6_gib() -> None:
    single = {name: text for name, text in services().items() if "profiles: [elk]" not in text}
    limits = [text for name, text in single.items() if name not in {"zookeeper", "kafka"}]
    broker = CLUSTER.split("x-broker-environment:")[0]

    assert sum(map(_megabytes, limits)) + 3 * _megabytes(broker) <= 6 * 1024


def _megabytes(text: str) -> int:
    limit = re.search(r"mem_limit: (\d+)([mg])", text)
    return int(limit[1]) * (1024 if limit[2] == "g" else 1) if limit else 0


def test_the_two_prometheus_configurations_differ_in_the_targets_of_kafka_only() -> None:
    folder = ROOT / "monitoring" / "prometheus"
    texts = [(folder / name).read_text(encoding="utf-8") for name in ("prometheus.yml", "prometheus-cluster.yml")]
    common = [text[text.index("global:") : text.index("scrape_configs:")] for text in texts]
    arguments = re.findall(r"- (--(?:storage|web)\S+)", services()["prometheus"])

    assert common[0] == common[1]
    assert re.findall(r"- (--(?:storage|web)\S+)", CLUSTER) == arguments


# -- docker-compose.replica-set.yml


def test_the_members_added_to_the_replica_set_differ_in_their_volume_only() -> None:
    pieces = re.split(r"^  (mongodb[\w-]*):.*\n", REPLICA_SET, flags=re.MULTILINE)
    services = dict(zip(pieces[1::2], (re.sub(r" *#.*", "", text) for text in pieces[2::2]), strict=True))

    assert services["mongodb-2"].replace("mongodb-2", "mongodb-3") == services["mongodb-3"]
    assert re.findall("(mongodb[0-9-]*):27017", services["mongodb-users"]) == ["mongodb", "mongodb-2", "mongodb-3"]
