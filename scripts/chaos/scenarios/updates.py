"""Messages that replace, merge and delete documents, while consumers are killed and frozen."""

import json
import signal
from typing import Any
from zlib import crc32

from chaos.load import Load
from chaos.plan import PARTITIONS
from chaos.scenarios.scenario import scenario
from chaos.trial import Trial
from local.raw_producer import RawRecord, produce_raw

IDS = 200
ROUND = 300  # messages
FIELDS = "abcd"
Update = tuple[str, dict[str, Any] | None]
"""A key, and fields; None deletes the document."""


@scenario("newest-wins")
def updates_replace(trial: Trial) -> None:
    """Messages replace documents; a consumer is killed with a batch that is not committed, and another is frozen with
    one that is not stored, and wakes up when all newer messages are stored."""
    _update(trial, "replace", deleted=0)


@scenario("newest-wins")
def updates_merge(trial: Trial) -> None:
    """The same with messages that are merged into documents."""
    _update(trial, "merge", deleted=0)


@scenario("newest-wins")
def updates_delete(trial: Trial) -> None:
    """The same with messages of which one in five deletes its document."""
    _update(trial, "merge", deleted=0.2)


def _update(trial: Trial, mode: str, deleted: float) -> None:
    trial.processes.document = document_settings(mode)
    trial.processes.start_consumer()
    trial.processes.start_consumer(options=["--kill-at", f"stored:{trial.random.randint(2, 4)}"])
    frozen = trial.processes.start_consumer(options=["--kill-at", f"freezing:{trial.random.randint(2, 4)}"])
    trial.wait_for_assignment(trial.consumers)
    killed = trial.consumers[1]
    updates: list[Update] = []

    def both_happened() -> bool:
        updates.extend(produce(trial, ROUND, deleted))
        return killed.exit_code is not None and bool(trial.logged(frozen, "frozen"))

    trial.wait_for(both_happened, "a consumer is killed, and another frozen", 60)
    trial.wait_until_killed(killed)
    updates += produce(trial, 5 * IDS, deleted)
    trial.wait_until_settled()
    frozen.send_signal(signal.SIGCONT)
    trial.healed()
    trial.expect(lambda: trial.logged(frozen, "continued"), f"{frozen.name} has stored the batch it was frozen with")
    expect_documents(trial, updates, mode)


def document_settings(mode: str) -> dict[str, Any]:
    return {"id": "key", "write": mode, "on_tombstone": "delete", "dates": [], "checks": {}}


def expect_documents(trial: Trial, updates: list[Update], mode: str) -> None:
    """All updates are settled."""
    expected = _expected(updates, mode)
    trial.accepted = Load(tuple(key for key, _ in updates), frozenset(expected), frozenset())
    trial.expect(lambda: trial.processes.documents() == expected, "each document is that of its last messages", 1)


def produce(trial: Trial, count: int, deleted: float) -> list[Update]:
    """All messages of a key are in one partition."""
    updates = [_new_update(trial, deleted) for _ in range(count)]
    leaders = trial.admin.leaders()
    for partition in range(PARTITIONS):
        records = [
            RawRecord(None if fields is None else json.dumps(fields).encode(), key.encode())
            for key, fields in updates
            if crc32(key.encode()) % PARTITIONS == partition
        ]
        produce_raw(leaders[partition], trial.names.topic, records, partition)
    return updates


def _new_update(trial: Trial, deleted: float) -> Update:
    key = f"id-{trial.random.randrange(IDS)}"
    if trial.random.random() < deleted:
        return key, None
    return key, {trial.random.choice(FIELDS): trial.random.getrandbits(32)}


def _expected(updates: list[Update], mode: str) -> dict[str, Any]:
    """What the messages make of an empty collection."""
    documents: dict[str, Any] = {}
    for key, fields in updates:
        before = documents.pop(key, {}) if mode == "merge" else {}
        documents.pop(key, None)
        if fields is not None:
            documents[key] = {**before, **fields}
    return documents
