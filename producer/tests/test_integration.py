"""The whole producer on a real Kafka: in a container, or on the server that TEST_KAFKA_SERVERS names."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from src.data_generator import DataGenerator
from src.producer import DataProducer, Generated, main
from src.settings import Settings
from src.utils.config import parse

pytestmark = pytest.mark.docker

ENV_FILE = Path(__file__).resolve().parent.parent.parent / ".env"
PATIENCE = 60.0  # seconds for what a broker has to do
PARTITIONS = 3


@pytest.fixture(scope="session")
def kafka_servers() -> Iterator[str]:
    given = os.environ.get("TEST_KAFKA_SERVERS", "")
    if given:
        yield given
        return
    if not docker_answers():
        pytest.skip("needs Kafka: set TEST_KAFKA_SERVERS, or start a Docker engine")
    from testcontainers.community.kafka import KafkaContainer

    with KafkaContainer(image("KAFKA_IMAGE")).with_kraft() as container:
        yield container.get_bootstrap_server()


def docker_answers() -> bool:
    import docker
    from docker.errors import DockerException

    try:
        docker.from_env().close()
    except DockerException:
        return False
    return True


def image(variable: str) -> str:
    """The image that the compose stack uses, from the file that pins it."""
    lines = ENV_FILE.read_text().splitlines()
    return next(line.partition("=")[2].strip() for line in lines if line.startswith(f"{variable}="))


class World:
    """A topic of the test's own, and a folder for what is not delivered."""

    def __init__(self, servers: str, folder: Path) -> None:
        self.servers = servers
        self.topic = f"test-{uuid4().hex[:12]}"
        self.folder = folder
        admin = AdminClient({"bootstrap.servers": servers})
        admin.create_topics([NewTopic(self.topic, PARTITIONS, 1)])[self.topic].result(PATIENCE)

    @property
    def tree(self) -> dict[str, object]:
        return {
            "kafka": {"bootstrap_servers": self.servers, "topic": self.topic},
            "producer": {"interval_ms": 0, "undelivered_dir": str(self.folder)},
            "metrics": {"port": 0},
        }

    def producer(self) -> DataProducer:
        return DataProducer(settings=parse(Settings, self.tree))

    def messages(self) -> list[Message]:
        """All that is in the topic."""
        client = {"bootstrap.servers": self.servers, "group.id": "reader", "enable.partition.eof": True}
        consumer = Consumer(client)
        consumer.assign([TopicPartition(self.topic, number, 0) for number in range(PARTITIONS)])
        found: list[Message] = []
        ends = 0
        while ends < PARTITIONS:
            message = consumer.poll(PATIENCE)
            assert message is not None, "the topic can't be read"
            if message.error() is None:
                found.append(message)
            else:
                ends += 1
        consumer.close()
        return found

    @property
    def kept(self) -> list[str]:
        return [line for path in self.folder.glob("*.jsonl") for line in path.read_text().splitlines()]


@pytest.fixture
def world(kafka_servers: str, tmp_path: Path) -> World:
    return World(kafka_servers, tmp_path / "undelivered")


def test_every_generated_message_is_in_the_topic_once_as_the_spec_writes_it(world: World) -> None:
    producer = world.producer()

    assert producer.send_all(Generated(DataGenerator(), 5000), 0.0, 100) is True

    found = world.messages()
    values = [json.loads(message.value() or b"") for message in found]
    assert len({value["id"] for value in values}) == len(found) == 5000
    assert {(message.key() or b"").decode() for message in found} == {value["id"] for value in values}
    assert dict(found[0].headers() or ()) == {
        "content-type": b"application/json",
        "created_at": values[0]["created_at"].encode(),
    }
    assert world.kept == []


def test_send_batch_and_send_message_say_what_kafka_has(world: World) -> None:
    with world.producer() as producer:
        batch = producer.generate_data(10)

        assert producer.send_batch(batch) == 10
        assert producer.send_message("key", {"id": "key"}, [("a", None), ("a", b"\xff")]) is True

    by_key = {message.key(): message for message in world.messages()}
    assert len(by_key) == 11
    assert by_key[b"key"].headers() == [("a", None), ("a", b"\xff")]


def test_the_users_own_lines_are_sent_and_a_broken_one_is_named(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"id": "1", "colour": "blue"}\n{broken\n{"colour": "red"}\n')
    config = tmp_path / "config.json"
    config.write_text(json.dumps(world.tree))

    assert main(["--config", str(config), "--input", str(lines)]) == 1

    values = [json.loads(message.value() or b"") for message in world.messages()]
    assert sorted(value["colour"] for value in values) == ["blue", "red"]
    assert '"line": 2' in capsys.readouterr().out


def test_check_tells_that_all_is_well(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(world.tree))

    assert main(["--config", str(config), "--check"]) == 0

    assert str(PARTITIONS) in capsys.readouterr().out
