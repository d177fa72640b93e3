"""Interprets MongoDB's errors: whether a document or the server is at fault, by type and code, never by text."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from bson.errors import BSONError
from pymongo.errors import (
    DocumentTooLarge,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
    WriteError,
)

from src.model.errors import StorageUnavailable
from src.model.verdict import DUPLICATE_KEY, STORED, Outcome, Verdict

# Server errors for which no document is at fault: retry the whole call, or the one document. A bulk write may fail with
# them for some of its documents: with mongos, if one of the shards is unavailable.
_CODES: Mapping[str, Sequence[int]] = {
    "authentication": (11, 18, 391),  # user not found, credentials expired
    "not_authorized": (13,),
    "atlas": (8000,),  # Atlas' own errors: permissions, quota
    "unreachable": (6, 7, 9001, 56846),
    "timeout": (50, 89, 202, 262, 290, 407),
    # Locks, write conflicts, memory, rate limits; 16500 is of Cosmos DB.
    "overloaded": (24, 46, 107, 112, 208, 365, 402, 433, 449, 450, 462, 12586, 12587, 16500),
    "quota": (12501,),
    "disk_full": (14031,),
    "not_primary": (91, 94, 134, 189, 216, 10058, 10107, 11600, 11602, 13435, 13436),  # or shutting down, starting up
    "shard_unavailable": (70, 71, 82, 83, 133, 145, 149, 172, 199, 203),
    # Chunks, databases and collections that move; routing information that is old.
    "moving": (63, 117, 150, 227, 239, 246, 249, 250, 272, 319, 342, 343, 358, 406, 412, 414, 453, 13388),
    "interrupted": (90, 237, 251, 279, 281, 282, 355, 11601, 46841, 50915, 91331, 10045600),
    "writes_blocked": (371,),  # by an administrator
    "write_concern": (64, 75, 79, 100),
}
CAUSES: Mapping[int, str] = {code: cause for cause, codes in _CODES.items() for code in codes}

LOGIN_FAILED = frozenset({"authentication", "not_authorized", "atlas"})
"""The causes that other credentials may remove: the user may have been replaced by another one."""

# Server errors for a document that can never be stored.
REJECTIONS: Mapping[int, str] = {
    121: "validation_failed",
    15: "nesting_too_deep",
    22: "not_encodable",
    10334: "document_too_large",
    17419: "document_too_large",  # after a merge
    17280: "key_too_long",
    52: "invalid_key",  # servers before 5.0: a key that starts with a dollar sign
    55: "invalid_key",
    56: "invalid_key",
    57: "invalid_key",  # servers before 5.0: a key that contains a dot
}
DUPLICATE_KEY_CODES = frozenset({11000, 11001, 12582})

# Client errors for a document that cannot be sent. DataStorage validates first, so these occur only where a server has
# lower limits.
NOT_ENCODABLE = (BSONError, OverflowError, RecursionError, UnicodeEncodeError)
ENCODING_REASONS: Sequence[tuple[type[Exception], str]] = (
    (DocumentTooLarge, "document_too_large"),
    (OverflowError, "integer_out_of_range"),
    (RecursionError, "nesting_too_deep"),
    (UnicodeEncodeError, "invalid_string"),
)


def unavailable(error: PyMongoError) -> StorageUnavailable:
    """The error for a call that failed as a whole."""
    return StorageUnavailable(_cause(error), f"MongoDB: {_short_text(error)}")


class WriteResponse(NamedTuple):
    """The number of documents that were written, and the errors of the others by their `index`."""

    written: int
    write_errors: Sequence[Mapping[str, Any]] = ()
    write_concern_errors: Sequence[Mapping[str, Any]] = ()


def verdicts(response: WriteResponse, count: int) -> list[Verdict]:
    """One verdict for each of `count` documents. Raises StorageUnavailable if the response confirms none of them."""
    if response.write_concern_errors:
        raise StorageUnavailable("write_concern", f"MongoDB did not confirm the write: {response.write_concern_errors}")
    if response.written + len(response.write_errors) != count:
        raise StorageUnavailable(
            "write_concern", f"MongoDB reports another number of documents than {count}: {response}"
        )
    results = [STORED] * count
    for fault in response.write_errors:
        results[fault["index"]] = _verdict(fault)
    return results


def rejection_reason(error: Exception) -> str:
    """Why the client cannot send a document."""
    return next((name for kind, name in ENCODING_REASONS if isinstance(error, kind)), "not_encodable")


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raises StorageUnavailable in place of any error of the driver."""
    try:
        yield
    except PyMongoError as error:
        raise unavailable(error) from error


def _short_text(error: PyMongoError) -> str:
    """Without the topology description, and without the raw response, which repeats the text."""
    return str(error).partition(", Topology Description")[0].partition(", full error")[0]


def _verdict(fault: Mapping[str, Any]) -> Verdict:
    code = fault.get("code", 0)
    details = {name: value for name, value in fault.items() if name != "op"}  # the document, which is not to be logged
    error = WriteError(str(fault.get("errmsg")), code, details)
    if code in DUPLICATE_KEY_CODES:
        return Verdict(_outcome_of_duplicate_key(fault.get("keyPattern")), DUPLICATE_KEY, error)
    if code in CAUSES:
        return Verdict(Outcome.DEFERRED, CAUSES[code], error)
    if code in REJECTIONS:
        return Verdict(Outcome.REJECTED, REJECTIONS[code], error)
    return Verdict(Outcome.FAILED, "write_error", error)


def _outcome_of_duplicate_key(pattern: Mapping[str, Any] | None) -> Outcome:
    """An operator's own unique index rejects permanently. If the id is taken, it may be free again on a retry."""
    return Outcome.FAILED if not pattern or set(pattern) == {"_id"} else Outcome.REJECTED


def _cause(error: PyMongoError) -> str:
    if isinstance(error, WriteConcernError):
        return "write_concern"
    if isinstance(error, NotPrimaryError):
        return "not_primary"
    if isinstance(error, OperationFailure):
        return CAUSES.get(error.code or 0, "refused")
    if error.timeout and not isinstance(error, ServerSelectionTimeoutError):
        return "timeout"
    return "unreachable"
