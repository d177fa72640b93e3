"""The audit as people start it, on the embedded broker and a SQLite store that were prepared for each verdict."""

import argparse
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from local.broker import RETENTION_BYTES, EmbeddedBroker
from src.audit import __main__ as audit
from src.audit.__main__ import FAILED, IMPOSSIBLE, INTERRUPTED, PASSED, Audit, Report, as_json, as_table
from src.audit.ledger import Example, Findings, Ledger
from src.dead_letters.dead_letter import DeadLetter, dead_letter_of, replay_marker
from src.kafka.topic_reader import OffsetRange, TopicReader
from src.model.errors import InvalidMessage, SourceError
from src.model.record import Record, Rejection
from src.settings import KafkaSettings, MongoSettings, Settings, StoreUri
from src.storage import DataStorage
from src.stores.sqlite import SqliteStore
from src.utils.secret import ClientSettings
from tests.fake_kafka import FakeMessage

DAY = 86_400.0
FETCH, OFFSET_FETCH = 1, 9  # Kafka's numbers for these requests
NUMBERS = count()
CLIENT: dict[str, str | int | float | bool] = {"fetch.wait.max.ms": 20}


class World:
    """A topic, its dead letters, a group and a store. The broker makes a topic when something is sent to it."""

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

    def park(self, offset: int, *, partition: int = 0, topic: str | None = None, timestamp: int | None = None) -> None:
        record = Record(topic or self.kafka.topic, partition, offset, None, b"{", timestamp=timestamp)
        error = InvalidMessage("not_json", "not JSON")
        self._put(dead_letter_of(Rejection(record, error.reason, "process", error, 1, 0.0, 0.0)))

    def note_a_replay(self) -> None:
        self._put(replay_marker(f"{self.kafka.topic}/0/0/-"))

    def _put(self, letter: DeadLetter) -> None:
        self._producer.produce(self.kafka.dead_letter_topic, letter.value, letter.key, headers=list(letter.headers))
        self._producer.flush()

    def put_a_foreign_letter(self) -> None:
        self._put(DeadLetter(None, b"hello", ()))

    def store(
        self, message: dict[str, Any], offset: int | None, *, partition: int = 0, timestamp: str | None = None
    ) -> None:
        origin = {"topic": self.kafka.topic, "partition": partition, "offset": offset, "timestamp": timestamp}
        with DataStorage(self.mongodb) as storage:
            assert storage.save(message if offset is None else {**message, "kafka": origin})

    def report(self, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
        code = audit.main(["--config", str(self.config), "--json", *options])
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
    return a_producer(broker)


@pytest.fixture
def world(broker: EmbeddedBroker, producer: Producer, tmp_path: Path) -> World:
    return World(f"audit-{next(NUMBERS)}", broker, producer, tmp_path)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, client = logging.getLogger(), logging.getLogger("librdkafka")
    handlers, level, client_level = root.handlers[:], root.level, client.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    client.setLevel(client_level)
    logging.captureWarnings(False)


def counts(report: dict[str, Any]) -> dict[str, int]:
    """The verdicts that are not zero."""
    names = ("stored", "duplicates", "dead_lettered", "pending", "lost", "twice", "repeated", "expired", "foreign")
    return {name: report[name] for name in names if report[name]}


def test_a_clean_system_passes(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a"), b"{")
    world.send(message("b"), partition=1)
    world.store(message("a"), 0)
    world.park(1)
    world.store(message("b"), 0, partition=1)
    world.commit_all()

    code, report = world.report(capsys)

    assert code == PASSED
    assert report["produced"] == 3
    assert counts(report) == {"stored": 2, "dead_lettered": 1}
    assert report["passed"]


def test_a_message_that_is_committed_and_in_neither_place_is_lost(
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


def test_stored_and_parked_from_one_offset_is_twice(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a"))
    world.store(message("a"), 0)
    world.park(0)
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


def test_a_consumer_that_makes_random_ids_is_caught_at_its_first_document(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.send(message("a"))
    world.store(message("4f1f0a52-3f0e-4a2c-8a39-7d2e1c3f5b60"), 0)
    world.commit_all()

    code, report = world.report(capsys)

    assert (code, counts(report)) == (FAILED, {"stored": 1, "twice": 1})
    assert report["twice_first"][0]["problem"] == "stored under another id"


def test_what_a_former_topic_of_this_name_left_is_foreign(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a"), b"{broken")
    world.store(message("of the former topic"), 0, timestamp="2023-07-15T12:34:56.789Z")
    world.park(0, timestamp=1_689_424_496_789)
    world.store(message("a"), 0)
    world.park(1)
    world.commit_all()

    code, report = world.report(capsys)

    assert (code, counts(report)) == (PASSED, {"stored": 1, "dead_lettered": 1, "foreign": 2})


def test_an_id_conflict_that_was_parked_is_not_twice(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a", name="x"), message("a", name="y"))
    world.store(message("a", name="x"), 0)
    world.park(1)
    world.commit_all()

    code, report = world.report(capsys)

    assert (code, counts(report)) == (PASSED, {"stored": 1, "dead_lettered": 1})


def test_a_message_parked_again_after_a_crash_is_repeated_and_passes(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.send(b"{")
    world.park(0)
    world.park(0)
    world.commit_all()

    code, report = world.report(capsys)

    assert (code, counts(report)) == (PASSED, {"dead_lettered": 1, "repeated": 1})


def test_a_replayed_message_is_stored_from_its_new_offset(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a"), message("a"))
    world.park(0)
    world.note_a_replay()
    world.store(message("a"), 1)
    world.commit_all()

    code, report = world.report(capsys)

    assert (code, counts(report)) == (PASSED, {"stored": 1, "dead_lettered": 1})


def test_what_the_group_has_not_committed_is_pending_wherever_it_is(
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


def test_what_retention_took_is_expired_and_not_lost(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(9):  # a batch each, so that the broker can let go of the oldest ones
        world.send(b" " * (RETENTION_BYTES // 8))
    world.commit_all()

    code, report = world.report(capsys)

    assert code == FAILED  # nothing of what is left has a home either
    assert report["expired_offsets"] > 0
    assert report["expired_offsets"] + report["lost"] == 9


def test_documents_that_the_ttl_took_are_expired(world: World) -> None:
    world.send(message("a"), message("b"))
    world.store(message("b"), 1)
    world.commit_all()

    report = audited(world, store=Forgetful(world.mongodb), now=lambda: time.time() + 2 * DAY)

    assert report.passed
    assert (report.findings.expired, report.findings.stored, report.findings.lost) == (1, 1, 0)


def test_a_message_younger_than_the_ttl_can_not_have_expired(world: World) -> None:
    world.send(message("a"))
    world.commit_all()

    report = audited(world, store=Forgetful(world.mongodb))

    assert (report.findings.expired, report.findings.lost) == (0, 1)


def test_what_is_not_ours_is_counted_and_left_alone(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a"))
    world.store(message("a"), 0)
    world.store(message("by hand"), None)
    world.put_a_foreign_letter()
    world.park(0, topic="another-topic")
    world.commit_all()

    code, report = world.report(capsys)

    assert (code, counts(report)) == (PASSED, {"stored": 1, "foreign": 3})
    assert (report["foreign_documents"], report["foreign_dead_letters"]) == (1, 2)


def test_without_a_dead_letter_topic_nothing_is_parked(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a"))
    world.store(message("a"), 0)
    world.commit_all()

    code, report = world.report(capsys)

    assert (code, counts(report)) == (PASSED, {"stored": 1})


def test_it_reads_only(world: World, capsys: pytest.CaptureFixture[str]) -> None:
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

    report = audited(world, wait=60.0, pause=commit_meanwhile)

    assert report.pending == 0
    assert len(pauses) == 1


def test_waiting_is_for_the_messages_that_were_there_at_its_start(world: World) -> None:
    world.send(message("a"))
    world.store(message("a"), 0)
    pauses: list[float] = []

    def commit_and_send(seconds: float) -> None:
        pauses.append(seconds)
        world.commit_all()
        world.send(message("b"))

    report = audited(world, wait=60.0, pause=commit_and_send)

    assert report.pending == 1
    assert len(pauses) == 1


def test_waiting_ends_when_the_time_is_over(world: World) -> None:
    world.send(message("a"))
    clock = Clock()

    report = audited(world, wait=5.0, clock=clock, pause=clock.forward)

    assert report.pending == 1
    assert clock.now == 5.0


def test_the_table_names_what_was_compared_and_every_verdict(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a"), message("b\x1b[31m"))
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
    assert rf'  lost: {world.kafka.topic}[0] offset 1, id "b\u001b[31m": neither stored nor dead-lettered' in lines
    assert lines[-1] == "FAIL: 1 lost, 0 twice."


def test_a_clean_table_ends_in_pass(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(message("a"))

    code = audit.main(["--config", str(world.config)])

    assert code == PASSED
    assert capsys.readouterr().out.splitlines()[-1].startswith("PASS: ")


def test_a_topic_that_is_not_there_is_said_in_one_sentence(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    other = {**_plain(world.settings)["kafka"], "topic": "nobody-made-this-either"}
    world.config.write_text(json.dumps({**_plain(world.settings), "kafka": other}))

    code = audit.main(["--config", str(world.config)])

    assert code == IMPOSSIBLE
    complaint = capsys.readouterr().err
    assert complaint.startswith("audit: there is no topic nobody-made-this-either at 127.0.0.1:")
    assert complaint.count("\n") == 1


def test_a_setting_that_is_wrong_is_said_in_one_sentence(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.config.write_text('{"kafka": {"topik": "x"}}')

    code = audit.main(["--config", str(world.config)])

    assert code == IMPOSSIBLE
    assert "topik" in capsys.readouterr().err


def test_a_client_key_that_librdkafka_does_not_know_is_said_in_one_sentence(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    kafka = {**_plain(world.settings)["kafka"], "client": {"no.such.key": 1}}
    world.config.write_text(json.dumps({**_plain(world.settings), "kafka": kafka}))

    code = audit.main(["--config", str(world.config)])

    assert code == IMPOSSIBLE
    assert "no.such.key" in capsys.readouterr().err


def test_a_broker_that_is_not_there_is_named_with_the_reason() -> None:
    kafka = KafkaSettings(bootstrap_servers=f"127.0.0.1:{a_closed_port()}")

    with (
        TopicReader(kafka, request_timeout=0.5) as snapshot,
        pytest.raises(SourceError, match=r"^broker 127\.0\.0\.1:.* refused"),
    ):
        snapshot.partitions("any")


def test_a_fault_of_the_audit_itself_is_no_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    def faulty(options: argparse.Namespace) -> Report:
        raise ZeroDivisionError

    assert audit.main([], audited=faulty) == IMPOSSIBLE
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_an_audit_that_is_broken_off_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def broken_off(options: argparse.Namespace) -> Report:
        raise KeyboardInterrupt

    assert audit.main([], audited=broken_off) == INTERRUPTED
    assert capsys.readouterr() == ("", "")


def test_a_store_that_is_not_there_is_said_in_one_sentence(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONGODB_URI", f"mongodb://someone:s3cret@127.0.0.1:{a_closed_port()}/")
    monkeypatch.setenv("MONGODB_TIMEOUT_MS", "100")

    code = audit.main(["--config", str(world.config)])

    complaint = capsys.readouterr().err
    assert code == IMPOSSIBLE
    assert complaint.startswith("audit: ")
    assert "s3cret" not in complaint


def test_a_broker_that_falls_silent_while_it_is_read_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with EmbeddedBroker({}) as broker:
        world = World("silent", broker, a_producer(broker), tmp_path)
        world.send(message("a"))
        with TopicReader(world.kafka, read_timeout=0.0) as snapshot:
            broker.go_down()

            with pytest.raises(SourceError, match=r"^broker 127\.0\.0\.1:"):
                list(snapshot.read(world.kafka.topic, {0: OffsetRange(0, 1)}))


def test_a_span_that_reaches_beyond_the_topic_ends_where_the_topic_does(world: World) -> None:
    world.send(message("a"))

    with TopicReader(world.kafka) as snapshot:
        records = list(snapshot.read(world.kafka.topic, {0: OffsetRange(0, 100)}))

    assert [record.value for record in records] == [b'{"id": "a"}']


def test_a_replica_that_ends_before_the_topic_does_is_not_believed(world: World) -> None:
    world.send(message("a"))

    with TopicReader(world.kafka, consumer=EndingEarly) as snapshot:
        records = list(snapshot.read(world.kafka.topic, {0: OffsetRange(0, 1)}))

    assert [record.value for record in records] == [b'{"id": "a"}']


def test_what_arrives_after_the_snapshot_is_left_alone(world: World) -> None:
    world.send(message("a"), message("b"))
    world.send(message("c"), partition=1)

    with TopicReader(world.kafka) as snapshot:
        records = list(snapshot.read(world.kafka.topic, {0: OffsetRange(0, 1), 1: OffsetRange(0, 1)}))

    assert sorted((record.partition, record.offset) for record in records) == [(0, 0), (1, 0)]


def test_a_partition_that_is_not_there_is_an_error_and_no_silence(world: World) -> None:
    world.send(message("a"))

    with (
        TopicReader(world.kafka, read_timeout=1.0) as snapshot,
        pytest.raises(SourceError, match=r"^broker 127\.0\.0\.1:.*\[17\]"),
    ):
        list(snapshot.read(world.kafka.topic, {17: OffsetRange(0, 1)}))


def test_a_topic_that_may_not_be_read_is_an_error(tmp_path: Path) -> None:
    with EmbeddedBroker({}) as broker:
        world = World("secret", broker, a_producer(broker), tmp_path)
        world.send(message("a"))
        broker.fail_next(FETCH, *[KafkaError.TOPIC_AUTHORIZATION_FAILED] * 3)

        with (
            TopicReader(world.kafka) as snapshot,
            pytest.raises(SourceError, match="Kafka returned an error for secret"),
        ):
            list(snapshot.read(world.kafka.topic, {0: OffsetRange(0, 1)}))


def test_a_committed_offset_that_is_not_told_is_an_error(tmp_path: Path) -> None:
    with EmbeddedBroker({}) as broker:
        world = World("secret", broker, a_producer(broker), tmp_path)
        broker.fail_next(OFFSET_FETCH, *[KafkaError.GROUP_AUTHORIZATION_FAILED] * 3)

        with TopicReader(world.kafka) as snapshot, pytest.raises(SourceError, match="authoriz"):
            snapshot.committed("secret", [0])


def test_a_group_whose_coordinator_moves_is_asked_again(tmp_path: Path) -> None:
    with EmbeddedBroker({}) as broker:
        world = World("moving", broker, a_producer(broker), tmp_path)
        world.send(message("a"))
        broker.fail_next(OFFSET_FETCH, *[KafkaError.NOT_COORDINATOR] * 3)

        with TopicReader(world.kafka) as snapshot:
            assert snapshot.committed("moving", [0]) == {0: None}


def test_a_group_whose_coordinator_never_settles_is_an_error(tmp_path: Path) -> None:
    with EmbeddedBroker({}) as broker:
        world = World("moving", broker, a_producer(broker), tmp_path)
        broker.fail_next(OFFSET_FETCH, *[KafkaError.NOT_COORDINATOR] * 50)

        with TopicReader(world.kafka, read_timeout=0.5) as snapshot, pytest.raises(SourceError, match="oordinator"):
            snapshot.committed("moving", [0])


def test_a_reader_is_told_what_limits_the_numbers() -> None:
    progress = audit.Progress({0: 5, 1: 2, 2: None}, {0: OffsetRange(0, 3), 1: OffsetRange(7, 9), 2: OffsetRange(4, 9)})

    notes = list(audit._notes(progress, {0: OffsetRange(3, 9)}, in_memory=True))

    assert notes == [
        "partition 0 ends at 3, before the group's 5: was the topic made again?",
        "partition 1: offsets 2 to 6 were gone before the group read them",
        "3 dead letters are gone from their topic; a message whose letter is gone counts as lost",
        "no temporary file could be made, so the audit was kept in memory: about 200 bytes a message",
    ]


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("mongodb://user:s3cret@a:1,b:2/admin?replicaSet=rs&x=s3cret", "mongodb://a:1,b:2/pubsub.messages"),
        ("mongodb://user:p@ss@a:1/", "mongodb://a:1/pubsub.messages"),
        ("mongodb+srv://user:s3cret@cluster.example", "mongodb+srv://cluster.example/pubsub.messages"),
        ("sqlite:///run/store.db", "sqlite:///run/store.db"),
    ],
)
def test_the_store_is_shown_without_its_secrets(uri: str, shown: str) -> None:
    report = json.loads(as_json(Report(Settings(mongodb=MongoSettings(uri=StoreUri(uri))), NOTHING, 0, 0)))

    assert report["store"] == shown


def test_many_examples_are_cut_and_the_table_says_so() -> None:
    found = Findings(**{**vars(NOTHING), "lost": 21, "lost_first": (Example(0, 1, None, "gone"),)})

    table = as_table(Report(Settings(), found, 0, 0, notes=("mind this",)))

    assert "  lost: data-topic[0] offset 1, no id: gone\n  (the first 20 of each)\n" in table
    assert "Note: mind this.\n" in table


with Ledger("t") as _ledger:
    NOTHING = _ledger.findings()


class EndingEarly(Consumer):
    """Says once that the partition ends where it begins, as one does that reads from a replica which lags."""

    said = False

    def poll(self, timeout: float = 0.0) -> Any:
        if self.said:
            return super().poll(timeout)
        self.said = True
        return FakeMessage(0, error=KafkaError(KafkaError._PARTITION_EOF))


class Forgetful(SqliteStore):
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


def audited(
    world: World,
    *,
    store: SqliteStore | None = None,
    wait: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], float] = time.time,
    pause: Callable[[float], object] = lambda seconds: None,
) -> Report:
    with TopicReader(world.kafka) as snapshot, DataStorage(world.mongodb, store=store) as storage:
        work = Audit(world.settings, snapshot, storage, clock=clock, now=now, pause=pause)
        work.wait(wait)
        return work.run()


def a_producer(broker: EmbeddedBroker) -> Producer:
    return Producer({"bootstrap.servers": broker.address, "linger.ms": 0}, logger=logging.getLogger("librdkafka"))


def a_closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
