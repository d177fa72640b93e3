"""The bench's own parts: the acknowledging server, the options, the numbers and the tables."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import bson
import pymongo
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymongo.database import Database
from rich.console import Console

from bench import document, table
from bench.options import FULL, PARTS, QUICK, Options, parse
from bench.plots import plots
from bench.process_tree import ProcessTree
from bench.programs.counted import InstructionCounter
from bench.results import Row, as_json, failures_noted, percentile
from bench.stores import AcknowledgingStore, SqliteStore, acknowledging_store
from local import mongodb_wire as wire
from local.errors import CannotRun

DOCUMENTS = st.lists(st.dictionaries(st.text("abc", min_size=1), st.integers(-(2**63), 2**63 - 1) | st.text()))


# -- the acknowledging server


@pytest.fixture(scope="module")
def store() -> Iterator[AcknowledgingStore]:
    with acknowledging_store() as running:
        yield running


@pytest.fixture
def database(store: AcknowledgingStore) -> Iterator[Database[dict[str, Any]]]:
    with pymongo.MongoClient[dict[str, Any]](store.uri("")) as client:
        yield client["bench"]


def test_the_server_acknowledges_inserts_of_every_form_and_counts_their_documents(
    store: AcknowledgingStore, database: Database[dict[str, Any]]
) -> None:
    collection = database["forms"]
    collection.insert_one({"name": "one"})
    collection.insert_many([{"name": "many"} for _ in range(150)], ordered=False)
    reply = database.command("insert", "forms", documents=[{"name": "command"} for _ in range(1_200)], ordered=False)
    collection.bulk_write([pymongo.UpdateOne({"_id": 1}, {"$set": {"a": 1}}, upsert=True)])

    progress = store.progress("forms")

    assert reply["n"] == 1_200
    assert progress.documents == 1 + 150 + 1_200 + 1
    assert 0 < (progress.sent_bytes or 0) < 100_000
    assert progress.time <= time.monotonic()


def test_the_server_counts_each_collection_alone(store: AcknowledgingStore, database: Database[dict[str, Any]]) -> None:
    database["first"].insert_one({})

    assert (store.progress("first").documents, store.progress("second").documents) == (1, 0)


@pytest.mark.parametrize(
    "call",
    [
        lambda database: database.command("ping"),
        lambda database: database.client.server_info(),
        lambda database: database["t"].create_index([("name", 1)]),
        lambda database: database["t"].index_information(),
        lambda database: list(database["t"].find({"_id": {"$in": ["a"]}})),
        lambda database: database["t"].count_documents({}),
        lambda database: database["t"].drop(),
        lambda database: database.list_collection_names(),
    ],
)
def test_the_server_answers_what_a_consumer_asks(
    call: Callable[[Database[dict[str, Any]]], object], database: Database[dict[str, Any]]
) -> None:
    call(database)


def test_latencies_are_recorded_from_the_first_request_for_them_on(
    store: AcknowledgingStore, database: Database[dict[str, Any]]
) -> None:
    created_at = datetime.now(UTC) - timedelta(seconds=5)
    database["latency"].insert_one({"created_at": created_at})
    assert store.latencies("latency") == []

    database["latency"].insert_many([{"created_at": created_at}] * 2)

    assert [round(seconds) for seconds in store.latencies("latency")] == [5, 5]
    assert store.latencies("latency") == []


def test_an_unacknowledged_insert_has_no_reply(store: AcknowledgingStore, database: Database[dict[str, Any]]) -> None:
    """A reply would be read as that of the next command, on the same connection."""
    with pymongo.MongoClient[dict[str, Any]](store.uri(""), w=0, maxPoolSize=1) as client:
        client["bench"]["unacknowledged"].insert_one({})

        assert client["bench"].command("count", "unacknowledged")["n"] == 1


@given(DOCUMENTS)
def test_the_documents_of_a_command_are_found_in_both_of_its_forms(documents: list[Mapping[str, Any]]) -> None:
    command = {"insert": "name", "ordered": False, "$db": "bench", "lsid": {"id": 1}, "writeConcern": {"w": 1}}
    body = bson.encode({**command, "documents": documents})
    sequence = b"documents\0" + b"".join(map(bson.encode, documents))
    length = (4 + len(sequence)).to_bytes(4, "little")

    array = wire.parse_message(memoryview(b"\0\0\0\0\0" + body))
    separate = wire.parse_message(memoryview(b"\0\0\0\0\0" + bson.encode(command) + b"\1" + length + sequence))

    for parsed in (array, separate):
        assert (parsed.name, parsed.target, parsed.count()) == ("insert", "name", len(documents))
        assert [bson.decode(document) for document in parsed.documents()] == documents


# -- options


def test_by_default_every_part_runs_but_those_on_request() -> None:
    assert parse([]).parts == tuple(name for name in PARTS if name != "instructions")
    assert set(parse([]).parts) - set(parse(["--quick"]).parts) == {"replicas", "growth"}
    assert parse(["--quick", "--only", "growth"]).parts == ("growth",)
    assert parse(["--only", "instructions,audit"]).parts == ("audit", "instructions")


def test_sizes_are_those_of_the_mode_unless_they_are_given() -> None:
    assert parse([]).sizes.messages == FULL.messages
    assert parse(["--quick"]).sizes.rounds == QUICK.rounds
    assert parse(["--quick", "--rounds", "3", "--messages", "6000"]).sizes.rounds == 3
    assert parse(["--quick", "--rounds", "3", "--messages", "6000"]).sizes.catch_up == 6_000


def test_the_embedded_broker_gets_a_smaller_backlog() -> None:
    assert parse([]).sizes.catch_up < parse(["--kafka", "h:1"]).sizes.catch_up == 1_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "speed"], "is not a part"),
        (["--messages", "4999"], "at least 5000"),
        (["--rounds", "0"], "is not a positive integer"),
        (["--kafka", "host"], "is not HOST:PORT"),
        (["--mongodb", "host"], "a MongoDB URI begins with"),
    ],
)
def test_a_wrong_option_is_an_error(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)

    assert message in capsys.readouterr().err


def test_contenders_are_selected_by_a_part_of_their_name() -> None:
    options = Options(contenders=("our", "limit"))

    assert options.includes("our consumer")
    assert not options.includes("textbook consumer")
    assert Options().includes("textbook consumer")


# -- results


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_the_smallest_value_that_the_share_does_not_exceed(values: list[float], share: float) -> None:
    found = percentile(values, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
    assert sum(value < found for value in values) < share * len(values)


def test_a_row_has_the_median_and_the_spread_of_its_rounds() -> None:
    row = Row("consumer", "ours", "batch 500", "SQLite")
    for rate in (3000.0, 1000.0, 2000.0):
        row.add(messages_per_second=rate, sent_bytes=None)

    assert as_json(row) == {
        "part": "consumer",
        "contender": "ours",
        "setting": "batch 500",
        "store": "SQLite",
        "metrics": {
            "messages_per_second": {"median": 2000.0, "min": 1000.0, "max": 3000.0, "rounds": [3000.0, 1000.0, 2000.0]}
        },
    }
    assert table.cell(row, "messages_per_second") == "2,000 (1,000..3,000)"
    assert table.cell(row, "sent_bytes") == ""


def test_a_contender_that_fails_has_the_reason_as_its_note() -> None:
    row = Row("consumer", "ours")

    with failures_noted(row):
        _fail("no progress")

    assert (row.failed, row.note) == (True, "failed: no progress")


def _fail(text: str) -> None:
    raise CannotRun(text)


def test_a_table_shows_the_metrics_that_were_measured_and_the_notes() -> None:
    row = Row("producer", "ours", "batch 500", note="slow today")
    row.add(messages_per_second=1234.5, cpu_us=6.78)
    output = StringIO()

    table.show([row], Console(file=output, width=100))

    assert "1,234" in output.getvalue()
    assert "6.8" in output.getvalue()
    assert "ours: slow today" in output.getvalue()
    assert "peak" not in output.getvalue()


def test_a_document_gets_the_table_of_a_part_between_its_markers() -> None:
    row = Row("audit", "ours", "all", "SQLite", note="slow today")
    row.add(messages_per_second=1234.5)
    text = "a\n\n<!-- bench: audit -->\nold\n<!-- end -->\n\nb <!-- bench: latency -->\nold\n<!-- end -->"

    once = document.replaced(text, "audit", document.markdown([row]))

    assert "| ours | all | SQLite | 1,234 |" in once
    assert once.startswith("a\n\n<!-- bench: audit -->\n\n| contender | setting |")
    assert once.endswith("ours: slow today.\n\n<!-- end -->\n\nb <!-- bench: latency -->\nold\n<!-- end -->")
    assert document.replaced(once, "audit", document.markdown([row])) == once


def test_plots_show_the_medians_and_cut_off_an_outlier() -> None:
    rows = [Row("consumer", name, store=AcknowledgingStore.name) for name in ("our consumer", "limit", "slow & sure")]
    for row, cpu in zip(rows, (10.0, 5.0, 400.0), strict=True):
        row.add(cpu_us=cpu)

    found = plots(rows)

    assert list(found) == ["consumer-cpu.svg"]
    texts = [element.text for element in ElementTree.fromstring(found["consumer-cpu.svg"]).iter() if element.text]
    assert {"our consumer", "10.0", "slow & sure", "400.0 »"} <= set(texts)


# -- measurements


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_process_tree_includes_the_children() -> None:
    child = "import sys; sum(range(30_000_000)); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', '{child}']); sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, start_new_session=True)
    tree, deadline = ProcessTree(process.pid), time.monotonic() + 30
    while tree.cpu_seconds < 0.2 and time.monotonic() < deadline:
        pass

    try:
        assert tree.cpu_seconds >= 0.2
        assert 5 * 2**20 < tree.peak_bytes < 500 * 2**20
    finally:
        process.communicate()


def test_the_count_of_instructions_grows_by_the_same_number_with_each_message() -> None:
    def count(messages: int) -> int:
        counter = InstructionCounter()
        sys.settrace(counter.trace)
        try:
            _pass_over(range(messages))
        finally:
            sys.settrace(None)
        return counter.result()["test_bench._pass_over"]

    assert count(200) - count(100) == count(300) - count(200) >= 100


def _pass_over(messages: range) -> int:
    total = 0
    for message in messages:
        total += message
    return total


def test_rows_of_a_sqlite_store_are_counted_while_it_is_written(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    assert store.progress("messages").documents == 0

    with sqlite3.connect(tmp_path / "messages.db") as connection:
        connection.execute("CREATE TABLE messages (id TEXT PRIMARY KEY)")
        connection.executemany("INSERT INTO messages VALUES (?)", [("a",), ("b",)])
    connection.close()

    assert store.progress("messages").documents == 2
