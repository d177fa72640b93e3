"""A request knows the outcome of each of its records, in whatever order the reports arrive."""

from hypothesis import given
from hypothesis import strategies as st

from src.kafka.produce_request import Identifier, ProduceRequest
from src.model.delivery_failure import Fault
from src.model.message import ProducerRecord
from tests.fakes import records

keys = st.lists(st.sampled_from((None, b"", b"a", b"b", b"c")), max_size=6) | st.lists(st.binary(), unique=True)


def numbered(keys: list[bytes | None]) -> list[ProducerRecord]:
    """Different only in their headers."""
    return [ProducerRecord(key, b"{}", [("number", b"%d" % number)]) for number, key in enumerate(keys)]


@given(keys, st.data())
def test_every_record_is_delivered_or_failed_as_its_report_says(keys: list[bytes | None], data: st.DataObject) -> None:
    records = numbered(keys)
    size = data.draw(st.integers(0, len(records)))
    completed: list[ProduceRequest] = []
    request = ProduceRequest(records, completed.append)
    identifiers = request.identifiers[:size]
    rejected = data.draw(st.sets(st.sampled_from(identifiers))) if size else set()
    for identifier in rejected:
        request.report_failed(identifier, Fault.PERMANENT, "rejected")
    request.seal(size)
    failed: set[Identifier] = {*rejected}
    for identifier in data.draw(st.permutations([each for each in identifiers if each not in rejected])):
        assert completed == []
        if data.draw(st.booleans()):
            failed.add(identifier)
            request.report_failed(identifier, Fault.TRANSIENT, "no leader")
        else:
            request.report_delivered(identifier)

    assert completed == [request]
    assert (request.size, request.delivered) == (size, size - len(failed))
    expected = [record for identifier, record in zip(identifiers, records, strict=False) if identifier in failed]
    assert sorted(failure.record.headers for failure in request.failures) == sorted(each.headers for each in expected)


@given(keys)
def test_records_are_identified_by_their_keys_only_where_these_are_different(keys: list[bytes | None]) -> None:
    request = ProduceRequest(numbered(keys), lambda _: None)

    assert len(set(request.identifiers)) == len(keys)
    assert request.identified_by_key == (len(set(keys)) == len(keys) and all(keys))


def test_reports_after_the_end_change_nothing() -> None:
    completed: list[ProduceRequest] = []
    request = ProduceRequest(records(3), completed.append)
    request.seal(3)
    request.report_delivered(b"0")

    request.fail_unreported("stopped")
    for identifier in request.identifiers:
        request.report_delivered(identifier)
        request.report_failed(identifier, Fault.TRANSIENT, "no leader")

    assert (request.delivered, [failure.reason for failure in request.failures]) == (1, ["stopped"] * 2)
    assert completed == []
