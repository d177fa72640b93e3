"""A message as the stores keep it: its dates, its position in Kafka, and when two messages are the same."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

from src.model.errors import InvalidMessage
from src.model.position import MessagePosition
from src.model.record import Record, total_bytes
from src.settings import DocumentSettings
from src.utils.text import utc_text

Document = Mapping[str, Any]
Identity = str | int
"""Of a document: a text, or an integer of 64 bits; 1 and "1" are different."""


DateConverter = Callable[[dict[str, Any]], None]
"""Converts a date in place, if the document has it; an object in it is replaced by a copy. Raises InvalidMessage."""


class SpecifiedMessage(Struct, forbid_unknown_fields=True, gc=False):
    """A message with exactly the fields of the specification. It is decoded in half the time of a dictionary."""

    id: Annotated[str, Meta(min_length=1)]
    name: str
    created_at: Any
    """The text of a message, the datetime of a document."""
    metadata: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        return {"id": self.id, "name": self.name, "created_at": self.created_at, "metadata": self.metadata}


ValidDocument = Document | SpecifiedMessage
"""A valid message with its dates as datetimes."""


class DocumentBatch(NamedTuple):
    """Documents to be stored, and the records that they were made from, as far as they are known.

    `received_at` is in milliseconds since 1970.
    """

    documents: Sequence[ValidDocument]
    records: Sequence[Record | None]
    received_at: int

    @property
    def ids(self) -> list[Identity]:
        return [each.id if isinstance(each, SpecifiedMessage) else identity_of(each) for each in self.documents]

    @property
    def message_bytes(self) -> int:
        """The size of the messages that the documents were made from."""
        return total_bytes(filter(None, self.records))

    def fields(self, index: int) -> dict[str, Any]:
        """A document with its origin in the field `kafka`; of a tombstone, the marker of a deletion."""
        fields = fields_of(self.documents[index])
        record = self.records[index]
        if record is None:
            return dict(fields)
        kafka = origin(record, self.received_at)
        if record.value is None and fields.keys() == {"_id"}:
            kafka["deleted_at"] = kafka["received_at"]
        return {**fields, "kafka": kafka}

    def part(self, indexes: Sequence[int]) -> "DocumentBatch":
        documents, records = self.documents, self.records
        return self._replace(documents=[documents[i] for i in indexes], records=[records[i] for i in indexes])


def identity_of(document: Document) -> Identity:
    """`_id` where the identity is not the field `id`: see `document.id` in the settings."""
    identity: Identity = document["_id"] if "_id" in document else document["id"]
    return identity


def require_identity(value: object, path: str) -> Identity:
    """The value, if it can be an identity. Raises InvalidMessage (`invalid_id`)."""
    if isinstance(value, str) and value:
        return value
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    text = f"{path} is {'empty' if value == '' else kind_of(value)} instead of a string or an integer of 64 bits"
    raise InvalidMessage("invalid_id", text)


def kind_of(value: object) -> str:
    """A value's type in JSON."""
    return _KINDS.get(type(value), type(value).__name__)


def as_identity(value: object) -> Identity:
    """The identity in a store; any other type, which another program may have stored, becomes text."""
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else str(value)


def fields_of(document: ValidDocument) -> Document:
    return document.as_dict() if isinstance(document, SpecifiedMessage) else document


def origin(record: Record, received_at: int) -> dict[str, Any]:
    """The field `kafka` of a document. A timestamp that is not a date becomes None: a producer may write any number."""
    timestamp = record.timestamp
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": None if timestamp is None or not EARLIEST <= timestamp <= LATEST else _date(timestamp),
        "received_at": _date(received_at),
    }


_convert = msgspec.convert

KAFKA_DATE_FIELDS = frozenset({"timestamp", "received_at", "deleted_at"})
MAX_EXACT_DATE = len("2023-07-15T12:34:56.789012Z")
"""A longer text of a date may have digits after the microseconds."""

_KINDS = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LENGTH = len("2023-07-15T12:34:56.789Z")
_FINER_THAN_MICROSECONDS = re.compile(r"(\.\d{6})\d+", re.ASCII)


class StoredMessage(NamedTuple):
    """The id of a stored document, and the position and timestamp of its message, None if unknown."""

    id: Identity
    position: MessagePosition | None = None
    timestamp: int | None = None
    """In milliseconds since the epoch."""

    @classmethod
    def of(cls, document_id: object, kafka: object) -> "StoredMessage":
        """`kafka` may be anything: other programs may have written the document."""
        fields = kafka if isinstance(kafka, Mapping) else {}
        topic, partition, offset = (fields.get(name) for name in ("topic", "partition", "offset"))
        position = None
        if isinstance(topic, str) and type(partition) is int and type(offset) is int:
            position = MessagePosition(topic, partition, offset)
        return cls(as_identity(document_id), position, epoch_milliseconds(fields.get("timestamp")))


class Schema:
    """What a store knows of the documents: the field with the identity, the dates, how they are written."""

    def __init__(self, settings: DocumentSettings) -> None:
        self.identity_field = settings.identity_field
        self.deletes = settings.on_tombstone == "delete"
        self.overwrites = settings.write != "insert"
        self.dates = settings.stored_dates
        self.date_converters = [date_converter(path) for path in self.dates]


def is_deletion(document: Document) -> bool:
    """Whether it is what is left of a deleted document: a marker, so that no older message brings it back."""
    kafka = document.get("kafka")
    return isinstance(kafka, Mapping) and "deleted_at" in kafka


def has_same_position(document: Document, other: Document) -> bool:
    """Whether both come from the same message in Kafka. Its timestamp tells a topic from one that was recreated."""
    one, another = (StoredMessage.of("", each.get("kafka")) for each in (document, other))
    return one == another and None not in one


def canonical_json(document: ValidDocument) -> bytes:
    """Equal for equal messages, whatever their positions. 1, 1.0 and true differ; the order of keys does not matter."""
    message = {name: value for name, value in fields_of(document).items() if name != "kafka"}
    return msgspec.json.encode(dates_as_text(message), order="sorted")


def convert_dates(message: Document, converters: Iterable[DateConverter]) -> dict[str, Any]:
    """A copy with datetimes at the paths of the converters, and in the field `kafka`. Raises InvalidMessage."""
    document = dict(message)
    for convert in converters:
        convert(document)
    if isinstance(kafka := document.get("kafka"), dict):
        document["kafka"] = {
            name: as_date(value, f"kafka.{name}") if name in KAFKA_DATE_FIELDS and value is not None else value
            for name, value in kafka.items()
        }
    return document


def date_converter(path: str) -> DateConverter:
    parents, name = parents_and_name(path)

    def convert(document: dict[str, Any]) -> None:
        fields = own_object(document, parents)
        if fields is not None and name in fields:
            fields[name] = as_date(fields[name], path)

    return convert


def parents_and_name(path: str) -> tuple[Sequence[str], str]:
    """The names of the objects that a field is in, and its own."""
    *parents, name = path.split(".")
    return tuple(parents), name


def own_object(document: dict[str, Any], names: Sequence[str]) -> dict[str, Any] | None:
    """The object at a path, after it and those that it is in are replaced by copies; None if it does not exist."""
    for name in names:
        inner = document.get(name)
        if not isinstance(inner, dict):
            return None
        document[name] = document = dict(inner)
    return document


def as_date(value: object, path: str) -> datetime:
    """The datetime in UTC, truncated to milliseconds as in MongoDB. Raises InvalidMessage (`invalid_` and the path)."""
    try:
        if isinstance(value, str):
            date = _convert(value if len(value) <= MAX_EXACT_DATE else _without_finer_digits(value), datetime)
        else:
            date = value if isinstance(value, datetime) else _convert(value, datetime)
        zone = date.tzinfo
        if zone is not UTC:
            if zone is None:
                raise InvalidMessage(f"invalid_{path}", f"{path} has no offset from UTC")
            date = date.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError) as error:
        text = f"{path} is not a date of the years 1 to 9999 in UTC: {error}"
        raise InvalidMessage(f"invalid_{path}", text) from error
    finer = date.microsecond % 1000
    return date - timedelta(microseconds=finer) if finer else date


def dates_as_text(value: Any) -> Any:
    """A copy of any value in which every date has the specification's format: 2023-07-15T12:34:56.789Z."""
    if isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return utc_text(value.astimezone(UTC))
    if isinstance(value, dict):
        return {name: dates_as_text(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [dates_as_text(inner) for inner in value]
    return value


def epoch_milliseconds(value: object) -> int | None:
    """A date, or its text, as milliseconds since 1970; None for anything else."""
    if not isinstance(value, datetime | str):
        return None
    try:
        return milliseconds(_parsed(value))
    except (InvalidMessage, msgspec.ValidationError):
        return None


def _parsed(value: datetime | str) -> datetime:
    """Like `as_date`; faster for a text as `dates_as_text` writes it."""
    if isinstance(value, str) and len(value) == _LENGTH and value.endswith("Z"):
        return msgspec.convert(value, datetime)
    return as_date(value, "date")


def _date(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(0, 0, 0, milliseconds)


def milliseconds(date: datetime) -> int:
    """Since 1970."""
    return (date - _EPOCH) // _MILLISECOND


EARLIEST, LATEST = milliseconds(datetime.min.replace(tzinfo=UTC)), milliseconds(datetime.max.replace(tzinfo=UTC))
"""The milliseconds since 1970 that are a date."""


def _without_finer_digits(text: str) -> str:
    """The parser would round what is finer than a microsecond, perhaps into the next second."""
    return _FINER_THAN_MICROSECONDS.sub(r"\1", text)


DEFAULT_SCHEMA = Schema(DocumentSettings())
