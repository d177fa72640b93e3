"""The meaning of each of MongoDB's errors, from errors that the tests construct."""

from collections.abc import Sequence
from typing import Any

import pytest
from bson.errors import InvalidDocument
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    DocumentTooLarge,
    ExecutionTimeout,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
    WTimeoutError,
)

from src.model.errors import StorageUnavailable
from src.model.verdict import STORED, Outcome
from src.stores.mongo.errors import CAUSES, REJECTIONS, WriteResponse, rejection_reason, unavailable, verdicts


def response(written: int, *faults: dict[str, Any], unconfirmed: Sequence[dict[str, Any]] = ()) -> WriteResponse:
    return WriteResponse(written, faults, unconfirmed)


def fault(index: int, code: int, **details: Any) -> dict[str, Any]:
    return {"index": index, "code": code, "errmsg": "some text", **details}


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ServerSelectionTimeoutError("no server"), "unreachable"),
        (AutoReconnect("connection refused"), "unreachable"),
        (ConfigurationError("The DNS query name does not exist"), "unreachable"),
        (NetworkTimeout("timed out"), "timeout"),
        (ExecutionTimeout("exceeded time limit", 50, {}), "timeout"),
        (NotPrimaryError("not primary", {"code": 10107}), "not_primary"),
        (OperationFailure("Authentication failed.", 18, {}), "authentication"),
        (OperationFailure("not authorized on pubsub", 13, {}), "not_authorized"),
        (OperationFailure("bad auth", 8000, {}), "atlas"),
        (OperationFailure("disk full", 14031, {}), "disk_full"),
        (OperationFailure("unknown code", 4711, {}), "refused"),
        (OperationFailure("no code"), "refused"),
        (WriteConcernError("not enough data-bearing nodes", 100, {}), "write_concern"),
        (WTimeoutError("waiting for replication timed out", 64, {}), "write_concern"),
        (PyMongoError("anything"), "unreachable"),
    ],
)
def test_a_failed_call_is_unavailable_with_a_cause(error: PyMongoError, cause: str) -> None:
    assert unavailable(error).cause == cause


@pytest.mark.parametrize(
    "error",
    [
        ServerSelectionTimeoutError("connection refused, Topology Description: <TopologyDescription …>"),
        OperationFailure("connection refused", 4711, {"errmsg": "connection refused"}),
    ],
)
def test_the_text_is_short_enough_for_a_log_line(error: PyMongoError) -> None:
    assert str(unavailable(error)) == "MongoDB: connection refused"


def test_each_document_has_its_own_verdict() -> None:
    some = response(3, fault(1, 121), fault(3, 16500))

    assert [verdict.outcome.name for verdict in verdicts(some, 5)] == [
        "STORED",
        "REJECTED",
        "STORED",
        "DEFERRED",
        "STORED",
    ]


# The codes that MongoDB's list (src/mongo/base/error_codes.yml) puts into these categories, without those that clients
# never get, and others that an unavailable server, shard or user causes.
TRANSIENT = {
    "NetworkError": (6, 7, 89, 9001),
    "Interruption": (24, 50, 237, 262, 279, 281, 282, 290, 355, 453, 11600, 11601, 11602, 46841, 91331, 10045600),
    "NotPrimaryError": (189, 10058, 10107, 11602, 13435, 13436),
    "NeedRetargettingError": (63, 150, 13388),
    "WriteConcernError": (64, 75, 79, 100),
    "ShutdownError": (91, 11600),
    "ExceededTimeLimitError": (50, 202, 262, 290, 407),
    "SnapshotError": (239, 246, 250, 272),
    "RetriableError": (134, 358, 402, 406, 407, 412, 453, 462, 50915),
    "SystemOverloadedError": (433, 449, 450, 462),
    "starting, electing": (94, 203, 216),
    "a shard or its primary is unavailable": (70, 71, 82, 83, 133, 145, 149, 172, 199, 56846),
    "a collection, database or chunk moves": (117, 227, 249, 319, 342, 343, 414),
    "locks, conflicts, memory, disk": (46, 107, 112, 208, 251, 365, 12586, 12587, 14031, 16500),
    "blocked by an administrator": (371,),
    "permissions": (11, 13, 18, 391, 8000),
}


@pytest.mark.parametrize("code", sorted({code for codes in TRANSIENT.values() for code in codes}))
def test_a_document_is_deferred_if_the_server_is_at_fault_and_its_neighbor_is_stored(code: int) -> None:
    [verdict, neighbor] = verdicts(response(1, fault(0, code)), 2)

    assert verdict.outcome is Outcome.DEFERRED
    assert verdict.reason
    assert neighbor == STORED


@pytest.mark.parametrize(
    ("details", "outcome"),
    [
        ({"keyPattern": {"_id": 1}, "keyValue": {"_id": "1"}}, Outcome.FAILED),
        ({}, Outcome.FAILED),
        ({"keyPattern": {"name": 1}}, Outcome.REJECTED),
        ({"keyPattern": {"_id": 1, "name": 1}}, Outcome.REJECTED),
    ],
)
def test_a_duplicate_id_is_compared_and_any_other_key_rejected(details: dict[str, Any], outcome: Outcome) -> None:
    [verdict] = verdicts(response(0, fault(0, 11000, **details)), 1)

    assert (verdict.outcome, verdict.reason) == (outcome, "duplicate_key")


@pytest.mark.parametrize(
    ("code", "reason"), [(121, "validation_failed"), (15, "nesting_too_deep"), (10334, "document_too_large")]
)
def test_an_invalid_document_is_rejected(code: int, reason: str) -> None:
    [verdict] = verdicts(response(0, fault(0, code)), 1)

    assert (verdict.outcome, verdict.reason) == (Outcome.REJECTED, reason)
    assert str(verdict.error).startswith("some text")


def test_no_code_means_both_that_the_server_and_that_the_document_is_at_fault() -> None:
    assert CAUSES.keys() & REJECTIONS.keys() == set()


def test_an_error_does_not_show_the_document() -> None:
    [verdict] = verdicts(response(0, fault(0, 6, op={"q": {}, "u": {"name": "secret"}})), 1)

    assert "secret" not in str(verdict.error)


def test_an_unknown_error_code_is_a_failure_that_is_retried() -> None:
    [verdict] = verdicts(response(0, fault(0, 4711)), 1)

    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, "write_error")


def test_a_write_without_confirmation_is_not_stored() -> None:
    some = response(1, fault(0, 11000), unconfirmed=[{"code": 64, "errmsg": "waiting for replication timed out"}])

    with pytest.raises(StorageUnavailable) as caught:
        verdicts(some, 2)

    assert caught.value.cause == "write_concern"


@pytest.mark.parametrize("some", [response(0), response(1), response(1, fault(0, 121), fault(1, 121)), response(3)])
def test_a_response_that_does_not_account_for_each_document_is_not_a_success(some: WriteResponse) -> None:
    with pytest.raises(StorageUnavailable):
        verdicts(some, 2)


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (OverflowError(), "integer_out_of_range"),
        (RecursionError(), "nesting_too_deep"),
        (DocumentTooLarge("17 MB"), "document_too_large"),
        (InvalidDocument("cannot encode"), "not_encodable"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), "invalid_string"),
    ],
)
def test_a_document_that_the_client_cannot_encode_has_a_reason(error: Exception, name: str) -> None:
    assert rejection_reason(error) == name
