"""Finding messages from the command line."""

import json
import os
from pathlib import Path

import pytest

from src.get import main
from src.model.record import Record
from src.settings import MongoSettings, StoreUri
from src.storage import DataStorage
from src.storage_router import StorageRouter
from src.stores.document import DocumentBatch


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataStorage:
    uri = f"sqlite:///{tmp_path}/store.db"
    monkeypatch.setenv("MONGODB_URI", uri)
    storage = DataStorage({"uri": uri})
    for number, color in enumerate(["red", "blue", "blue"]):
        assert storage.save({"id": str(number), "color": color})
    return storage


def found(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()]


def test_a_filter_finds_matching_messages(store: DataStorage, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['{"color": "blue"}', "--sort=-id"]) == 0

    assert found(capsys) == ["2", "1"]


@pytest.mark.parametrize(
    "arguments", [["--sort", "-id"], ["--sort=-id"], ["--sort", "-id", "--limit", "3"], ["--sort", "-id", "{}"]]
)
def test_a_field_with_a_dash_sorts_in_descending_order(
    arguments: list[str], store: DataStorage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0

    assert found(capsys) == ["2", "1", "0"]


def test_an_option_is_not_a_field_to_sort_by(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--sort", "--json"])

    assert "--sort: expected one argument" in capsys.readouterr().err


def test_without_a_filter_all_messages_match(store: DataStorage, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--limit", "3", "--sort", "id"]) == 0

    assert capsys.readouterr() == (
        '{"id": "0", "color": "red"}\n{"id": "1", "color": "blue"}\n{"id": "2", "color": "blue"}\n',
        "",
    )


def test_more_matches_than_the_limit_are_said_in_words(store: DataStorage, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--limit", "2", "--sort", "id", "--json"]) == 0

    assert capsys.readouterr() == (
        '{"id": "0", "color": "red"}\n{"id": "1", "color": "blue"}\n',
        "more than 2 messages match; see --limit\n",
    )


def test_a_limit_below_one_is_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--limit", "0"])

    assert "'0' is not a positive integer" in capsys.readouterr().err


def test_no_match_is_said_in_words(store: DataStorage, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['{"colour": "green"}']) == 0

    assert capsys.readouterr() == ("", "no messages match\n")


def test_an_empty_store_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MONGODB_URI", f"sqlite:///{tmp_path}/store.db")

    assert main(["--json"]) == 0

    assert capsys.readouterr() == ("", "no messages in the store\n")


def test_an_unsupported_operator_is_named(store: DataStorage, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['{"color": {"$regex": "b"}}']) == 2

    assert "$regex" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "said"), [("{", "not JSON"), ("[]", "not a JSON object")])
def test_an_argument_that_is_not_a_filter_is_rejected(text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([text])

    assert said in capsys.readouterr().err


def test_an_unavailable_store_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MONGODB_URI", "mongodb://127.0.0.1:1")
    monkeypatch.setenv("MONGODB_TIMEOUT_MS", "100")

    assert main([]) == 1

    assert "unavailable" in capsys.readouterr().err


def test_a_wrong_setting_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(tmp_path / "none.json")]) == 2

    assert "none.json" in capsys.readouterr().err


def test_of_several_collections_one_is_chosen_by_its_topic(
    store: DataStorage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAFKA_TOPICS", "orders,payments")
    monkeypatch.setenv("MONGODB_COLLECTION", "{topic}")
    mongodb = MongoSettings(uri=StoreUri(os.environ["MONGODB_URI"]), collection="{topic}")
    with StorageRouter(mongodb, ["orders", "payments"], DataStorage) as router:
        for topic in ("orders", "payments"):
            record = Record(topic, 0, 7, None, b"")
            router.save_valid(DocumentBatch([{"id": topic}], [record], 0))

    assert main([]) == 2
    assert "choose one of them with --topic (orders, payments)" in capsys.readouterr().err
    assert main(["--topic", "invoices"]) == 2
    assert "the topics are orders, payments" in capsys.readouterr().err
    assert main(["--topic", "payments", '{"kafka.offset": 7}']) == 0
    assert found(capsys) == ["payments"]


def test_of_a_collection_of_several_topics_only_the_messages_of_one_are_found(
    store: DataStorage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAFKA_TOPICS", "orders,payments")
    store.save_valid(DocumentBatch([{"id": "p"}], [Record("payments", 0, 7, None, b"")], 0))

    assert main(["--topic", "payments"]) == 0

    assert found(capsys) == ["p"]
