"""Stores each message once under its id.

The same message again is a duplicate; another message under the same id is rejected (`id_conflict`).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from src.model.errors import InvalidMessage, StorageUnavailable
from src.model.verdict import DUPLICATE, STORED, Outcome, Verdict
from src.stores.document import Document, DocumentBatch, Identity, Schema, ValidDocument, canonical_json, identity_of
from src.stores.store import Store
from src.stores.validation import validated

_NOT_STORED = frozenset({Outcome.REJECTED, Outcome.FAILED})


def save_once(store: Store, messages: Sequence[Document], schema: Schema) -> list[Verdict]:
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
    verdicts |= zip(documents, save_valid_once(store, batch), strict=True)
    return [verdicts[number] for number in range(len(messages))]


def save_valid_once(store: Store, batch: DocumentBatch) -> list[Verdict]:
    """The same for documents that are valid."""
    ids = batch.ids
    if not ids:
        return []
    return _insert(store, batch, ids).verdicts if len(set(ids)) == len(ids) else _save_repeated_ids(store, batch, ids)


class _Inserted(NamedTuple):
    """One verdict per document, and by id the contents that were already stored under ids of these documents."""

    verdicts: list[Verdict]
    stored_before: Mapping[Identity, bytes]


def _insert(store: Store, batch: DocumentBatch, ids: Sequence[Identity]) -> _Inserted:
    """No two ids are equal. Where all documents are stored, no statement here is executed once per document."""
    verdicts = store.insert(batch)
    if verdicts.count(STORED) == len(ids):
        return _Inserted(verdicts, {})
    # A validation rule that is newer than a stored document may reject the same message: it is a duplicate.
    not_stored = {ids[index]: index for index, verdict in enumerate(verdicts) if verdict.outcome in _NOT_STORED}
    try:
        found = store.fetch(list(not_stored)) if not_stored else ()
        stored_before = {identity_of(document): canonical_json(document) for document in found}
    except StorageUnavailable as error:  # the verdicts of the other ids remain valid
        return _Inserted([_deferred(error) if each.outcome in _NOT_STORED else each for each in verdicts], {})
    for identifier, index in not_stored.items():
        if identifier in stored_before:  # MongoDB may find others too: a collation may ignore case
            verdicts[index] = _compared(batch.documents[index], identifier, stored_before[identifier])
    return _Inserted(verdicts, stored_before)


def _compared(document: ValidDocument, identifier: Identity, stored: bytes) -> Verdict:
    if canonical_json(document) == stored:
        return DUPLICATE
    error = InvalidMessage("id_conflict", f"another message is stored under the id {identifier!r}")
    return Verdict(Outcome.REJECTED, error.reason, error)


def _deferred(error: StorageUnavailable) -> Verdict:
    return Verdict(Outcome.DEFERRED, error.cause, error)


# -- several documents with one id


class _FirstOfId(NamedTuple):
    """The first document of an id, and its outcome, which decides on the later ones too.

    `stored_before` is the content that was already stored under the id.
    """

    number: int
    document: ValidDocument
    verdict: Verdict
    stored_before: bytes | None

    def verdict_for(self, document: ValidDocument, identifier: Identity) -> Verdict | None:
        """For a later document. None if it has to be inserted separately."""
        if self.verdict.outcome is Outcome.DEFERRED:
            return self.verdict
        if self.stored_before is not None:
            return _compared(document, identifier, self.stored_before)
        if self.verdict.outcome is Outcome.STORED:
            return _compared(document, identifier, canonical_json(self.document))
        return self.verdict if canonical_json(document) == canonical_json(self.document) else None


def _save_repeated_ids(store: Store, batch: DocumentBatch, ids: Sequence[Identity]) -> list[Verdict]:
    """Inserts the first document of each id, which decides on the later ones, until all have a verdict."""
    verdicts: dict[int, Verdict] = {}
    while undecided := [index for index in range(len(ids)) if index not in verdicts]:
        firsts = _insert_firsts(store, batch, ids, undecided, may_raise=not verdicts)
        for index in undecided:
            first = firsts[ids[index]]
            is_first = index == first.number
            verdict = first.verdict if is_first else first.verdict_for(batch.documents[index], ids[index])
            if verdict is not None:
                verdicts[index] = verdict
    return [verdicts[index] for index in range(len(ids))]


def _insert_firsts(
    store: Store, batch: DocumentBatch, ids: Sequence[Identity], undecided: Sequence[int], *, may_raise: bool
) -> dict[Identity, _FirstOfId]:
    firsts: dict[Identity, int] = {}
    for index in undecided:
        firsts.setdefault(ids[index], index)
    try:
        verdicts, stored_before = _insert(store, batch.part(list(firsts.values())), list(firsts))
    except StorageUnavailable as error:
        if may_raise:
            raise
        verdicts, stored_before = [_deferred(error)] * len(firsts), {}
    return {
        identifier: _FirstOfId(index, batch.documents[index], verdict, stored_before.get(identifier))
        for (identifier, index), verdict in zip(firsts.items(), verdicts, strict=True)
    }
