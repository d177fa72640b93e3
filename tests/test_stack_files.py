"""What docker-compose.yml and its files promise, read as text: without Docker, and whatever .env says."""

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
SETTINGS = dict(re.findall(r"^(\w+)=(\S*)", (ROOT / ".env").read_text(encoding="utf-8"), re.MULTILINE))


def services() -> dict[str, str]:
    """The text of each service."""
    text = COMPOSE.split("\nservices:\n")[1].split("\nvolumes:\n")[0]
    pieces = re.split(r"^  ([a-z-]+):.*\n", text, flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


ALL = sorted(services())
SET_UPS = {"topics", "mongodb-users", "logs-index", "logs-view"}
BASED_ON = {**dict.fromkeys(SET_UPS, "setup"), "producer": "service", "consumer": "service"}


def script(name: str) -> ModuleType:
    """A set-up, which runs in a container and is no package here."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / "compose" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ALL)
def test_a_service_takes_the_common_rules(name: str) -> None:
    assert f"<<: *{BASED_ON.get(name, 'defaults')}\n" in services()[name]


def test_the_common_rules_take_rights_away_and_bound_the_logs() -> None:
    rules = COMPOSE.split("\nservices:\n")[0]

    assert "cap_drop: [ALL]" in rules
    assert "no-new-privileges:true" in rules
    assert "read_only: true" in rules
    assert "max-size" in rules
    assert "stop_grace_period" in rules


@pytest.mark.parametrize("name", sorted(set(ALL) - SET_UPS))
def test_a_service_has_a_memory_limit(name: str) -> None:
    assert "mem_limit: " in services()[name]


@pytest.mark.parametrize("name", sorted(set(ALL) - SET_UPS - {"mongodb-exporter"}))
def test_a_service_has_a_health_check_that_names_no_localhost(name: str) -> None:
    check = services()[name].split("healthcheck:")[1]

    assert "test:" in check
    assert "localhost" not in check  # it may be ::1 first


def test_every_published_port_is_on_127_0_0_1() -> None:
    ports = re.findall(r'^    ports: \["(.*)"\]$', COMPOSE, re.MULTILINE)

    assert len(ports) == COMPOSE.count("ports:") == 6
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_a_service_that_scales_has_no_port_and_no_name() -> None:
    for name in ("producer", "consumer"):
        assert "ports:" not in services()[name]
    assert "container_name" not in COMPOSE


def test_dockers_socket_is_seen_by_cadvisor_alone_and_read_only() -> None:
    with_socket = [name for name, text in services().items() if "/var/run" in text or "docker.sock" in text]

    assert with_socket == ["cadvisor"]
    assert "/var/run:/var/run:ro" in services()["cadvisor"]


def test_nothing_is_privileged_or_only_on_linux() -> None:
    for word in ("privileged", "cap_add", "rslave", "devices:", "network_mode"):
        assert word not in COMPOSE


def test_every_image_is_pinned_by_an_exact_tag_in_env() -> None:
    images = re.findall(r"^    image: (\S+)$", COMPOSE, re.MULTILINE)
    pinned = [re.fullmatch(r"\$\{(\w+_IMAGE)\}", image) for image in images]

    names = [match[1] for match in pinned if match]
    assert len(names) == len(pinned) == 13
    assert [SETTINGS[name] for name in names if not re.search(r":v?\d+\.\d+\.\d+$", SETTINGS[name])] == []


def test_what_is_built_here_has_no_name_that_another_project_could_take() -> None:
    shared = re.search(r"^  image:", COMPOSE, re.MULTILINE)
    built = [text for text in services().values() if "    build:" in text]

    assert shared is None
    assert len(built) == 2
    assert [text for text in built if "    image:" in text] == []


def test_setup_asks_for_the_versions_that_installation_names() -> None:
    script = (ROOT / "scripts" / "setup.sh").read_text(encoding="utf-8")
    needed = dict(re.findall(r"^(ENGINE|COMPOSE)=(\S+)", script, re.MULTILINE))

    told = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")

    assert f"Docker Engine {needed['ENGINE']} or newer with Compose {needed['COMPOSE']} or newer" in told


def test_every_variable_of_the_compose_file_stands_in_env() -> None:
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", COMPOSE))
    files = (ROOT / "scripts" / "compose").glob("*.env")
    used |= {name for file in files for name in re.findall(r"=\$\{(\w+)\}", file.read_text(encoding="utf-8"))}

    assert used == set(SETTINGS)


def test_no_password_is_written_into_the_compose_file() -> None:
    assert "PASSWORD" not in COMPOSE


def test_git_ignores_the_passwords_of_chance() -> None:
    ignored = subprocess.run(["git", "check-ignore", "-q", "secrets/mongodb.env"], cwd=ROOT)

    assert ignored.returncode == 0


def test_every_mounted_file_is_there() -> None:
    mounted = re.findall(r"\./([\w./-]+):/", COMPOSE)

    assert [path for path in mounted if not (ROOT / path).exists()] == []


def test_a_dead_letter_fits_whatever_came_in_and_stays_30_days() -> None:
    environ = {
        "KAFKA_TOPIC": "t",
        "KAFKA_DEAD_LETTER_TOPIC": "t.dlq",
        "KAFKA_PARTITIONS": "6",
        "KAFKA_RETENTION_HOURS": "1",
    }

    messages, letters = script("topics").wanted(environ)

    assert (messages.name, messages.partitions, messages.settings["retention.ms"]) == ("t", 6, "3600000")
    assert int(letters.settings["max.message.bytes"]) == int(messages.settings["max.message.bytes"]) + 65_536
    assert letters.settings["retention.ms"] == "2592000000"
    assert letters.settings["cleanup.policy"] == "delete"


def test_a_largest_message_that_was_raised_stays_raised() -> None:
    topic = script("topics").Topic("t", 6, {"max.message.bytes": "1000"})

    assert topic.with_room_for(2000).settings["max.message.bytes"] == "2000"
    assert topic.with_room_for(500).settings["max.message.bytes"] == "1000"


def test_the_users_have_no_more_rights_than_they_need() -> None:
    environ = {"MONGODB_DATABASE": "pubsub", "MONGODB_CONSUMER_PASSWORD": "c", "MONGODB_PASSWORD": "e"}

    consumer, exporter = script("mongodb_users").wanted(environ)

    assert consumer.roles == [{"role": "readWrite", "db": "pubsub"}]
    assert {role["role"] for role in exporter.roles} == {"clusterMonitor", "read"}


def test_a_password_of_odd_characters_is_the_same_after_its_uri() -> None:
    from pymongo.uri_parser import parse_uri

    users = script("mongodb_users")
    password = "p@ss/w%41$x #\"':?&+\\"

    uri = users.uri(users.User("consumer", password, []))

    assert parse_uri(uri)["password"] == password


def test_a_secret_can_be_read_by_its_owner_alone_and_be_replaced(tmp_path: Path) -> None:
    users = script("mongodb_users")
    file = tmp_path / "uri"

    users.write_secret(file, "old")
    users.write_secret(file, "new")

    assert file.read_text(encoding="utf-8") == "new"
    assert file.stat().st_mode & 0o777 == 0o400
    assert list(tmp_path.iterdir()) == [file]


def test_a_refused_root_password_is_explained() -> None:
    from pymongo.errors import OperationFailure

    explained = script("mongodb_users").explained(OperationFailure("Authentication failed.", 18))

    assert "first start" in explained
