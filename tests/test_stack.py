"""The whole Compose stack under load and with injected faults."""

import json
import subprocess
from threading import Event
from time import monotonic

import pytest

from tests.stack import SPECIAL_PASSWORD, Stack, is_healthy, service_of

BUILT_HERE = ["producer", "consumer", "topics", "mongodb-users"]

pytestmark = pytest.mark.docker


def test_all_services_become_healthy_and_the_setup_jobs_succeed(stack: Stack) -> None:
    containers = stack.containers()

    assert [container["Name"] for container in containers if not is_healthy(container)] == []
    assert {service_of(container) for container in containers} == set(stack.compose("config", "--services").split())


def test_check_succeeds_in_both_services(stack: Stack) -> None:
    output = stack.python("consumer", "-m", "src.consumer", "--check")
    output += stack.python("producer", "-m", "src.producer", "--check")

    assert "FAIL" not in output


def test_prometheus_reaches_every_target(stack: Stack) -> None:
    url = "http://127.0.0.1:9090/api/v1/targets"

    response = json.loads(stack.compose("exec", "-T", "prometheus", "wget", "-qO-", url))

    targets = response["data"]["activeTargets"]
    assert [target["scrapeUrl"] for target in targets if target["health"] == "down"] == []
    assert {"kafka", "zookeeper", "mongodb", "producer", "consumer"} <= {target["labels"]["job"] for target in targets}


def test_mongodb_rejects_unauthenticated_access(stack: Stack) -> None:
    attempt = (
        "try { db.getSiblingDB('pubsub').messages.findOne(); print('allowed') } catch (error) { print(error.code) }"
    )

    answer = stack.compose("exec", "-T", "mongodb", "mongosh", "--quiet", "--eval", attempt)

    assert "allowed" not in answer.split()


def test_a_message_can_be_sent_and_read_back(stack: Stack) -> None:
    stack.send('{"id": "example", "name": "hello"}')

    stack.audit()

    assert json.loads(stack.python("consumer", "-m", "src.get", '{"id": "example"}'))["name"] == "hello"


def test_only_an_invalid_message_is_dead_lettered_with_the_reason(stack: Stack) -> None:
    before = stack.audit()["dead_lettered"]
    produce = "from confluent_kafka import Producer as P; p = P({'bootstrap.servers': 'kafka:9092'})"
    stack.python("producer", "-c", f"{produce}; p.produce('data-topic', b'invalid'); assert p.flush(30) == 0")

    after = stack.audit()

    assert after["dead_lettered"] == before + 1
    assert "json" in stack.python("consumer", "-m", "src.dead_letters", "list").lower()


def test_three_consumers_share_the_partitions_without_loss_or_duplicates(stack: Stack) -> None:
    stack.up("--scale", "consumer=3", "--scale", "producer=2")
    assigned = [_assigned(stack, index) for index in (1, 2, 3)]

    stack.up("--scale", "consumer=1")

    assert assigned == [2, 2, 2]
    assert _lost_and_duplicated(stack) == (0, 0)


def _assigned(stack: Stack, index: int) -> int:
    """The number of assigned partitions, polled because a rebalance may still be in progress."""
    deadline = monotonic() + 30
    while True:
        status = json.loads(stack.python("consumer", "-m", "src.status", "--json", index=index))
        if (count := int(status["metrics"]["assigned_partitions"])) == 2 or monotonic() > deadline:
            return count
        Event().wait(1)


def _lost_and_duplicated(stack: Stack) -> tuple[int, int]:
    report = stack.audit()
    return report["lost"], report["twice"]


def test_partitions_are_added_but_never_removed(stack: Stack) -> None:
    stack.up(KAFKA_PARTITIONS="8")
    stack.up(KAFKA_PARTITIONS="6")

    assert "data-topic has 8 partition(s)" in stack.python("consumer", "-m", "src.consumer", "--check")
    assert "keeps its 8 partitions" in stack.compose("logs", "topics")


def test_up_applies_a_changed_password(stack: Stack) -> None:
    before = _starts(stack, "consumer", "producer")

    stack.up(MONGODB_CONSUMER_PASSWORD="another")

    after = _starts(stack, "consumer", "producer")
    assert {service for service in after if after[service] != before[service]} == {"consumer"}
    assert _lost_and_duplicated(stack) == (0, 0)


def _starts(stack: Stack, *services: str) -> dict[str, str]:
    return {service_of(container): container["State"]["StartedAt"] for container in stack.containers(*services)}


@pytest.mark.parametrize("service", ["consumer", "mongodb", "kafka", "zookeeper"])
def test_a_crash_causes_no_loss_or_duplicates(stack: Stack, service: str) -> None:
    produced = stack.audit()["produced"]
    restarts = stack.restarts(service)

    stack.crash(service)
    stack.wait_until_healthy()

    report = stack.audit()
    assert (report["lost"], report["twice"]) == (0, 0)
    assert report["produced"] > produced
    assert stack.restarts(service) == restarts + 1  # the first attempt succeeded


@pytest.mark.parametrize("service", ["consumer", "mongodb", "kafka", "zookeeper"])
def test_stop_and_start_cause_no_loss_or_duplicates(stack: Stack, service: str) -> None:
    stack.compose("stop", service)
    stack.compose("start", service)
    stack.wait_until_healthy()

    assert _lost_and_duplicated(stack) == (0, 0)


def test_a_second_group_consumes_all_messages(stack: Stack) -> None:
    other = ["-e", "CONSUMER_GROUP_ID=reports", "-e", "MONGODB_COLLECTION=reports"]

    container = stack.compose("run", "--detach", "--use-aliases", "--no-deps", *other, "consumer").strip()
    subprocess.run(["docker", "update", "--restart", "unless-stopped", container], check=True)

    report = stack.audit(*other)
    assert (report["lost"], report["twice"], report["pending"]) == (0, 0, 0)
    assert report["stored"] > 0


def test_data_survives_down_and_up(stack: Stack) -> None:
    before = stack.audit()
    stack.compose("down", "--remove-orphans")

    stack.up()

    after = stack.audit()
    assert after["stored"] >= before["stored"] > 0
    assert (after["lost"], after["twice"]) == (0, 0)


def test_containers_built_here_are_read_only_and_unprivileged(stack: Stack) -> None:
    containers = [container for container in stack.containers() if service_of(container) in BUILT_HERE]

    for container in containers:
        host = container["HostConfig"]
        assert container["Config"]["User"] == "10001:10001"
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert host["CapAdd"] is None
        assert not host["Privileged"]


def test_the_audit_working_files_are_on_disk(stack: Stack) -> None:
    script = "import os; print(os.access('/var/tmp', os.W_OK), os.statvfs('/var/tmp') != os.statvfs('/tmp'))"

    assert stack.python("consumer", "-c", script).split() == ["True", "True"]


def test_no_container_uses_an_anonymous_volume(stack: Stack) -> None:
    volumes = [
        mount["Name"] for container in stack.containers() for mount in container["Mounts"] if mount["Type"] == "volume"
    ]

    assert [name for name in volumes if not name.startswith(f"{stack.project}_")] == []


def test_no_password_is_on_a_command_line(stack: Stack) -> None:
    for container in stack.containers():
        command = [*(container["Config"]["Entrypoint"] or []), *(container["Config"]["Cmd"] or []), *container["Args"]]
        assert SPECIAL_PASSWORD not in " ".join(command)


@pytest.mark.parametrize("service", ["producer", "consumer"])
def test_an_image_is_small_and_contains_neither_tests_nor_pip(stack: Stack, service: str) -> None:
    image = f"{stack.project}-{service}"
    size = subprocess.check_output(["docker", "image", "inspect", image, "--format", "{{.Size}}"], text=True)
    command = ["docker", "run", "--rm", image, "sh", "-c", "command -v pip gcc; ls /app"]
    inside = subprocess.run(command, check=True, text=True, capture_output=True).stdout.split()

    assert int(size) < 200_000_000
    assert not {"tests", "requirements-dev.txt"} & set(inside)
    assert not [name for name in inside if name.endswith(("pip", "gcc"))]
