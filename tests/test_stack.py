"""The stack of docker-compose.yml as a whole, under load and under faults."""

import json
import subprocess
from threading import Event
from time import monotonic

import pytest

from tests.stack import ODD_PASSWORD, Stack, is_well, service_of

OURS = ["producer", "consumer", "topics", "mongodb-users"]

pytestmark = pytest.mark.docker


def test_all_services_become_healthy_and_the_set_ups_end_well(stack: Stack) -> None:
    containers = stack.containers()

    assert [container["Name"] for container in containers if not is_well(container)] == []
    assert {service_of(container) for container in containers} == set(stack.compose("config", "--services").split())


def test_the_services_find_everything_as_they_need_it(stack: Stack) -> None:
    answers = stack.python("consumer", "-m", "src.consumer", "--check")
    answers += stack.python("producer", "-m", "src.producer", "--check")

    assert "FAIL" not in answers


def test_prometheus_reaches_every_target(stack: Stack) -> None:
    question = "http://127.0.0.1:9090/api/v1/targets"

    told = json.loads(stack.compose("exec", "-T", "prometheus", "wget", "-qO-", question))

    targets = told["data"]["activeTargets"]
    assert [target["scrapeUrl"] for target in targets if target["health"] == "down"] == []
    assert {"kafka", "zookeeper", "mongodb", "producer", "consumer"} <= {each["labels"]["job"] for each in targets}


def test_mongodb_lets_nobody_in_without_a_password(stack: Stack) -> None:
    attempt = "try { db.getSiblingDB('pubsub').messages.findOne(); print('in') } catch (error) { print(error.code) }"

    answer = stack.compose("exec", "-T", "mongodb", "mongosh", "--quiet", "--eval", attempt)

    assert "in" not in answer.split()


def test_my_own_message_comes_out_again(stack: Stack) -> None:
    stack.send('{"id": "my-own", "name": "hello"}')

    stack.audit()

    assert json.loads(stack.python("consumer", "-m", "src.get", '{"id": "my-own"}'))["name"] == "hello"


def test_a_broken_message_is_parked_with_its_reason_and_nothing_else_is(stack: Stack) -> None:
    parked = stack.audit()["dead_lettered"]
    produce = "from confluent_kafka import Producer as P; p = P({'bootstrap.servers': 'kafka:9092'})"
    stack.python("producer", "-c", f"{produce}; p.produce('data-topic', b'broken'); assert p.flush(30) == 0")

    after = stack.audit()

    assert after["dead_lettered"] == parked + 1
    assert "json" in stack.python("consumer", "-m", "src.dead_letters", "list").lower()


def test_three_consumers_share_the_partitions_and_nothing_is_lost_or_twice(stack: Stack) -> None:
    stack.up("--scale", "consumer=3", "--scale", "producer=2")
    owned = [_assigned(stack, index) for index in (1, 2, 3)]

    stack.up("--scale", "consumer=1")

    assert owned == [2, 2, 2]
    assert _lost_and_twice(stack) == (0, 0)


def _assigned(stack: Stack, index: int) -> int:
    """A member is ready before the others have given up their share, so ask until nothing moves any more."""
    read = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8001/metrics').read().decode())"
    deadline = monotonic() + 30
    while True:
        metrics = stack.python("consumer", "-c", read, index=index)
        owned = next(line for line in metrics.splitlines() if line.startswith("consumer_assigned_partitions "))
        if (count := int(float(owned.split()[1]))) == 2 or monotonic() > deadline:
            return count
        Event().wait(1)


def _lost_and_twice(stack: Stack) -> tuple[int, int]:
    report = stack.audit()
    return report["lost"], report["twice"]


def test_a_topic_grows_when_asked_to_and_never_shrinks(stack: Stack) -> None:
    stack.up(KAFKA_PARTITIONS="8")
    stack.up(KAFKA_PARTITIONS="6")

    assert "data-topic has 8 partition(s)" in stack.python("consumer", "-m", "src.consumer", "--check")
    assert "keeps its 8 partitions" in stack.compose("logs", "topics")


def test_a_password_that_was_changed_is_the_users_after_up(stack: Stack) -> None:
    before = _starts(stack, "consumer", "producer")

    stack.up(MONGODB_CONSUMER_PASSWORD="another")

    after = _starts(stack, "consumer", "producer")
    assert {service for service in after if after[service] != before[service]} == {"consumer"}
    assert _lost_and_twice(stack) == (0, 0)


def _starts(stack: Stack, *services: str) -> dict[str, str]:
    return {service_of(container): container["State"]["StartedAt"] for container in stack.containers(*services)}


@pytest.mark.parametrize("service", ["consumer", "mongodb", "kafka", "zookeeper"])
def test_nothing_is_lost_or_twice_when_one_crashes(stack: Stack, service: str) -> None:
    produced = stack.audit()["produced"]
    started = stack.restarts(service)

    stack.crash(service)
    stack.wait_until_healthy()

    report = stack.audit()
    assert (report["lost"], report["twice"]) == (0, 0)
    assert report["produced"] > produced
    assert stack.restarts(service) == started + 1  # at the first attempt


@pytest.mark.parametrize("service", ["consumer", "mongodb", "kafka", "zookeeper"])
def test_nothing_is_lost_or_twice_when_one_is_stopped_and_started(stack: Stack, service: str) -> None:
    stack.compose("stop", service)
    stack.compose("start", service)
    stack.wait_until_healthy()

    assert _lost_and_twice(stack) == (0, 0)


def test_a_consumer_of_another_group_reads_everything_again(stack: Stack) -> None:
    other = ["-e", "CONSUMER_GROUP_ID=reports", "-e", "MONGODB_COLLECTION=reports"]

    container = stack.compose("run", "--detach", "--use-aliases", "--no-deps", *other, "consumer").strip()
    subprocess.run(["docker", "update", "--restart", "unless-stopped", container], check=True)

    report = stack.audit(*other)
    assert (report["lost"], report["twice"], report["pending"]) == (0, 0, 0)
    assert report["stored"] > 0


def test_the_data_is_still_there_after_down_and_up(stack: Stack) -> None:
    before = stack.audit()
    stack.compose("down", "--remove-orphans")

    stack.up()

    after = stack.audit()
    assert after["stored"] >= before["stored"] > 0
    assert (after["lost"], after["twice"]) == (0, 0)


def test_our_containers_can_write_nowhere_and_have_no_rights(stack: Stack) -> None:
    ours = [container for container in stack.containers() if service_of(container) in OURS]

    for container in ours:
        host = container["HostConfig"]
        assert container["Config"]["User"] == "10001:10001"
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert host["CapAdd"] is None
        assert not host["Privileged"]


def test_the_audit_keeps_its_books_on_a_disk(stack: Stack) -> None:
    where = "import os; print(os.access('/var/tmp', os.W_OK), os.statvfs('/var/tmp') != os.statvfs('/tmp'))"

    assert stack.python("consumer", "-c", where).split() == ["True", "True"]


def test_no_container_leaves_an_anonymous_volume(stack: Stack) -> None:
    volumes = [
        mount["Name"] for container in stack.containers() for mount in container["Mounts"] if mount["Type"] == "volume"
    ]

    assert [name for name in volumes if not name.startswith(f"{stack.project}_")] == []


def test_no_password_is_on_a_command_line(stack: Stack) -> None:
    for container in stack.containers():
        command = [*(container["Config"]["Entrypoint"] or []), *(container["Config"]["Cmd"] or []), *container["Args"]]
        assert ODD_PASSWORD not in " ".join(command)


@pytest.mark.parametrize("service", ["producer", "consumer"])
def test_an_image_is_small_and_holds_neither_tests_nor_pip(stack: Stack, service: str) -> None:
    image = f"{stack.project}-{service}"
    size = subprocess.check_output(["docker", "image", "inspect", image, "--format", "{{.Size}}"], text=True)
    look = ["docker", "run", "--rm", image, "sh", "-c", "command -v pip gcc; ls /app"]
    inside = subprocess.run(look, check=True, text=True, capture_output=True).stdout.split()

    assert int(size) < 200_000_000
    assert not {"tests", "requirements-dev.txt"} & set(inside)
    assert not [name for name in inside if name.endswith(("pip", "gcc"))]
