"""The parts of a local run that need no servers."""

import json
import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from local import plan
from local.children import parse_event, write_settings
from local.connectivity import kafka_addresses, mongodb_addresses
from local.counts import Counts, with_audit
from local.errors import CannotRun
from local.folder import locked
from local.metrics import (
    ConsumerMetrics,
    Measurement,
    RecentMeasurements,
    http_get,
    increase,
    merged,
    parse_consumer_metrics,
    quantile,
)
from local.offsets import Progress
from local.options import Options, parse
from local.produce_throttle import Window
from local.protocols import produces_to
from local.table import ConsumerRow, LiveTable, PlainLines, Snapshot, line, seconds

INFINITE = float("inf")
LENGTH = b"\x00\x00\x01\x00"


def snapshot(**changes: object) -> Snapshot:
    rows = [
        ConsumerRow("consumer-1", 11, "running", (0, 3), ConsumerMetrics(stored=1000, dead_lettered=1)),
        ConsumerRow("consumer-2", 12, "killed", (), ConsumerMetrics(stored=234, duplicates=7)),
    ]
    values: dict[str, object] = {
        "elapsed": 2.0,
        "produced": 1240,
        "stored": 1234,
        "dead_lettered": 1,
        "lag": 5,
        "rate": 617.0,
        "p50": 0.012,
        "p99": 1.25,
        "producer": "running",
        "consumers": rows,
    }
    return Snapshot(**(values | changes))  # type: ignore[arg-type]  # a test's table of values


# Options


def test_the_defaults_are_the_specified_rate_without_end() -> None:
    options = parse([])

    assert options == Options(messages=None, rate=100_000 / 3600, consumers=3, partitions=6)


def test_every_option_is_parsed() -> None:
    words = "--messages 5 --rate 0 --consumers 2 --partitions 4 --kafka a:9092,b:9092 --mongodb mongodb://m --keep"

    options = parse(words.split())

    assert options == Options(5, 0, 2, 4, "a:9092,b:9092", "mongodb://m", keep=True)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--messages", "0"], "is not a positive integer"),
        (["--messages", "٣"], "is not a positive integer"),
        (["--consumers", "-1"], "is not a positive integer"),
        (["--rate", "fast"], "neither 0 nor a number"),
        (["--rate", "nan"], "neither 0 nor a number"),
        (["--rate", "-1"], "neither 0 nor a number"),
        (["--kafka", "localhost"], "not HOST:PORT"),
        (["--kafka", "localhost:99999"], "not HOST:PORT"),
        (["--mongodb", "http://x"], "begins with mongodb://"),
        (["--count", "5"], "unrecognized arguments"),
    ],
)
def test_an_invalid_option_is_an_error_message_and_status_2(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parse(arguments)

    assert end.value.code == 2
    assert problem in capsys.readouterr().err


# Settings of the processes


def test_an_embedded_run_has_the_default_names() -> None:
    names = plan.names(Options(), "now")

    assert names == plan.Names("data-topic", "data-consumer-group", "messages")
    assert names.dead_letter_topic == "data-topic.dlq"


def test_a_kept_store_gets_a_new_topic_because_the_offsets_of_the_embedded_broker_start_at_0() -> None:
    assert plan.names(Options(keep=True), "now") == plan.Names("local-now", "data-consumer-group", "messages")


def test_on_real_servers_every_run_has_new_names() -> None:
    assert plan.names(Options(kafka="a:1", mongodb="mongodb://m"), "now") == plan.Names(*["local-now"] * 3)


def test_a_kept_run_on_real_servers_reuses_its_names() -> None:
    assert plan.names(Options(kafka="a:1", mongodb="mongodb://m", keep=True), "now") == plan.Names(*["local"] * 3)


@pytest.mark.parametrize(("rate", "size"), [(0, 500), (0.5, 1), (100_000 / 3600, 7), (400, 100), (100_000, 500)])
def test_a_batch_is_sent_four_times_per_second_within_limits(rate: float, size: int) -> None:
    assert plan.batch_size(rate) == size


def test_clients_of_the_embedded_broker_get_the_settings_that_it_requires() -> None:
    names = plan.names(Options(), "now")

    consumer = plan.consumer_settings(Options(), names, "127.0.0.1:1", Path("/a b"))
    producer = plan.producer_settings(Options(rate=50), names, "127.0.0.1:1", Path("/a b"))

    assert consumer["kafka"]["client"]["session.timeout.ms"] == 6000
    assert consumer["mongodb"]["uri"] == "sqlite:////a b/messages.db"
    assert producer["kafka"]["client"]["socket.timeout.ms"] == 300_000
    assert (producer["producer"]["interval_ms"], producer["producer"]["batch_size"]) == (20, 12)


def test_clients_of_real_servers_get_no_special_settings() -> None:
    options = Options(rate=0, kafka="a:1", mongodb="mongodb://m")
    names = plan.names(options, "now")

    consumer = plan.consumer_settings(options, names, "a:1")
    producer = plan.producer_settings(options, names, "a:1")

    assert (consumer["kafka"]["client"], consumer["mongodb"]["uri"]) == ({}, "mongodb://m")
    assert (producer["kafka"]["client"], producer["producer"]["interval_ms"]) == ({}, 0)


def test_variables_of_the_callers_shell_redirect_no_part_of_the_run() -> None:
    inherited = {"PATH": "/bin", "KAFKA_TOPIC": "other", "MONGODB_URI_FILE": "/x", "PYTHONPATH": "scripts"}

    assert plan.environment(inherited) == {**plan.ALLOCATOR, "PATH": "/bin"}


def test_the_callers_allocator_setting_takes_precedence() -> None:
    assert plan.environment({"MALLOC_ARENA_MAX": "4"})["MALLOC_ARENA_MAX"] == "4"


@pytest.mark.parametrize("service", ["producer", "consumer"])
def test_the_allocator_setting_is_that_of_the_services_images(service: str) -> None:
    dockerfile = (plan.ROOT / service / "Dockerfile").read_text("utf-8")

    assert dict(re.findall(r"(MALLOC_\w+)=(\d+)", dockerfile)) == plan.ALLOCATOR


def test_a_command_to_copy_is_quoted() -> None:
    assert plan.shell_line("consumer", ["python", "-m", "src.x", "/a b/c"]).endswith("&& python -m src.x '/a b/c'")


# Logs and metrics


@pytest.mark.parametrize(
    ("text", "event"),
    [
        (
            b'{"message": "serving metrics and health", "port": 8001}',
            {"message": "serving metrics and health", "port": 8001},
        ),
        (b"[1]", {}),
        (b"Traceback (most recent call last):", {}),
        (b"\xff\xfe", {}),
    ],
)
def test_log_lines_that_are_not_events_are_ignored(text: bytes, event: dict[str, object]) -> None:
    assert parse_event(text) == event


def test_a_consumers_metrics_are_parsed() -> None:
    metrics = """\
# TYPE consumer_messages counter
consumer_messages_total{result="stored"} 12.0
consumer_messages_total{result="duplicate"} 3.0
consumer_messages_total{result="dead_lettered"} 1.0
# TYPE consumer_end_to_end_latency_seconds histogram
consumer_end_to_end_latency_seconds_bucket{le="0.1"} 9.0
consumer_end_to_end_latency_seconds_bucket{le="+Inf"} 12.0
"""

    assert parse_consumer_metrics(metrics) == ConsumerMetrics(12, 3, 1, {0.1: 9, INFINITE: 12})


def test_an_unknown_or_closed_port_has_no_metrics() -> None:
    assert http_get(None, "/metrics") is None
    assert http_get(1, "/metrics") is None


# Quantiles and rates


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.5, 0.1), (0.25, 0.05), (0.75, 0.55), (1.0, 1.0)],
)
def test_a_quantile_is_interpolated_within_its_bucket(share: float, expected: float) -> None:
    assert quantile(share, {0.1: 50, 1.0: 100, INFINITE: 100}) == pytest.approx(expected)


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    assert quantile(0.99, {0.1: 1, 1.0: 2, INFINITE: 100}) == 1.0


def test_without_observations_there_is_no_quantile() -> None:
    assert quantile(0.5, {}) is None
    assert quantile(0.5, {0.1: 0, INFINITE: 0}) is None


def test_histograms_of_several_processes_are_merged() -> None:
    assert merged([{0.1: 1, INFINITE: 2}, {0.1: 3, INFINITE: 3}]) == {0.1: 4, INFINITE: 5}
    assert increase({0.1: 4, INFINITE: 5}, {0.1: 1}) == {0.1: 3, INFINITE: 5}


def test_the_rate_is_that_of_the_recent_seconds() -> None:
    recent = RecentMeasurements(window=5)
    for second in range(20):
        recent.add(Measurement(second, settled=second * (1 if second <= 10 else 100), latency={}))

    assert recent.rate == 100


def test_with_fewer_than_two_measurements_there_is_no_rate() -> None:
    recent = RecentMeasurements()

    assert (recent.rate, recent.quantile(0.5)) == (0, None)

    recent.add(Measurement(0, 0, {1.0: 0}))

    assert (recent.rate, recent.quantile(0.5)) == (0, None)


def test_the_latency_is_that_of_the_recent_seconds() -> None:
    recent = RecentMeasurements(window=5)
    recent.add(Measurement(0, 0, {0.1: 0, 1.0: 900, INFINITE: 900}))
    recent.add(Measurement(5, 0, {0.1: 100, 1.0: 1000, INFINITE: 1000}))

    assert recent.quantile(0.5) == pytest.approx(0.05)


# Progress and counts


def test_progress_counts_from_the_end_offsets_at_the_start_of_the_run() -> None:
    progress = Progress(start={0: 10, 1: 0}, end={0: 30, 1: 5}, committed={0: 25, 1: 5})

    assert (progress.produced, progress.lag, progress.settled) == (25, 5, 20)


def test_before_the_first_commit_everything_is_lag() -> None:
    progress = Progress(start={0: 10}, end={0: 30}, committed={})

    assert (progress.lag, progress.settled) == (30, 0)


def test_no_message_is_missing_if_every_settled_one_is_counted() -> None:
    counts = Counts(settled=100, stored=97, dead_lettered=2, duplicates=1)

    assert counts.missing == 0
    assert str(counts) == "100 settled = 97 stored + 2 dead-lettered + 1 duplicates"


def test_a_message_that_is_in_no_count_is_missing() -> None:
    counts = Counts(settled=100, stored=99)

    assert counts.missing == 1
    assert str(counts) == "100 settled = 99 stored + 0 dead-lettered + 1 MISSING"


AUDIT = dict.fromkeys(("dead_lettered", "duplicates", "skipped", "superseded", "deleted", "expired_offsets"), 0)


def test_what_the_audit_knows_explains_what_is_not_stored() -> None:
    audit = AUDIT | {"dead_lettered": 2, "duplicates": 1}

    assert with_audit(Counts(100, 97), audit, []) == Counts(100, 97, 2, 1)
    assert with_audit(Counts(100, 96), audit, [ConsumerMetrics(duplicates=9)]).missing == 1
    assert with_audit(Counts(100, 91), audit | {"skipped": 1, "superseded": 2, "deleted": 3}, []).missing == 0


def test_messages_that_have_left_the_topic_are_counted_by_the_consumers_metrics() -> None:
    audit = AUDIT | {"dead_lettered": 2, "expired_offsets": 50}
    consumers = [ConsumerMetrics(dead_lettered=2, duplicates=3), ConsumerMetrics(dead_lettered=4)]

    assert with_audit(Counts(100, 92), audit, consumers) == Counts(100, 92, 6, 2)
    assert with_audit(Counts(100, 90), audit, consumers).missing == 1


# The throttle


def test_the_window_moves_by_what_is_settled() -> None:
    window = Window(1000)
    window.mark(600, {0: 5, 1: 5})

    window.settle({0: 5, 1: 5})

    assert window.allowed == 1600


def test_the_window_stays_while_one_partition_lags() -> None:
    window = Window(1000)
    window.mark(600, {0: 5, 1: 5})

    window.settle({0: 99, 1: 4})

    assert window.allowed == 1000


def test_each_mark_is_settled_separately() -> None:
    window = Window(1000)
    window.mark(300, {0: 3})
    window.mark(600, {0: 6})
    window.mark(600, {0: 7})  # nothing has passed since

    window.settle({0: 3})
    first = window.allowed
    window.settle({0: 6})

    assert (first, window.allowed) == (1300, 1600)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"\x00\x00\x00\x07....\x00\x07rdkafka...\x00\x0adata-topic...", True),
        (b"\x00\x00\x00\x0a....\x00\x07rdkafka...\x0bdata-topic...", True),
        (b"\x00\x00\x00\x07....\x00\x07rdkafka...\x00\x0edata-topic.dlq...", False),
        (b"\x00\x01\x00\x0b....\x00\x07rdkafka...\x00\x0adata-topic...", False),
    ],
)
def test_only_produce_requests_to_the_topic_are_throttled(request_: bytes, expected: bool) -> None:
    assert produces_to(b"data-topic", LENGTH + request_) is expected


def test_a_long_topic_name_is_recognized_in_the_compact_encoding_too() -> None:
    topic = b"t" * 200

    assert produces_to(topic, LENGTH + b"\x00\x00....\xc9\x01" + topic)


# Addresses


@pytest.mark.parametrize(
    ("uri", "addresses"),
    [
        ("mongodb://a", [("a", 27017)]),
        ("mongodb://user:p%40ss@a:1,b/db?w=1", [("a", 1), ("b", 27017)]),
        ("mongodb://[::1]:5", [("[::1]", 5)]),
        ("mongodb+srv://cluster.example", []),
    ],
)
def test_the_addresses_of_a_mongodb_uri(uri: str, addresses: list[tuple[str, int]]) -> None:
    assert mongodb_addresses(uri) == addresses


def test_the_addresses_of_kafka_servers() -> None:
    assert kafka_addresses("a:1,b:2") == [("a", 1), ("b", 2)]


# The folder


def test_a_new_run_deletes_the_files_of_the_last_one_and_keeps_the_virtual_environment(tmp_path: Path) -> None:
    for old in ("messages.db", "messages.db-wal", "consumer.json", "logs/x.log", "undelivered/y.jsonl", "venv/pip.log"):
        (tmp_path / old).parent.mkdir(exist_ok=True)
        (tmp_path / old).touch()

    with locked(tmp_path) as folder:
        folder.prepare(keep=False)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "logs", "venv"]
    assert list((tmp_path / "logs").iterdir()) == []


def test_a_kept_run_deletes_nothing(tmp_path: Path) -> None:
    (tmp_path / "messages.db").touch()

    with locked(tmp_path) as folder:
        folder.prepare(keep=True)

    assert (tmp_path / "messages.db").exists()


def test_a_second_run_names_the_processes_of_the_first(tmp_path: Path) -> None:
    with locked(tmp_path) as folder:
        folder.record_processes([12, 34])

        with pytest.raises(CannotRun, match=r"kill 12 34$"), locked(tmp_path):
            pass


def test_a_folder_that_cannot_be_created_is_an_error_message(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="cannot write to"), locked(tmp_path / "no" / "such"):
        pass


def test_only_the_user_can_read_the_settings(tmp_path: Path) -> None:
    path = write_settings(tmp_path / "consumer.json", {"mongodb": {"uri": "mongodb://user:secret@m"}})

    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text()) == {"mongodb": {"uri": "mongodb://user:secret@m"}}


# Output


def test_a_plain_line_has_every_number() -> None:
    assert line(snapshot()) == (
        "  2.0 s  produced 1,240  stored 1,234  dead-lettered 1  lag 5  msg/s 617  p50 12 ms  p99 1.2 s"
        "  partitions 0 3 | killed"
    )


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0.0004, "0 ms"), (0.25, "250 ms"), (12.34, "12.3 s")])
def test_durations_are_rounded(value: float | None, text: str) -> None:
    assert seconds(value) == text


def test_plain_lines_are_printed_every_two_seconds_and_at_the_end() -> None:
    lines: list[str] = []
    times = iter([0.0, 0.0, 1.0, 2.0, 2.0, 2.5])

    with PlainLines(clock=lambda: next(times), write=lines.append) as view:
        for produced in (1, 2, 3):
            view.show(snapshot(produced=produced))
        view.show(snapshot(produced=4, last=True))
        view.print("done")

    assert [text.split("  ")[2] for text in lines[:-1]] == ["produced 1", "produced 3", "produced 4"]
    assert lines[-1] == "done"


def test_the_live_table_has_a_row_per_consumer() -> None:
    console = Console(record=True, width=120, force_terminal=True, file=StringIO())

    with LiveTable(console) as view:
        view.print("[text with brackets]")
        view.show(snapshot(last=True))
    shown = console.export_text()

    assert "[text with brackets]" in shown
    for words in ("1,240", "617", "12 ms", "consumer-1", "11", "0 3", "consumer-2", "killed", "none"):
        assert words in shown
