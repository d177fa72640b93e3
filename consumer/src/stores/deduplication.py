"""Stores each message once under its id.

The same message again is a duplicate; another message under the same id is rejected (`id_conflict`). A message is the
same if it comes from the same position in Kafka, whatever it was processed to, or if its content is equal.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from src.model.errors import InvalidMessage, StorageUnavailable
from src.model.verdict import DUPLICATE, STORED, Outcome, Verdict
from src.stores.document import (
    Document,
    DocumentBatch,
    Identity,
    Schema,
    ValidDocument,
    canonical_json,
    has_same_position,
    identity_of,
)
from src.stores.order import Overwrites
from src.stores.store import Store, Write
from src.stores.validation import validated

Save = Callable[[DocumentBatch], list[Verdict]]

_NOT_STORED = frozenset({Outcome.REJECTED, Outcome.FAILED})


def save_once(save: Save, messages: Sequence[Document], schema: Schema) -> list[Verdict]:
    """One verdict per message, in their order. Raises StorageUnavailable if none of their outcomes is known.

    Of several messages with one id the first is stored.
    """
    verdicts: dict[int, Verdict] = {}
    documents: dict[int, ValidDocument] = {}
    for number, message in enumerate(messages):
        try:
            documents[number] = validated(message, schema)
        except InvalidMessage as error:
            verdicts[number] = Verdict(Outcome.REJECTED, error.reason, error)
    batch = DocumentBatch(list(documents.values()), [None] * len(documents), 0)
    verdicts |= zip(documents, save(batch), strict=True)
    return [verdicts[number] for number in range(len(messages))]


def save_valid_once(store: Store, batch: DocumentBatch, *, reprocess: bool = False) -> list[Verdict]:
    """The same for documents that are valid. With `reprocess`, one that was stored before replaces what was stored."""
    ids = batch.ids
    if not ids:
        return []
    insert = _insert_and_replace if reprocess else _insert
    if len(set(ids)) == len(ids):
        return insert(store, batch, ids).verdicts
    return _save_repeated_ids(partial(insert, store), batch, ids)


class _Inserted(NamedTuple):
    """One verdict per document, and by id what was already stored under ids of these documents."""

    verdicts: list[Verdict]
    stored_before: dict[Identity, Document]


_Insert = Callable[[DocumentBatch, Sequence[Identity]], _Inserted]


def _insert(store: Store, batch: DocumentBatch, ids: Sequence[Identity]) -> _Inserted:
    """No two ids are equal. Where all documents are stored, no statement here is executed once per document."""
    verdicts = store.insert(batch)
    if verdicts.count(STORED) == len(ids):
        return _Inserted(verdicts, {})
    # A validation rule that is newer than a stored document may reject the same message: it is a duplicate.
    not_stored = {ids[index]: index for index, verdict in enumerate(verdicts) if verdict.outcome in _NOT_STORED}
    try:
        found = store.fetch(list(not_stored)) if not_stored else ()
        stored_before = {identity_of(document): document for document in found}
    except StorageUnavailable as error:  # the verdicts of the other ids remain valid
        return _Inserted([_deferred(error) if each.outcome in _NOT_STORED else each for each in verdicts], {})
    for identifier, index in not_stored.items():
        if identifier in stored_before:  # MongoDB may find others too: a collation may ignore case
            verdicts[index] = _compared(batch.fields(index), identifier, stored_before[identifier])
    return _Inserted(verdicts, stored_before)


def _insert_and_replace(store: Store, batch: DocumentBatch, ids: Sequence[Identity]) -> _Inserted:
    """Of what was stored before, only the same message with another content is replaced."""
    verdicts, stored_before = _insert(store, batch, ids)
    changed = {
        index: fields
        for index, identifier in enumerate(ids)
        if verdicts[index] == DUPLICATE and not _is_equal(fields := batch.fields(index), stored_before[identifier])
    }
    try:
        replaced = store.write([Write(each) for each in changed.values()], Overwrites.SAME_POSITION) if changed else ()
    except StorageUnavailable as error:
        replaced = [_deferred(error)] * len(changed)
    for (index, fields), verdict in zip(changed.items(), replaced, strict=True):
        verdicts[index] = verdict
        if verdict.outcome is Outcome.STORED:
            stored_before[ids[index]] = fields
    return _Inserted(verdicts, stored_before)


def _compared(document: Document, identifier: Identity, stored: Document) -> Verdict:
    if has_same_position(document, stored) or _is_equal(document, stored):
        return DUPLICATE
    error = InvalidMessage("id_conflict", f"another message is stored under the id {identifier!r}")
    return Verdict(Outcome.REJECTED, error.reason, error)


def _is_equal(document: Document, stored: Document) -> bool:
    return canonical_json(document) == canonical_json(stored)


def _deferred(error: StorageUnavailable) -> Verdict:
    return Verdict(Outcome.DEFERRED, error.cause, error)


# -- several documents with one id


class _FirstOfId(NamedTuple):
    """The first document of an id, and its outcome, which decides on the later ones too.

    `stored_before` is what was already stored under the id.
    """

    number: int
    document: Document
    verdict: Verdict
    stored_before: Document | None

    def verdict_for(self, document: Document, identifier: Identity) -> Verdict | None:
        """For a later document. None if it has to be inserted separately."""
        if self.verdict.outcome is Outcome.DEFERRED:
            return self.verdict
        if self.stored_before is not None:
            if has_same_position(self.document, self.stored_before) and _is_equal(document, self.document):
                return DUPLICATE  # of the first, which an earlier version of the processing stored
            return _compared(document, identifier, self.stored_before)
        if self.verdict.outcome is Outcome.STORED:
            return _compared(document, identifier, self.document)
        return self.verdict if _is_equal(document, self.document) else None


def _save_repeated_ids(insert: _Insert, batch: DocumentBatch, ids: Sequence[Identity]) -> list[Verdict]:
    """Inserts the first document of each id, which decides on the later ones, until all have a verdict."""
    verdicts: dict[int, Verdict] = {}
    while undecided := [index for index in range(len(ids)) if index not in verdicts]:
        firsts = _insert_firsts(insert, batch, ids, undecided, may_raise=not verdicts)
        for index in undecided:
            first = firsts[ids[index]]
            is_first = index == first.number
            verdict = first.verdict if is_first else first.verdict_for(batch.fields(index), ids[index])
            if verdict is not None:
                verdicts[index] = verdict
    return [verdicts[index] for index in range(len(ids))]


def _insert_firsts(
    insert: _Insert, batch: DocumentBatch, ids: Sequence[Identity], undecided: Sequence[int], *, may_raise: bool
) -> dict[Identity, _FirstOfId]:
    firsts: dict[Identity, int] = {}
    for index in undecided:
        firsts.setdefault(ids[index], index)
    try:
        verdicts, stored_before = insert(batch.part(list(firsts.values())), list(firsts))
    except StorageUnavailable as error:
        if may_raise:
            raise
        verdicts, stored_before = [_deferred(error)] * len(firsts), {}
    return {
        identifier: _FirstOfId(index, batch.fields(index), verdict, stored_before.get(identifier))
        for (identifier, index), verdict in zip(firsts.items(), verdicts, strict=True)
    }
