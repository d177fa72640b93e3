"""What MongoDB's answers mean: whose fault it was, by type and code, never by text."""

from collections.abc import Mapping, Sequence
from typing import Any

from bson.errors import BSONError
from pymongo.errors import (
    BulkWriteError,
    DocumentTooLarge,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
    WriteError,
)

from src.model.errors import StorageUnavailable
from src.model.verdict import KEY_TAKEN, STORED, Outcome, Verdict

# What the server says when no document is at fault: the whole call, or a single document, is to be tried again.
CAUSES: Mapping[int, str] = {
    18: "authentication",
    11: "authentication",  # user not found
    391: "authentication",  # the credentials have expired
    13: "not_authorized",
    8000: "atlas",  # its own refusals: rights, quota
    6: "unreachable",
    7: "unreachable",
    9001: "unreachable",
    50: "timeout",
    89: "timeout",
    202: "timeout",
    262: "timeout",
    24: "overloaded",  # lock timeout
    46: "overloaded",
    112: "overloaded",  # write conflict
    365: "overloaded",  # temporarily unavailable
    462: "overloaded",  # too many requests
    16500: "overloaded",  # the same in Cosmos DB
    12501: "quota",
    14031: "disk_full",
    91: "not_primary",  # shutting down, stepping down, starting up, moving
    189: "not_primary",
    10058: "not_primary",
    10107: "not_primary",
    11600: "not_primary",
    11602: "not_primary",
    13435: "not_primary",
    13436: "not_primary",
    63: "moving",
    117: "moving",
    150: "moving",
    13388: "moving",
    64: "write_concern",
    79: "write_concern",
    100: "write_concern",
}

# What it says of a document that it never takes.
REFUSALS: Mapping[int, str] = {
    121: "validation_failed",
    15: "nesting_too_deep",
    22: "not_encodable",
    10334: "document_too_large",
    17280: "key_too_long",
    52: "invalid_key",  # servers before 5.0: a key that begins with a dollar sign,
    55: "invalid_key",
    56: "invalid_key",
    57: "invalid_key",  # or has a dot in it
}
DUPLICATE_KEY = frozenset({11000, 11001, 12582})

# What the client says of a document before it sends anything. DataStorage looks first, so this is for servers with
# limits of their own.
UNENCODABLE = (BSONError, OverflowError, RecursionError, UnicodeEncodeError)
REASONS: Sequence[tuple[type[Exception], str]] = (
    (DocumentTooLarge, "document_too_large"),
    (OverflowError, "integer_out_of_range"),
    (RecursionError, "nesting_too_deep"),
    (UnicodeEncodeError, "invalid_string"),
)


def unavailable(error: PyMongoError) -> StorageUnavailable:
    """What a failed call says of the world."""
    return StorageUnavailable(_cause(error), f"MongoDB: {_in_short(error)}")


def verdicts(error: BulkWriteError, count: int) -> list[Verdict]:
    """What became of each of `count` documents. Raises StorageUnavailable where the answer confirms none."""
    details: Mapping[str, Any] = error.details or {}
    if unconfirmed := details.get("writeConcernErrors"):
        raise StorageUnavailable("write_concern", f"MongoDB did not confirm the write: {unconfirmed}") from error
    if not details.get("writeErrors"):
        raise StorageUnavailable("write_concern", f"MongoDB names no document that failed: {error}") from error
    answers = [STORED] * count
    for fault in details["writeErrors"]:
        answers[fault["index"]] = _verdict(fault)
    return answers


def reason(error: Exception) -> str:
    """Why the client can't send a document."""
    return next((name for kind, name in REASONS if isinstance(error, kind)), "not_encodable")


def _in_short(error: PyMongoError) -> str:
    """Without the topology, and without the raw answer that repeats the text."""
    return str(error).partition(", Topology Description")[0].partition(", full error")[0]


def _verdict(fault: Mapping[str, Any]) -> Verdict:
    code = fault.get("code", 0)
    error = WriteError(str(fault.get("errmsg")), code, fault)
    if code in DUPLICATE_KEY:
        return Verdict(_outcome_of_taken_key(fault.get("keyPattern")), KEY_TAKEN, error)
    if code in CAUSES:
        return Verdict(Outcome.DEFERRED, CAUSES[code], error)
    if code in REFUSALS:
        return Verdict(Outcome.REFUSED, REFUSALS[code], error)
    return Verdict(Outcome.FAILED, "write_error", error)


def _outcome_of_taken_key(pattern: Mapping[str, Any] | None) -> Outcome:
    """A unique index of the user's own refuses for good. The id may be free again by now, if that is what is taken."""
    return Outcome.FAILED if not pattern or set(pattern) == {"_id"} else Outcome.REFUSED


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
