"""The audit: every message that the group has committed is stored or dead-lettered, and once. `python -m src.audit`.

The committed offsets are read first, then the topic up to them, then the dead letters, then the store: whatever was
committed must be in the later ones, however fast the system runs meanwhile.
"""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit, urlunsplit

from src.audit.ledger import EXAMPLES, Example, Expiry, Findings, Ledger, Place
from src.dead_letters.dead_letter import original_position, original_timestamp, read_replay_marker
from src.kafka.topic_reader import OffsetRange, TopicReader
from src.model.errors import ConsumerError, SourceError
from src.settings import DEFAULT_FILE, VERSION, MongoSettings, Settings, load_settings
from src.storage import DataStorage, StoredMessage
from src.utils import logging as logs
from src.utils.config import ConfigurationError

logger = logging.getLogger(__name__)

ASKED_EVERY = 1.0  # seconds, while waiting for the group

PASSED, FAILED, IMPOSSIBLE, INTERRUPTED = 0, 1, 2, 130


def _pause(seconds: float) -> None:
    Event().wait(seconds)


@dataclass(frozen=True)
class Report:
    """What was compared, and what was found."""

    settings: Settings
    findings: Findings
    pending: int
    expired_offsets: int
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.findings.lost == 0 and self.findings.twice == 0


@dataclass(frozen=True)
class Progress:
    """How far the group is in each partition of the topic, and what the topic holds there."""

    committed: Mapping[int, int | None]
    spans: Mapping[int, OffsetRange]

    @property
    def settled(self) -> dict[int, OffsetRange]:
        """What the group has committed, as far as the topic still has it."""
        return {p: OffsetRange(span.first, min(span.end, self.committed[p] or 0)) for p, span in self.spans.items()}

    @property
    def pending(self) -> dict[int, OffsetRange]:
        return {p: OffsetRange(max(span.first, self.committed[p] or 0), span.end) for p, span in self.spans.items()}


class Audit:
    """Compares one topic, for one group, with its dead letters and its store."""

    def __init__(
        self,
        settings: Settings,
        snapshot: TopicReader,
        storage: DataStorage,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        pause: Callable[[float], object] = _pause,
    ) -> None:
        self._settings = settings
        self._topic = settings.kafka.topic
        self._snapshot = snapshot
        self._storage = storage
        self._clock = clock
        self._now = now
        self._pause = pause

    def wait(self, seconds: float) -> None:
        """Until the group has committed every message that is there now, or the time is over."""
        deadline = self._clock() + seconds
        ends = {partition: span.end for partition, span in self._progress().spans.items()}
        while self._clock() < deadline and self._anything_pending(ends):
            self._pause(ASKED_EVERY)

    def run(self) -> Report:
        """Raises ConsumerError where it can't be made."""
        with Ledger(self._topic) as ledger:
            progress = self._progress()
            ledger.add_produced(self._messages(progress.settled))
            pending = sum(1 for _ in self._messages(progress.pending))
            left = self._spans(self._topic)
            letters = self._spans(self._settings.kafka.dead_letter_topic)
            ledger.add_parked(self._letters(letters))
            ledger.add_stored(self._documents())
            findings = ledger.findings(self._expiry())
            notes = _notes(progress, letters, in_memory=ledger.in_memory)
            return Report(self._settings, findings, pending, _gone(left), tuple(notes))

    def _progress(self) -> Progress:
        partitions = self._snapshot.partitions(self._topic)
        if not partitions:
            raise SourceError(f"there is no topic {self._topic} at {self._settings.kafka.servers}")
        committed = self._snapshot.committed(self._topic, partitions)
        return Progress(committed, self._snapshot.offset_ranges(self._topic, partitions))

    def _anything_pending(self, ends: Mapping[int, int]) -> bool:
        """Offsets alone don't tell: the last ones may be a transaction's markers, which nobody commits."""
        spans = {
            p: OffsetRange(span.first, min(span.end, ends.get(p, 0))) for p, span in self._progress().pending.items()
        }
        with closing(self._snapshot.read(self._topic, spans)) as pending:
            return next(pending, None) is not None

    def _spans(self, topic: str) -> dict[int, OffsetRange]:
        return self._snapshot.offset_ranges(topic, self._snapshot.partitions(topic))

    def _messages(self, spans: Mapping[int, OffsetRange]) -> Iterator[tuple[Place, bytes | None]]:
        for record in self._snapshot.read(self._topic, spans):
            yield Place(record.topic, record.partition, record.offset, record.timestamp), record.value

    def _letters(self, spans: Mapping[int, OffsetRange]) -> Iterator[tuple[Place, Place | None]]:
        for record in self._snapshot.read(self._settings.kafka.dead_letter_topic, spans):
            if read_replay_marker(record) is None:
                origin = original_position(record.headers)
                parked = origin and Place(*origin, original_timestamp(record.headers))
                yield Place(record.topic, record.partition, record.offset), parked

    def _documents(self) -> Iterator[tuple[object, Place | None]]:
        for document in self._storage.scan():
            yield document.id, _place(document)

    def _expiry(self) -> Expiry | None:
        ttl = self._storage.ttl_seconds
        return None if ttl is None else Expiry(self._now() - ttl, ttl)


def _place(document: StoredMessage) -> Place | None:
    if document.topic is None or document.partition is None or document.offset is None:
        return None
    return Place(document.topic, document.partition, document.offset, document.time)


def _gone(spans: Mapping[int, OffsetRange]) -> int:
    return sum(span.first for span in spans.values())


def _notes(progress: Progress, letters: Mapping[int, OffsetRange], *, in_memory: bool) -> Iterator[str]:
    """What a reader must know to believe the numbers."""
    for partition, span in progress.spans.items():
        committed = progress.committed[partition]
        if committed is not None and committed < span.first:
            yield f"partition {partition}: offsets {committed} to {span.first - 1} were gone before the group read them"
        if committed is not None and committed > span.end:
            yield f"partition {partition} ends at {span.end}, before the group's {committed}: was the topic made again?"
    if gone := _gone(letters):
        yield f"{gone:,} dead letters are gone from their topic; a message whose letter is gone counts as lost"
    if in_memory:
        yield "no temporary file could be made, so the audit was kept in memory: about 200 bytes a message"


def as_json(report: Report) -> str:
    """For programs. Produced are those stored, duplicates, dead_lettered, pending, lost and expired_documents."""
    kafka, found = report.settings.kafka, report.findings
    return json.dumps(
        {
            "topic": kafka.topic,
            "group": kafka.group_id,
            "dead_letter_topic": kafka.dead_letter_topic,
            "store": _store(report.settings.mongodb),
            "produced": found.produced + report.pending,
            "stored": found.stored,
            "duplicates": found.duplicates,
            "dead_lettered": found.dead_lettered,
            "pending": report.pending,
            "lost": found.lost,
            "twice": found.twice,
            "repeated": found.repeated,
            "expired": report.expired_offsets + found.expired,
            "expired_offsets": report.expired_offsets,
            "expired_documents": found.expired,
            "foreign": found.foreign_documents + found.foreign_letters,
            "foreign_documents": found.foreign_documents,
            "foreign_dead_letters": found.foreign_letters,
            "lost_first": [example._asdict() for example in found.lost_first],
            "twice_first": [example._asdict() for example in found.twice_first],
            "notes": report.notes,
            "passed": report.passed,
        }
    )


def as_table(report: Report) -> str:
    """For people."""
    kafka, found = report.settings.kafka, report.findings
    verdicts = (
        ("produced", found.produced + report.pending, "messages in the topic"),
        ("stored", found.stored, "have their document"),
        ("duplicates", found.duplicates, "are a message sent again, whose document is there"),
        ("dead-lettered", found.dead_lettered, f"are parked in {kafka.dead_letter_topic}"),
        ("pending", report.pending, "are not yet committed by the group"),
        ("expired", report.expired_offsets + found.expired, _expiry(report)),
        ("lost", found.lost, "are committed and in neither place"),
        ("twice", found.twice, "are stored and parked, in two documents, or under another id"),
        ("repeated", found.repeated, "are parked more than once, as a crash may do"),
        ("foreign", found.foreign_documents + found.foreign_letters, _foreigners(found)),
    )
    lines = [
        f"Audit: topic {kafka.topic}, read by group {kafka.group_id}, against {_store(report.settings.mongodb)}",
        "",
        *(f"  {name:<14}{number:>14,}  {text}" for name, number, text in verdicts),
        "",
        *(_line(kafka.topic, "lost", example) for example in found.lost_first),
        *(_line(kafka.topic, "twice", example) for example in found.twice_first),
        *([f"  (the first {EXAMPLES} of each)", ""] if max(found.lost, found.twice) > EXAMPLES else []),
        *(f"Note: {note}." for note in report.notes),
        _sentence(report),
    ]
    return "\n".join(lines)


def _expiry(report: Report) -> str:
    offsets, documents = report.expired_offsets, report.findings.expired
    return f"can't be checked: {offsets:,} offsets gone by retention, {documents:,} documents by their TTL"


def _foreigners(found: Findings) -> str:
    return f"are not from this topic: {found.foreign_documents:,} documents, {found.foreign_letters:,} dead letters"


def _line(topic: str, verdict: str, example: Example) -> str:
    """An id is somebody else's text: it is shown escaped."""
    identifier = "no id" if example.id is None else f"id {json.dumps(example.id)}"
    return f"  {verdict}: {topic}[{example.partition}] offset {example.offset}, {identifier}: {example.problem}"


def _sentence(report: Report) -> str:
    found = report.findings
    if report.passed:
        return "PASS: every message that the group has committed is stored or dead-lettered, and none twice."
    return f"FAIL: {found.lost:,} lost, {found.twice:,} twice."


def _store(settings: MongoSettings) -> str:
    """The store's address, without who asks and how."""
    parts = urlsplit(settings.uri.reveal())
    if parts.scheme == "sqlite":
        return settings.uri.reveal()
    hosts = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, hosts, f"/{settings.database}.{settings.collection}", "", ""))


def _audited(options: argparse.Namespace) -> Report:
    settings = load_settings(options.config, os.environ)
    with TopicReader(settings.kafka) as snapshot, DataStorage(settings.mongodb) as storage:
        storage.ping()
        audit = Audit(settings, snapshot, storage)
        audit.wait(options.wait)
        return audit.run()


def main(arguments: Sequence[str] | None = None, *, audited: Callable[[argparse.Namespace], Report] = _audited) -> int:
    """The exit status; what was found goes to standard output, why nothing could be found to standard error."""
    options = _parser().parse_args(arguments)
    logs.configure(service="audit", version=VERSION, level="WARNING", style="text", stream=sys.stderr)
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL)  # what it has to say is in the one sentence
    try:
        report = audited(options)
    except (ConfigurationError, ConsumerError) as error:
        print(f"audit: {error}", file=sys.stderr)
        return IMPOSSIBLE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception:
        logger.exception("the audit failed")
        return IMPOSSIBLE
    text = as_json(report) if options.json else as_table(report)
    print(text.encode("ascii", "backslashreplace").decode())
    return PASSED if report.passed else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m src.audit",
        description="Compare the topic, up to the group's committed offsets, with the dead letters and the store."
        " Reads only: nothing is committed, stored or parked, and no consumer is disturbed.",
        epilog="Exit status: 0 if nothing is lost or twice, 1 if something is, 2 if the audit could not be made."
        " Topic, group and store are those of the consumer's configuration and environment.",
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE, metavar="PATH", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")
    parser.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="first wait until the group has committed every message, so long at most",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
