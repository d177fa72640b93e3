"""An upgrade from version 1.0.0: this version lists and resends what 1.0.0 has left in its undelivered folder.

The fixtures are described in tests/upgrade/README.md of the project.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from time import monotonic

import pytest

from local.broker import EmbeddedBroker
from src.producer import DataProducer
from src.settings import Settings
from src.undelivered.__main__ import main
from src.utils.config import parse
from tests.fakes import DEADLINE, undelivered_keys
from tests.topics import all_records

FIXTURES = Path(__file__).resolve().parents[2] / "tests/upgrade/1.0.0/undelivered"
TOPIC = "recorded-topic"
OUTAGE, REJECTED = 20, 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(FIXTURES, tmp_path / "undelivered")


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with EmbeddedBroker({TOPIC: 2}) as broker:
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.address)
        monkeypatch.setenv("KAFKA_TOPIC", TOPIC)
        yield broker.address


def recorded_values(folder: Path) -> list[str]:
    lines = [line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    return sorted(json.loads(line)["value"] for line in lines)


def values(servers: str) -> list[str]:
    return sorted((record.value or b"").decode() for record in all_records(servers, TOPIC))


def test_undelivered_messages_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = main(["list", "--dir", str(folder)])

    printed = capsys.readouterr().out
    assert exit_code == 0
    assert f"{OUTAGE + REJECTED} messages in {folder}" in printed
    assert printed.count("not confirmed within 1 s; it may be in the topic") == OUTAGE
    assert printed.count("rejected: Broker: Message size too large") == REJECTED


def test_a_file_of_corrupt_lines_is_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (corrupt,) = folder.glob("*.broken")

    main(["list", "--dir", str(folder)])

    assert f"{corrupt.name}  1 corrupt lines, not resent" in capsys.readouterr().out


def test_the_command_resends_each_message_once(folder: Path, servers: str) -> None:
    recorded = recorded_values(folder)

    exit_code = main(["resend", "--dir", str(folder)])
    again = main(["resend", "--dir", str(folder)])

    assert (exit_code, again) == (0, 0)
    assert values(servers) == recorded
    assert [path.suffix for path in folder.iterdir()] == [".broken"]


def test_the_producer_resends_what_kafka_has_not_rejected(folder: Path, servers: str) -> None:
    recorded = recorded_values(folder)
    settings = parse(
        Settings,
        {
            "kafka": {"bootstrap_servers": servers, "topic": TOPIC},
            "producer": {"undelivered_dir": str(folder)},
            "metrics": {"port": 0},
        },
    )
    stop = Event()
    watch = Thread(target=stop_once_resent, args=(folder, stop), daemon=True)

    watch.start()
    DataProducer(settings=settings, stop=stop).run(interval=0.02, batch_size=1)
    watch.join(DEADLINE)

    sent = values(servers)
    assert len(sent) == len(set(sent))
    assert len(set(recorded) & set(sent)) == OUTAGE
    assert undelivered_keys(folder) == ["too-large"]


def stop_once_resent(folder: Path, stop: Event) -> None:
    deadline = monotonic() + DEADLINE
    while len(list(folder.glob("*.jsonl"))) > REJECTED and monotonic() < deadline:
        stop.wait(0.05)
    stop.set()
