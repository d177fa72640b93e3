"""The report of an audit, for people and for programs."""

import json

import pytest

from src.audit.findings import Example, Findings
from src.audit.ledger import Ledger
from src.audit.progress import Progress
from src.audit.report import Report, as_json, as_table, notes
from src.kafka.topic_reader import OffsetRange
from src.settings import MongoSettings, Settings, StoreUri

with Ledger("t") as _ledger:
    NOTHING = _ledger.findings()


def test_notes_explain_the_limits_of_the_numbers() -> None:
    available = {0: OffsetRange(0, 3), 1: OffsetRange(7, 9), 2: OffsetRange(4, 9)}
    progress = Progress({0: 5, 1: 2, 2: None}, available, {0: 1, 1: 8, 2: 4})

    texts = list(notes(progress, NOTHING, {0: OffsetRange(3, 9)}, in_memory=True))

    assert texts == [
        "partition 0 ends at 3, before the group's committed offset 5: was the topic recreated?",
        "partition 1: offsets 2 to 6 were deleted before the group read them",
        "2 offsets before --since are left out",
        "3 dead letters were deleted from their topic; their messages may count as lost",
        "no temporary file could be created, so the audit used memory: about 200 bytes per message",
    ]


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("mongodb://user:s3cret@a:1,b:2/admin?replicaSet=rs&x=s3cret", "mongodb://a:1,b:2/pubsub.messages"),
        ("mongodb://user:p@ss@a:1/", "mongodb://a:1/pubsub.messages"),
        ("mongodb+srv://user:s3cret@cluster.example", "mongodb+srv://cluster.example/pubsub.messages"),
        ("sqlite:///run/store.db", "sqlite:///run/store.db"),
    ],
)
def test_the_address_of_the_store_has_no_credentials(uri: str, address: str) -> None:
    report = json.loads(as_json(Report(Settings(mongodb=MongoSettings(uri=StoreUri(uri))), NOTHING, 0, 0)))

    assert report["store"] == address


def test_the_table_says_that_there_are_more_examples() -> None:
    found = Findings(**{**vars(NOTHING), "lost": 21, "lost_first": (Example(0, 1, None, "gone"),)})

    table = as_table(Report(Settings(), found, 0, 0, notes=("this is a note",)))

    assert "  lost: data-topic[0] offset 1, no id: gone\n  (the first 20 of each)\n" in table
    assert "Note: this is a note.\n" in table
