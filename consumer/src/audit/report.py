"""The result of an audit, as a table for people or as JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from src.audit.findings import MAX_EXAMPLES, Example, Findings
from src.audit.progress import Progress
from src.kafka.topic_reader import OffsetRange
from src.settings import MongoSettings, Settings

Row = tuple[str, int, str]


@dataclass(frozen=True)
class Report:
    """`notes` are what limits the validity of the numbers."""

    settings: Settings
    findings: Findings
    pending: int
    expired_offsets: int
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.findings.lost == 0 and self.findings.twice == 0


def deleted_by_retention(ranges: Mapping[int, OffsetRange]) -> int:
    return sum(available.first for available in ranges.values())


def notes(
    progress: Progress, findings: Findings, dead_letters: Mapping[int, OffsetRange], *, in_memory: bool
) -> Iterator[str]:
    for partition, available in progress.available.items():
        committed = progress.committed[partition]
        if committed is not None and committed < available.first:
            offsets = f"offsets {committed} to {available.first - 1}"
            yield f"partition {partition}: {offsets} were deleted before the group read them"
        if committed is not None and committed > available.end:
            ends = f"ends at {available.end}, before the group's committed offset {committed}"
            yield f"partition {partition} {ends}: was the topic recreated?"
    if progress.left_out:
        yield f"{progress.left_out:,} offsets before --since are left out"
    if deleted := deleted_by_retention(dead_letters):
        yield f"{deleted:,} dead letters were deleted from their topic; their messages may count as lost"
    if findings.other_ids:
        documents = f"{findings.other_ids:,} documents have another id than their messages have now"
        yield f"{documents}: document.id, a transform or the code was changed"
    if in_memory:
        yield "no temporary file could be created, so the audit used memory: about 200 bytes per message"


def all_as_json(reports: Sequence[Report]) -> str:
    """Of several topics, the report of each."""
    if len(reports) == 1:
        return as_json(reports[0])
    topics = [json.loads(as_json(report)) for report in reports]
    return json.dumps({"topics": topics, "passed": all(report.passed for report in reports)})


def all_as_table(reports: Sequence[Report]) -> str:
    return "\n\n".join(map(as_table, reports))


def as_json(report: Report) -> str:
    """`produced` is the sum of stored, duplicates, superseded, deleted, dead_lettered, skipped, pending, lost and
    expired_documents."""
    kafka, findings = report.settings.kafka, report.findings
    return json.dumps(
        {
            "topic": kafka.topic,
            "group": kafka.group_id,
            "dead_letter_topic": kafka.dead_letter_topic,
            "store": _store_address(report.settings.mongodb),
            "produced": findings.produced + report.pending,
            "stored": findings.stored,
            "duplicates": findings.duplicates,
            "superseded": findings.superseded,
            "deleted": findings.deleted,
            "dead_lettered": findings.dead_lettered,
            "skipped": findings.skipped,
            "pending": report.pending,
            "lost": findings.lost,
            "twice": findings.twice,
            "repeated": findings.repeated,
            "expired": report.expired_offsets + findings.expired,
            "expired_offsets": report.expired_offsets,
            "expired_documents": findings.expired,
            "foreign": findings.foreign_documents + findings.foreign_dead_letters,
            "foreign_documents": findings.foreign_documents,
            "foreign_dead_letters": findings.foreign_dead_letters,
            "lost_first": [example._asdict() for example in findings.lost_first],
            "twice_first": [example._asdict() for example in findings.twice_first],
            "notes": report.notes,
            "passed": report.passed,
        }
    )


def as_table(report: Report) -> str:
    kafka, findings = report.settings.kafka, report.findings
    store = _store_address(report.settings.mongodb)
    lines = [
        f"Audit: topic {kafka.topic}, committed by group {kafka.group_id}, compared with {store}",
        "",
        *(f"  {name:<14}{number:>14,}  {text}" for name, number, text in _rows(report)),
        "",
        *(_describe(kafka.topic, "lost", example) for example in findings.lost_first),
        *(_describe(kafka.topic, "twice", example) for example in findings.twice_first),
        *([f"  (the first {MAX_EXAMPLES} of each)", ""] if max(findings.lost, findings.twice) > MAX_EXAMPLES else []),
        *(f"Note: {note}." for note in report.notes),
        _verdict(report),
    ]
    return "\n".join(lines)


def _rows(report: Report) -> tuple[Row, ...]:
    findings, offsets = report.findings, report.expired_offsets
    documents, dead_letters = findings.foreign_documents, findings.foreign_dead_letters
    expired = f"{offsets:,} offsets deleted by retention, {findings.expired:,} documents deleted by their TTL"
    foreign = f"{documents:,} documents, {dead_letters:,} dead letters"
    return (
        ("produced", findings.produced + report.pending, "messages in the topic"),
        ("stored", findings.stored, "have a document in the store"),
        ("duplicates", findings.duplicates, "were sent again; the same message is in the store"),
        *_row_unless_zero("superseded", findings.superseded, "have been followed by a newer message with their id"),
        *_row_unless_zero("deleted", findings.deleted, "are tombstones, and the store has no document with their id"),
        ("dead-lettered", findings.dead_lettered, f"are in {report.settings.kafka.dead_letter_topic}"),
        *_row_unless_zero("skipped", findings.skipped, "are skipped by the transform"),
        ("pending", report.pending, "are not yet committed by the group"),
        ("expired", offsets + findings.expired, f"cannot be checked: {expired}"),
        ("lost", findings.lost, "are committed, but neither stored nor dead-lettered"),
        ("twice", findings.twice, "are stored and dead-lettered, or stored in two documents"),
        ("repeated", findings.repeated, "are dead-lettered more than once, as after a crash"),
        ("foreign", documents + dead_letters, f"are not from this topic: {foreign}"),
    )


def _row_unless_zero(name: str, number: int, text: str) -> list[Row]:
    """Of what only some settings make possible."""
    return [(name, number, text)] if number else []


def _describe(topic: str, verdict: str, example: Example) -> str:
    """The id is escaped: it is data of other programs."""
    identifier = "no id" if example.id is None else f"id {json.dumps(example.id)}"
    return f"  {verdict}: {topic}[{example.partition}] offset {example.offset}, {identifier}: {example.problem}"


def _verdict(report: Report) -> str:
    if report.passed:
        return "PASS: every message that the group has committed is stored or dead-lettered, and none twice."
    return f"FAIL: {report.findings.lost:,} lost, {report.findings.twice:,} twice."


def _store_address(settings: MongoSettings) -> str:
    """Without credentials and options."""
    parts = urlsplit(settings.uri.reveal())
    if parts.scheme == "sqlite":
        return settings.uri.reveal()
    hosts = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, hosts, f"/{settings.database}.{settings.collection}", "", ""))
