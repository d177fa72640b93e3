"""Stores each message once under its id.

The same message again is a duplicate; another message under the same id is rejected (`id_conflict`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from src.model.errors import InvalidMessage, StorageUnavailable
from src.model.verdict import DUPLICATE, Outcome, Verdict
from src.stores.document import Document, canonical_json
from src.stores.store import Store
from src.stores.validation import validated

_NOT_STORED = frozenset({Outcome.REJECTED, Outcome.FAILED})


def save_once(store: Store, messages: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """One verdict per message, in their order. Raises StorageUnavailable if none of their outcomes is known.

    Of several messages with one id the first is stored.
    """
    verdicts: dict[int, Verdict] = {}
    pending = _validated(messages, verdicts)
    first_round = True
    while pending:
        pending = _save_round(store, pending, verdicts, may_raise=first_round)
        first_round = False
    return [verdicts[number] for number in range(len(messages))]


class _Entry(NamedTuple):
    """A valid document, and the number of its message in the call."""

    number: int
    document: Document

    @property
    def id(self) -> str:
        return str(self.document["id"])


class _FirstOfId(NamedTuple):
    """The first document of an id, and its outcome, which decides on the later ones too.

    `stored_before` is the content that was already stored under the id.
    """

    entry: _Entry
    verdict: Verdict
    stored_before: bytes | None = None

    def verdict_for(self, entry: _Entry) -> Verdict | None:
        """None for a document that has to be inserted separately."""
        if entry is self.entry or self.verdict.outcome is Outcome.DEFERRED:
            return self.verdict
        if self.stored_before is not None:
            return _compared(entry, self.stored_before)
        if self.verdict.outcome is Outcome.STORED:
            return _compared(entry, canonical_json(self.entry.document))
        return self.verdict if canonical_json(entry.document) == canonical_json(self.entry.document) else None


def _validated(messages: Sequence[Mapping[str, Any]], verdicts: dict[int, Verdict]) -> list[_Entry]:
    """The documents that a store can hold; the others get their verdicts."""
    entries = []
    for number, message in enumerate(messages):
        try:
            entries.append(_Entry(number, validated(message)))
        except InvalidMessage as error:
            verdicts[number] = Verdict(Outcome.REJECTED, error.reason, error)
    return entries


def _save_round(
    store: Store, pending: Sequence[_Entry], verdicts: dict[int, Verdict], *, may_raise: bool
) -> list[_Entry]:
    """Insert the first document of each id. Returns those that are still without a verdict."""
    firsts: dict[str, _Entry] = {}
    for entry in pending:
        firsts.setdefault(entry.id, entry)
    decided = _insert(store, list(firsts.values()), may_raise=may_raise)
    undecided = []
    for entry in pending:
        verdict = decided[entry.id].verdict_for(entry)
        if verdict is None:
            undecided.append(entry)
        else:
            verdicts[entry.number] = verdict
    return undecided


def _insert(store: Store, entries: Sequence[_Entry], *, may_raise: bool) -> dict[str, _FirstOfId]:
    documents = [entry.document for entry in entries]
    try:
        verdicts = store.insert(documents)
    except StorageUnavailable as error:
        if may_raise:
            raise
        verdicts = [_deferred(error)] * len(documents)
    # A validation rule that is newer than a stored document may reject the same message: it is a duplicate.
    not_stored = [entry.id for entry, verdict in zip(entries, verdicts, strict=True) if verdict.outcome in _NOT_STORED]
    stored_before = _stored_content(store, not_stored) if not_stored else {}
    return {
        entry.id: _decided(entry, verdict, stored_before.get(entry.id))
        for entry, verdict in zip(entries, verdicts, strict=True)
    }


def _stored_content(store: Store, ids: Sequence[str]) -> dict[str, bytes | StorageUnavailable]:
    """What is stored under these ids. If the store is unavailable by now, the verdicts of other ids remain valid."""
    try:
        return {document["id"]: canonical_json(document) for document in store.fetch(ids)}
    except StorageUnavailable as error:
        return dict.fromkeys(ids, error)


def _decided(entry: _Entry, verdict: Verdict, stored_before: bytes | StorageUnavailable | None) -> _FirstOfId:
    if isinstance(stored_before, StorageUnavailable):
        return _FirstOfId(entry, _deferred(stored_before))
    if stored_before is None:
        return _FirstOfId(entry, verdict)
    return _FirstOfId(entry, _compared(entry, stored_before), stored_before)


def _compared(entry: _Entry, stored: bytes) -> Verdict:
    if canonical_json(entry.document) == stored:
        return DUPLICATE
    error = InvalidMessage("id_conflict", f"another message is stored under the id {entry.id!r}")
    return Verdict(Outcome.REJECTED, error.reason, error)


def _deferred(error: StorageUnavailable) -> Verdict:
    return Verdict(Outcome.DEFERRED, error.cause, error)
