"""The whole producer on a real Kafka."""

import json
from pathlib import Path

import pytest

from src.data_generator import DataGenerator
from src.message_sources import GeneratedMessages
from src.model.message import ProducerRecord
from src.producer import DataProducer, main
from src.settings import Settings
from src.utils.config import parse
from tests.fakes import key, undelivered_keys
from tests.topics import all_records, create_topic

pytestmark = pytest.mark.docker

PARTITIONS = 3


class World:
    """A new topic and undelivered folder for each test."""

    def __init__(self, servers: str, folder: Path) -> None:
        self.servers = servers
        self.topic = create_topic(servers, PARTITIONS)
        self.folder = folder

    @property
    def tree(self) -> dict[str, object]:
        return {
            "kafka": {"bootstrap_servers": self.servers, "topic": self.topic},
            "producer": {"interval_ms": 0, "undelivered_dir": str(self.folder)},
            "metrics": {"port": 0},
        }

    def producer(self) -> DataProducer:
        return DataProducer(settings=parse(Settings, self.tree))

    def records(self) -> list[ProducerRecord]:
        return all_records(self.servers, self.topic)

    @property
    def undelivered(self) -> list[str]:
        return undelivered_keys(self.folder)


@pytest.fixture
def world(kafka_servers: str, tmp_path: Path) -> World:
    return World(kafka_servers, tmp_path / "undelivered")


def test_every_generated_message_is_in_the_topic_once_in_the_documented_format(world: World) -> None:
    producer = world.producer()

    assert producer.send_from(GeneratedMessages(DataGenerator(), 5000), 0.0, 100) is True

    found = world.records()
    values = [json.loads(record.value or b"") for record in found]
    assert len({value["id"] for value in values}) == len(found) == 5000
    assert {key(record) for record in found} == {value["id"] for value in values}
    assert dict(found[0].headers) == {
        "content-type": b"application/json",
        "created_at": values[0]["created_at"].encode(),
    }
    assert world.undelivered == []


def test_send_batch_and_send_message_return_what_kafka_acknowledged(world: World) -> None:
    with world.producer() as producer:
        batch = producer.generate_data(10)

        assert producer.send_batch(batch) == 10
        assert producer.send_message("key", {"id": "key"}, [("a", None), ("a", b"\xff")]) is True

    by_key = {record.key: record for record in world.records()}
    assert len(by_key) == 11
    assert by_key[b"key"].headers == [("a", None), ("a", b"\xff")]


def test_input_lines_are_sent_and_an_invalid_one_is_logged_by_number(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"id": "1", "color": "blue"}\n{broken\n{"color": "red"}\n')
    config = tmp_path / "config.json"
    config.write_text(json.dumps(world.tree))

    assert main(["--config", str(config), "--input", str(lines)]) == 1

    values = [json.loads(record.value or b"") for record in world.records()]
    assert sorted(value["color"] for value in values) == ["blue", "red"]
    assert '"line": 2' in capsys.readouterr().out


def test_check_passes(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(world.tree))

    assert main(["--config", str(config), "--check"]) == 0

    assert str(PARTITIONS) in capsys.readouterr().out
