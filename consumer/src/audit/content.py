"""What the audit compares of messages: ids, and hashes that are equal for messages that the store considers equal."""

from collections.abc import Callable, Sequence

import msgspec

from src.data_processor import DataProcessor
from src.model.errors import Unavailable
from src.model.record import Record
from src.stores.document import Document, Identity, SpecifiedMessage, ValidDocument, identity_of

Content = tuple[Identity | None, int | None]
"""The id of a message, and a 64-bit hash of its document, which is valid in this process only."""

SKIPPED: Content = None, None
INVALID: Content = None, 0
TOMBSTONE = -1
"""The hash of a message that deletes the document with its id; that of no content is -1."""

_encode = msgspec.json.Encoder(order="sorted").encode


def contents(
    processor: DataProcessor, validated: Callable[[Document], Document], records: Sequence[Record]
) -> list[Content]:
    """Of the documents that the consumer makes of these records."""
    return [
        _other_content(processor, validated, record) if document is None else _content(document)
        for record, document in zip(records, _ordinary(processor, records), strict=True)
    ]


def _ordinary(processor: DataProcessor, records: Sequence[Record]) -> list[ValidDocument | None]:
    try:
        return processor.process_ordinary(records)
    except Exception:  # noqa: BLE001 - as in the consumer, each is then processed separately
        return [None] * len(records)


def _other_content(processor: DataProcessor, validated: Callable[[Document], Document], record: Record) -> Content:
    try:
        document = processor.process(record)
        if document is None:
            return SKIPPED
        content = _content(validated(document))
        return (content[0], TOMBSTONE) if record.value is None else content
    except Unavailable:
        raise
    except Exception:  # noqa: BLE001 - whatever it is, the consumer dead-letters the message
        return INVALID


def _content(document: ValidDocument) -> Content:
    identity = document.id if isinstance(document, SpecifiedMessage) else identity_of(document)
    return identity, hash(_encode(document))
