"""The command `python -m src.audit`, on the embedded broker and a SQLite store."""

import argparse
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from msgspec.structs import replace

from local.broker import RETENTION_BYTES, EmbeddedBroker
from src.audit import __main__ as audit
from src.audit.__main__ import CANNOT_RUN, FAILED, PASSED
from src.audit.comparison import Audit
from src.audit.report import Report
from src.dead_letters.dead_letter import DeadLetter, dead_letter_of, discard_marker, replay_marker
from src.kafka.topic_reader import TopicReader
from src.model.errors import InvalidMessage
from src.model.record import Record, Rejection
from src.settings import KafkaSettings, MongoSettings, Settings, StoreUri
from src.storage import DataStorage
from src.stores.sqlite import SqliteStore
from src.utils.output import INTERRUPTED
from src.utils.progress import ProgressLine
from src.utils.secret import ClientSettings

DAY = 86_400.0
NUMBERS = count()
CLIENT: dict[str, str | int | float | bool] = {"fetch.wait.max.ms": 20}


class World:
    """A topic, its dead letters, a group and a store. The first message creates a topic."""

    def __init__(self, name: str, broker: EmbeddedBroker, producer: Producer, folder: Path) -> None:
        self.kafka = KafkaSettings(
            bootstrap_servers=broker.address,
            topic=name,
            group_id=f"{name}-group",
            dead_letter_topic=f"{name}.dlq",
            client=ClientSettings(CLIENT),
        )
        self.mongodb = MongoSettings(uri=StoreUri(f"sqlite:///{folder}/store.db"))
        self.settings = Settings(kafka=self.kafka, mongodb=self.mongodb)
        self.config = folder / "config.json"
        self.config.write_text(json.dumps(_plain(self.settings)))
        self._producer = producer
        self._sent = [0, 0]

    def send(self, *messages: object, partition: int = 0) -> None:
        for message in messages:
            value = message if isinstance(message, bytes) else json.dumps(message).encode()
            self._producer.produce(self.kafka.topic, value, partition=partition)
        self._producer.flush()
        self._sent[partition] += len(messages)

    def commit(self, offset: int, partition: int = 0) -> None:
        group = Consumer({"bootstrap.servers": self.kafka.servers, "group.id": self.kafka.group_id})
        group.commit(offsets=[TopicPartition(self.kafka.topic, partition, offset)], asynchronous=False)
        group.close()

    def commit_all(self) -> None:
        for partition, sent in enumerate(self._sent):
            self.commit(sent, partition)

    def dead_letter(self, offset: int, *, topic: str | None = None, timestamp: int | None = None) -> None:
        record = Record(topic or self.kafka.topic, 0, offset, None, b"{", timestamp=timestamp)
        error = InvalidMessage("not_json", "not JSON")
        self._put(dead_letter_of(Rejection(record, error.reason, "process", error, 1, 0.0, 0.0)))

    def mark_as_replayed(self) -> None:
        self._put(replay_marker(f"{self.kafka.topic}/0/0/-"))

    def mark_as_discarded(self) -> None:
        self._put(discard_marker(f"{self.kafka.topic}/0/0/-"))

    def _put(self, dead_letter: DeadLetter) -> None:
        self._producer.produce(
            self.kafka.dead_letter_topic, dead_letter.value, dead_letter.key, headers=list(dead_letter.headers)
        )
        self._producer.flush()

    def dead_letter_of_another_program(self) -> None:
        self._put(DeadLetter(None, b"hello", ()))

    def store(
        self, message: dict[str, Any], offset: int | None, *, partition: int = 0, timestamp: str | None = None
    ) -> None:
        position = {"topic": self.kafka.topic, "partition": partition, "offset": offset, "timestamp": timestamp}
        with DataStorage(self.mongodb) as storage:
            assert storage.save(message if offset is None else {**message, "kafka": position})

    def report(
        self, capsys: pytest.CaptureFixture[str], *options: str, run: Callable[..., Sequence[Report]] = audit.run_audit
    ) -> tuple[int, dict[str, Any]]:
        code = audit.main(["--config", str(self.config), "--json", *options], run=run)
        return code, json.loads(capsys.readouterr().out)


def _plain(settings: Settings) -> dict[str, Any]:
    kafka, mongodb = settings.kafka, settings.mongodb
    return {
        "kafka": {name: getattr(kafka, name) for name in kafka.__struct_fields__} | {"client": kafka.client.reveal()},
        "mongodb": {"uri": mongodb.uri.reveal()},
    }


def message(identifier: str, **fields: object) -> dict[str, Any]:
    return {"id": identifier, **fields}


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({}) as broker:
        yield broker


@pytest.fixture(scope="module")
def producer(broker: EmbeddedBroker) -> Producer:
    return Producer({"bootstrap.servers": broker.address, "linger.ms": 0}, logger=logging.getLogger("librdkafka"))


@pytest.fixture
def world(broker: EmbeddedBroker, producer: Producer, tmp_path: Path) -> World:
    return World(f"audit-{next(NUMBERS)}", broker, producer, tmp_path)


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    root, client = logging.getLogger(), logging.getLogger("librdkafka")
    handlers, level, client_level = root.handlers[:], root.level, client.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    client.setLevel(client_level)
    logging.captureWarnings(False)


def counts(report: dict[str, Any]) -> dict[str, int]:
    """Those that are not zero."""
    names = ("stored", "duplicates", "dead_lettered", "pending", "lost", "twice", "repeated", "expired", "foreign")
    return {name: report[name] for name in names if report[name]}


def test_a_clean_system_passes(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a"), b"{")
    world.send(message("b"), partition=1)
    world.store(message("a"), 0)
    world.dead_letter(1)
    world.store(message("b"), 0, partition=1)
    world.commit_all()

    code, report = world.report(capsys)

    assert code == PASSED
    assert report["produced"] == 3
    assert counts(report) == {"stored": 2, "dead_lettered": 1}
    assert report["passed"]


def test_a_committed_message_that_is_neither_stored_nor_dead_lettered_is_lost(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.send(message("a"), message("b"))
    world.store(message("a"), 0)
    world.commit_all()

    code, report = world.report(capsys)

    assert code == FAILED
    assert counts(report) == {"stored": 1, "lost": 1}
    assert report["lost_first"] == [
        {"partition": 0, "offset": 1, "id": "b", "problem": "neither stored nor dead-lettered"}
    ]


def test_stored_and_dead_lettered_from_one_offset_is_twice(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a"))
    world.store(message("a"), 0)
    world.dead_letter(0)
    world.commit_all()

    code, report = world.report(capsys)

    assert (code, counts(report)) == (FAILED, {"stored": 1, "twice": 1})


def test_two_documents_from_one_offset_are_twice(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a"))
    world.store(message("a"), 0)
    world.store(message("another"), 0)
    world.commit_all()

    code, report = world.report(capsys)

    assert (code, counts(report)) == (FAILED, {"stored": 1, "twice": 1})


def test_a_document_with_another_id_is_that_of_its_message(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a"))
    world.store(message("4f1f0a52-3f0e-4a2c-8a39-7d2e1c3f5b60"), 0)
    world.commit_all()

    code, report = world.report(capsys)

    assert (code, counts(report)) == (PASSED, {"stored": 1})
    assert report["notes"] == [
        "1 documents have another id than their messages have now: document.id, a transform or the code was changed"
    ]


def test_documents_and_dead_letters_of_a_recreated_topic_are_foreign(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.send(message("a"), b"{broken")
    world.store(message("of the former topic"), 0, timestamp="2023-07-15T12:34:56.789Z")
    world.dead_letter(0, timestamp=1_689_424_496_789)
    world.store(message("a"), 0)
    world.dead_letter(1)
    world.commit_all()

    code, report = world.report(capsys)

    assert (code, counts(report)) == (PASSED, {"stored": 1, "dead_lettered": 1, "foreign": 2})


def test_a_dead_lettered_id_conflict_is_not_twice(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a", name="x"), message("a", name="y"))
    world.store(message("a", name="x"), 0)
    world.dead_letter(1)
    world.commit_all()

    code, report = world.report(capsys)

    assert (code, counts(report)) == (PASSED, {"stored": 1, "dead_lettered": 1})


def test_a_message_dead_lettered_again_after_a_crash_is_repeated_and_passes(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.send(b"{")
    world.dead_letter(0)
    world.dead_letter(0)
    world.commit_all()

    code, report = world.report(capsys)

    assert (code, counts(report)) == (PASSED, {"dead_lettered": 1, "repeated": 1})


def test_a_replayed_message_is_stored_from_its_new_offset(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a"), message("a"))
    world.dead_letter(0)
    world.mark_as_replayed()
    world.store(message("a"), 1)
    world.commit_all()

    code, report = world.report(capsys)

    assert (code, counts(report)) == (PASSED, {"stored": 1, "dead_lettered": 1})


def test_a_discarded_message_is_dead_lettered(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a"))
    world.dead_letter(0)
    world.mark_as_discarded()
    world.commit_all()

    code, report = world.report(capsys)

    assert (code, counts(report)) == (PASSED, {"dead_lettered": 1})


@pytest.mark.parametrize("mark", [World.mark_as_replayed, World.mark_as_discarded])
def test_a_message_that_was_stored_since_is_not_twice_once_its_dead_letter_is_replayed_or_discarded(
    world: World, capsys: pytest.CaptureFixture[str], mark: Callable[[World], None]
) -> None:
    world.send(message("a"))
    world.dead_letter(0)
    world.store(message("a"), 0)
    world.commit_all()
    assert world.report(capsys)[0] == FAILED

    mark(world)
    code, report = world.report(capsys)

    assert (code, counts(report)) == (PASSED, {"stored": 1})


def test_uncommitted_messages_are_pending_whether_stored_or_not(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.send(message("a"), message("b"), message("c"))
    world.store(message("a"), 0)
    world.store(message("b"), 1)
    world.commit(1)
    world.send(message("d"), partition=1)

    code, report = world.report(capsys)

    assert (code, counts(report)) == (PASSED, {"stored": 1, "pending": 3})
    assert report["produced"] == 4


def test_a_group_that_never_committed_has_everything_pending(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a"))

    code, report = world.report(capsys)

    assert (code, counts(report)) == (PASSED, {"pending": 1})


def test_a_message_sent_again_is_a_duplicate(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a"), message("a"))
    world.store(message("a"), 0)
    world.commit_all()

    code, report = world.report(capsys)

    assert (code, counts(report)) == (PASSED, {"stored": 1, "duplicates": 1})


def test_messages_deleted_by_retention_are_expired_and_not_lost(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(9):  # one batch each, so that the broker can delete the oldest ones
        world.send(b" " * (RETENTION_BYTES // 8))
    world.commit_all()

    code, report = world.report(capsys)

    assert code == FAILED  # the remaining messages are lost
    assert report["expired_offsets"] > 0
    assert report["expired_offsets"] + report["lost"] == 9


def test_documents_deleted_by_the_ttl_are_expired(world: World) -> None:
    world.send(message("a"), message("b"))
    world.store(message("b"), 1)
    world.commit_all()

    report = run_audit(world, store=StoreWithTtl(world.mongodb), now=lambda: time.time() + 2 * DAY)

    assert report.passed
    assert (report.findings.expired, report.findings.stored, report.findings.lost) == (1, 1, 0)


def test_a_message_younger_than_the_ttl_is_not_expired(world: World) -> None:
    world.send(message("a"))
    world.commit_all()

    report = run_audit(world, store=StoreWithTtl(world.mongodb))

    assert (report.findings.expired, report.findings.lost) == (0, 1)


def test_documents_and_dead_letters_of_other_programs_are_foreign(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.send(message("a"))
    world.store(message("a"), 0)
    world.store(message("by hand"), None)
    world.dead_letter_of_another_program()
    world.dead_letter(0, topic="another-topic")
    world.commit_all()

    code, report = world.report(capsys)

    assert (code, counts(report)) == (PASSED, {"stored": 1, "foreign": 3})
    assert (report["foreign_documents"], report["foreign_dead_letters"]) == (1, 2)


def test_a_missing_dead_letter_topic_has_no_dead_letters(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a"))
    world.store(message("a"), 0)
    world.commit_all()

    code, report = world.report(capsys)

    assert (code, counts(report)) == (PASSED, {"stored": 1})


def test_the_audit_changes_nothing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a"), message("b"))
    world.store(message("a"), 0)
    world.commit(1)

    first = world.report(capsys)
    second = world.report(capsys)

    assert first == second


def test_waiting_ends_when_the_group_has_committed_everything(world: World) -> None:
    world.send(message("a"))
    world.store(message("a"), 0)
    pauses: list[float] = []

    def commit_meanwhile(seconds: float) -> None:
        pauses.append(seconds)
        world.commit_all()

    report = run_audit(world, wait=60.0, pause=commit_meanwhile)

    assert report.pending == 0
    assert len(pauses) == 1


def test_waiting_ignores_messages_produced_after_its_start(world: World) -> None:
    world.send(message("a"))
    world.store(message("a"), 0)
    pauses: list[float] = []

    def commit_and_send(seconds: float) -> None:
        pauses.append(seconds)
        world.commit_all()
        world.send(message("b"))

    report = run_audit(world, wait=60.0, pause=commit_and_send)

    assert report.pending == 1
    assert len(pauses) == 1


def test_waiting_ends_after_the_given_time(world: World) -> None:
    world.send(message("a"))
    clock = Clock()

    report = run_audit(world, wait=5.0, clock=clock, pause=clock.forward)

    assert report.pending == 1
    assert clock.now == 5.0


def test_the_table_has_every_count(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a"), message("b\x1b\x7f"))
    world.store(message("a"), 0)
    world.commit_all()

    code = audit.main(["--config", str(world.config)])

    lines = capsys.readouterr().out.splitlines()
    assert code == FAILED
    assert world.kafka.topic in lines[0]
    assert world.kafka.group_id in lines[0]
    assert world.mongodb.uri.reveal() in lines[0]
    assert [line.split()[0] for line in lines if line.startswith("  ")][:10] == [
        "produced",
        "stored",
        "duplicates",
        "dead-lettered",
        "pending",
        "expired",
        "lost",
        "twice",
        "repeated",
        "foreign",
    ]
    assert rf'  lost: {world.kafka.topic}[0] offset 1, id "b\u001b\u007f": neither stored nor dead-lettered' in lines
    assert lines[-1] == "FAIL: 1 lost, 0 twice."


def test_a_table_without_problems_ends_with_pass(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a"))

    code = audit.main(["--config", str(world.config)])

    assert code == PASSED
    assert capsys.readouterr().out.splitlines()[-1].startswith("PASS: ")


def test_a_missing_topic_is_one_line(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    other = {**_plain(world.settings)["kafka"], "topic": "no-such-topic"}
    world.config.write_text(json.dumps({**_plain(world.settings), "kafka": other}))

    code = audit.main(["--config", str(world.config)])

    assert code == CANNOT_RUN
    error = capsys.readouterr().err
    assert error.startswith("audit: there is no topic no-such-topic at 127.0.0.1:")
    assert error.count("\n") == 1


def test_a_wrong_setting_is_named(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.config.write_text('{"kafka": {"topik": "x"}}')

    code = audit.main(["--config", str(world.config)])

    assert code == CANNOT_RUN
    assert "topik" in capsys.readouterr().err


def test_an_unknown_librdkafka_key_is_named(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    kafka = {**_plain(world.settings)["kafka"], "client": {"no.such.key": 1}}
    world.config.write_text(json.dumps({**_plain(world.settings), "kafka": kafka}))

    code = audit.main(["--config", str(world.config)])

    assert code == CANNOT_RUN
    assert "no.such.key" in capsys.readouterr().err


def test_a_bug_in_the_audit_is_not_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(options: argparse.Namespace) -> Sequence[Report]:
        raise ZeroDivisionError

    assert audit.main([], run=fail) == CANNOT_RUN
    assert "ZeroDivisionError" in capsys.readouterr().err


class WithTimes(Consumer):
    """The embedded broker does not look up times: here, partition 0 has offset 1 at any time, partition 1 none."""

    def offsets_for_times(self, partitions: list[TopicPartition], timeout: float = 0.0) -> list[TopicPartition]:
        assert {partition.offset for partition in partitions} == {1_698_796_800_000}
        return [TopicPartition(each.topic, each.partition, 1 if each.partition == 0 else -1) for each in partitions]


def test_what_is_before_a_time_is_left_out(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("before"), message("a"), message("b"))
    world.send(message("before"), partition=1)
    world.store(message("a"), 1)
    world.commit_all()
    run = partial(audit.run_audit, new_reader=partial(TopicReader, consumer=WithTimes))

    code, report = world.report(capsys, "--since", "2023-11-01", run=run)

    assert (code, counts(report)) == (FAILED, {"stored": 1, "lost": 1})
    assert report["lost_first"][0]["id"] == "b"
    assert report["notes"] == ["2 offsets before --since are left out"]


def test_the_progress_of_each_step_is_shown(world: World) -> None:
    world.send({"id": "a"}, {"id": "b"})
    world.commit(1)
    shown, seconds = StringIO(), count(0, 10)
    progress = ProgressLine("audit", stream=shown, clock=lambda: next(seconds))

    with TopicReader(world.kafka) as reader, DataStorage(world.mongodb) as storage:
        storage.save({"id": "a"})
        Audit(world.settings, reader, storage, show=progress).run()

    assert [line.partition(",")[0] for line in shown.getvalue().splitlines()] == [
        "audit: topic: 1 of 1 (100 %)",
        "audit: pending messages: 1 of 1 (100 %)",
        "audit: store: 1",
    ]


def test_an_interrupted_audit_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(options: argparse.Namespace) -> Sequence[Report]:
        raise KeyboardInterrupt

    assert audit.main([], run=interrupt) == INTERRUPTED
    assert capsys.readouterr() == ("", "")


def test_an_unreachable_store_is_an_error_without_credentials(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONGODB_URI", f"mongodb://someone:s3cret@127.0.0.1:{unused_port()}/")
    monkeypatch.setenv("MONGODB_TIMEOUT_MS", "100")

    code = audit.main(["--config", str(world.config)])

    error = capsys.readouterr().err
    assert code == CANNOT_RUN
    assert error.startswith("audit: ")
    assert "s3cret" not in error


class StoreWithTtl(SqliteStore):
    """A store with a TTL of a day."""

    def ttl_seconds(self) -> float | None:
        return DAY


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


def run_audit(
    world: World,
    *,
    store: SqliteStore | None = None,
    wait: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], float] = time.time,
    pause: Callable[[float], object] = lambda seconds: None,
) -> Report:
    with TopicReader(world.kafka) as reader, DataStorage(world.mongodb, store=store) as storage:
        comparison = Audit(world.settings, reader, storage, clock=clock, now=now, pause=pause)
        comparison.wait(wait)
        return comparison.run()


def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


# -- several topics


@pytest.fixture
def other(world: World, broker: EmbeddedBroker, producer: Producer, tmp_path: Path) -> World:
    """Another topic of the same consumer, which stores the messages of each topic in a collection of its own."""
    folder = tmp_path / "other"
    folder.mkdir()
    other = World(f"{world.kafka.topic}-2", broker, producer, folder)
    topics = [world.kafka.topic, other.kafka.topic]
    tree = _plain(world.settings)
    mongodb = {**tree["mongodb"], "collection": "{topic}"}
    world.config.write_text(json.dumps({"kafka": {**tree["kafka"], "topics": topics}, "mongodb": mongodb}))
    for each in (world, other):
        each.kafka = replace(world.kafka, topic=each.kafka.topic)
        each.mongodb = replace(world.mongodb, collection=each.kafka.topic)
        each.send(message("same id", of=each.kafka.topic))
        each.commit(1)
        each.store(message("same id", of=each.kafka.topic), 0)
    return other


def test_each_topic_is_compared_with_its_own_collection(
    world: World, other: World, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = world.report(capsys)

    assert (code, report["passed"]) == (PASSED, True)
    assert [(topic["topic"], topic["stored"], topic["lost"]) for topic in report["topics"]] == [
        (world.kafka.topic, 1, 0),
        (other.kafka.topic, 1, 0),
    ]


def test_one_lost_message_in_one_topic_fails_the_audit_of_all(
    world: World, other: World, capsys: pytest.CaptureFixture[str]
) -> None:
    other.send(message("lost"))
    other.commit(2)

    code = audit.main(["--config", str(world.config)])

    verdicts = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("PASS", "FAIL"))]
    assert (code, [verdict[:5] for verdict in verdicts]) == (FAILED, ["PASS:", "FAIL:"])


def test_the_topics_that_match_a_pattern_are_compared_without_the_dead_letter_topic(
    world: World, other: World, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = json.loads(world.config.read_text())
    tree["kafka"]["topics"] = [f"^{world.kafka.topic}"]
    world.config.write_text(json.dumps(tree))
    world.dead_letter_of_another_program()

    _, report = world.report(capsys)
    assert [topic["topic"] for topic in report["topics"]] == [world.kafka.topic, other.kafka.topic]

    tree["kafka"] |= {"topic": "data-topic", "topics": ["^no-such-topic"]}
    world.config.write_text(json.dumps(tree))
    assert audit.main(["--config", str(world.config)]) == CANNOT_RUN
    assert "no topic at 127.0.0.1" in capsys.readouterr().err
