"""`python -m src.transform`, and the example in the folder transforms."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from src.transform import main

ORDER = {
    "type": "order",
    "event_id": "e-1",
    "total": 12.5,
    "ts": {"seconds": 1689424496.789},
    "customer": {"name": "Ada"},
}
DOCUMENT = {"id": "e-1", "ordered_at": {"$date": "2023-07-15T12:34:56.789Z"}, "customer": "Ada", "total": 12.5}


def lines_of(*messages: Any) -> list[bytes]:
    return [(each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in messages]


def test_the_documents_are_printed_and_the_other_messages_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    messages = lines_of(ORDER, b"", {"type": "visit"}, {**ORDER, "total": -1}, b"{", {"type": "order"}, ORDER)

    assert main(["orders:to_document"], lines=messages) == 1

    shown = capsys.readouterr()
    assert [json.loads(line) for line in shown.out.splitlines()] == [DOCUMENT, DOCUMENT]
    assert shown.err.splitlines() == [
        "line 3: skipped",
        "line 4: negative_total: the total of the order is -1",
        "line 5: not_json: the value is not JSON: Input data was truncated",
        "line 6: transform_failed: orders:to_document raised KeyError: 'total' (orders.py, line 18)",
        "2 stored, 1 skipped, 3 invalid",
    ]


def test_the_settings_shape_the_documents_with_and_without_a_transform(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCUMENT_ID", "key")
    monkeypatch.setenv("DOCUMENT_RENAME", "total=sum")
    monkeypatch.setenv("DOCUMENT_DATES", "at")

    assert main([], lines=lines_of({"total": 1, "at": "2023-07-15T14:34:56+02:00"})) == 0

    assert json.loads(capsys.readouterr().out) == {"_id": "1", "sum": 1, "at": {"$date": "2023-07-15T12:34:56.000Z"}}


def test_paths_of_the_settings_that_no_message_has_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCUMENT_DATES", "at,ts.date")
    monkeypatch.setenv("DOCUMENT_RENAME", "total=sum,a.b=c")

    assert main([], lines=lines_of({"id": "1", "total": 1}, {"id": "2", "at": "x"}, {"id": "3", "a": []})) == 1

    assert capsys.readouterr().err.splitlines() == [
        "line 2: invalid_at: at is not a date of the years 1 to 9999 in UTC: Invalid RFC3339 encoded datetime",
        "document.dates: no message has ts.date",
        "document.rename: no message has a.b",
        "2 stored, 0 skipped, 1 invalid",
    ]


@pytest.mark.parametrize(
    ("argument", "text"),
    [("orders", "'orders' is not module:function"), ("no_such_module:f", "there is no module no_such_module in")],
)
def test_a_wrong_argument_exits_with_2(argument: str, text: str) -> None:
    command = [sys.executable, "-m", "src.transform", argument]
    result = subprocess.run(command, input="", capture_output=True, text=True, env=dict(os.environ), check=False)

    assert result.returncode == 2
    assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_the_check_names_a_transform_that_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text("import no_such_library")
    environ = {**os.environ, "DOCUMENT_TRANSFORM": "wrong:f", "DOCUMENT_TRANSFORMS_FOLDER": str(tmp_path)}

    for options in ([], ["--check"]):
        command = [sys.executable, "-m", "src.consumer", *options]
        result = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)

        assert result.returncode == 2
        assert result.stderr.startswith("consumer: document.transform: cannot import wrong: ModuleNotFoundError: ")
        assert result.stderr.count("\n") == 1
