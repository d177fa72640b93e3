"""Writes messages over what is stored under their ids: `document.write` is `replace` or `merge`.

Nothing is written over what comes from a newer message: an older one is *superseded*, and counts as a duplicate.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from src.model.errors import InvalidMessage, StorageUnavailable
from src.model.verdict import DUPLICATE, DUPLICATE_KEY, Outcome, Verdict
from src.stores.document import Document, DocumentBatch, Identity, fields_of, identity_of, is_deletion
from src.stores.order import Overwrites, is_older
from src.stores.store import Store, Write

_UNKNOWN = frozenset({Outcome.FAILED, Outcome.DEFERRED})


def save_newest(store: Store, batch: DocumentBatch, *, merge: bool) -> list[Verdict]:
    """One verdict per document. Raises StorageUnavailable if none of their outcomes is known."""
    writer = _Writer(store, batch, merge)
    writer.write(writer.newer_and_newer(), may_raise=True)
    return [writer.verdicts.get(index, DUPLICATE) for index in range(len(batch.documents))]


class _Writer:
    """Writes one batch. A document without a verdict is superseded."""

    def __init__(self, store: Store, batch: DocumentBatch, merge: bool) -> None:
        self.verdicts: dict[int, Verdict] = {}
        self._store = store
        self._batch = batch
        self._merge = merge

    def newer_and_newer(self) -> list[list[int]]:
        """For each id, the messages of the batch that one call each would write, in their order."""
        groups: defaultdict[Identity, list[int]] = defaultdict(list)
        for index, identity in enumerate(self._batch.ids):
            if verdict := _unwritable(fields_of(self._batch.documents[index]), self._merge):
                self.verdicts[index] = verdict
                continue
            group = groups[identity]
            if not group or is_older(self._batch.fields(group[-1]), self._batch.fields(index)):
                group.append(index)
        return list(groups.values())

    def write(self, groups: Sequence[Sequence[int]], *, may_raise: bool = False) -> None:
        """One write for each group. If it is rejected, each half of it is written; one message may be at fault."""
        if not groups:
            return
        rejected = []
        verdicts = self._call([self._folded(group) for group in groups], may_raise)
        for group, verdict in zip(groups, verdicts, strict=True):
            if verdict.outcome is Outcome.REJECTED and len(group) > 1:
                rejected.append(group)
            else:
                counted = group if self._merge or verdict.outcome in _UNKNOWN else group[-1:]
                self.verdicts |= dict.fromkeys(counted, verdict)
        self.write([group[: len(group) // 2] for group in rejected])
        self._write_second_halves(rejected)

    def _write_second_halves(self, groups: Sequence[Sequence[int]]) -> None:
        """No message overtakes one whose outcome is unknown."""
        free = []
        for group in groups:
            middle = len(group) // 2
            last = self.verdicts.get(group[middle - 1], DUPLICATE)
            if last.outcome in _UNKNOWN:
                self.verdicts |= dict.fromkeys(group[middle:], last)
            else:
                free.append(group[middle:])
        self.write(free)

    def _folded(self, group: Sequence[int]) -> Write:
        """One write with the effect of all."""
        if not self._merge:
            return Write(self._batch.fields(group[-1]))
        document: Document = {}
        whole = False
        for index in group:
            fields = self._batch.fields(index)
            whole = whole or is_deletion(fields)
            document = fields if is_deletion(fields) else {**document, **fields}
        return Write(document, merge=not whole)

    def _call(self, writes: Sequence[Write], may_raise: bool) -> list[Verdict]:
        try:
            verdicts = self._store.write(writes, Overwrites.OLDER)
        except StorageUnavailable as error:
            if may_raise:
                raise
            return [Verdict(Outcome.DEFERRED, error.cause, error)] * len(writes)
        taken = [index for index, verdict in enumerate(verdicts) if _is_taken(verdict)]
        for index, verdict in zip(taken, self._compared([writes[index].document for index in taken]), strict=True):
            verdicts[index] = verdict or verdicts[index]
        return verdicts

    def _compared(self, documents: Sequence[Document]) -> Sequence[Verdict | None]:
        """Whether documents whose ids are taken are superseded. Two consumers that insert one id at the same time find
        it taken, too: the document is written when it is retried."""
        try:
            found = self._store.fetch([identity_of(each) for each in documents]) if documents else ()
            stored = {identity_of(each): each for each in found}
        except StorageUnavailable as error:
            return [Verdict(Outcome.DEFERRED, error.cause, error)] * len(documents)
        return [_superseded(stored, each) for each in documents]


def _superseded(stored: Mapping[Identity, Document], document: Document) -> Verdict | None:
    found = stored.get(identity_of(document))
    return None if found is None or is_older(found, document) else DUPLICATE


def _is_taken(verdict: Verdict) -> bool:
    return verdict.outcome is Outcome.FAILED and verdict.reason == DUPLICATE_KEY


def _unwritable(document: Document, merge: bool) -> Verdict | None:
    """MongoDB would take such a name for an operator, or in a merge for a path."""
    for name in document:
        if name.startswith("$") or (merge and (not name or "." in name)):
            error = InvalidMessage(
                "invalid_key", f"a field named {name!r} cannot be {'merged' if merge else 'replaced'}"
            )
            return Verdict(Outcome.REJECTED, error.reason, error)
    return None
