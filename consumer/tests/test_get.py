"""Finding messages from the command line."""

import json
from pathlib import Path

import pytest

from src.get import main
from src.storage import DataStorage


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


def test_without_a_filter_all_messages_match(store: DataStorage, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--limit", "2", "--sort", "id"]) == 0

    assert found(capsys) == ["0", "1"]


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
