"""The publisher on librdkafka's embedded broker."""

import logging
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError

from local.broker import EmbeddedBroker
from src.delivery.delivery import Publisher
from src.kafka.publisher import LIFETIME, KafkaPublisher
from src.model.delivery_failure import Fault
from src.model.errors import FatalClientError
from src.model.message import ProducerRecord
from src.settings import KafkaSettings
from src.utils.config import ConfigurationError
from src.utils.secret import ClientSettings
from tests.fakes import FakeClock, record, records
from tests.test_publisher_contract import complete
from tests.topics import POLLS, TOPIC, first_records

PRODUCE = 0  # the API key of produce requests


def kafka(
    broker: EmbeddedBroker, *, timeout: int = 10_000, clock: FakeClock | None = None, **client: str | int
) -> KafkaPublisher:
    keys = ClientSettings({name.replace("_", "."): value for name, value in client.items()})
    settings = KafkaSettings(bootstrap_servers=broker.address, topic=TOPIC, client=keys)
    return KafkaPublisher(settings, delivery_timeout_ms=timeout, clock=clock or FakeClock())


def poll_until(publisher: Publisher, condition: Callable[[], bool]) -> None:
    for _ in range(POLLS):
        if condition():
            return
        publisher.poll(0.1)
    raise AssertionError("the condition is not met in time")


def test_key_value_and_headers_arrive_unchanged(broker: EmbeddedBroker) -> None:
    messages = [
        ProducerRecord(b"a", b"1", [("x", b"1"), ("x", None), ("", b""), ("y", b"\xff")]),
        ProducerRecord(b"b", b"", []),
        ProducerRecord(b"c", None, []),
    ]
    publisher = kafka(broker)

    complete(publisher, publisher.send(messages))

    assert first_records(broker.address, 3) == messages


@pytest.mark.parametrize("key", [b"a", b"", None])
def test_records_with_the_same_key_have_their_own_outcomes(broker: EmbeddedBroker, key: bytes | None) -> None:
    messages = [ProducerRecord(key, b"x" * size, [("size", b"%d" % size)]) for size in (1, 3000, 1, 2)]
    publisher = kafka(broker, message_max_bytes=2000)

    request = complete(publisher, publisher.send(messages))

    assert (request.size, request.delivered) == (4, 3)
    assert [failure.record for failure in request.failures] == [messages[1]]
    arrived = first_records(broker.address, 3)
    assert sorted(record.headers for record in arrived) == [[("size", b"1")], [("size", b"1")], [("size", b"2")]]


def test_a_record_above_the_clients_size_limit_fails_permanently_and_the_others_are_delivered(
    broker: EmbeddedBroker,
) -> None:
    publisher = kafka(broker, message_max_bytes=2000)

    request = complete(publisher, publisher.send([record("0"), record("1", size=3000), record("2")]))

    assert request.delivered == 2
    assert [(failure.record.key, failure.fault) for failure in request.failures] == [(b"1", Fault.PERMANENT)]


@pytest.mark.parametrize(
    "code", [KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_RECORD]
)
def test_errors_that_concern_a_whole_request_are_batch_faults(broker: EmbeddedBroker, code: int) -> None:
    publisher = kafka(broker)
    complete(publisher, publisher.send(records(1)))
    broker.fail_next(PRODUCE, code)

    request = complete(publisher, publisher.send([ProducerRecord(b"k", b"1", []), ProducerRecord(b"k", b"2", [])]))

    assert [failure.fault for failure in request.failures] == [Fault.BATCH] * 2


def test_a_missing_right_is_named_with_the_topic(broker: EmbeddedBroker) -> None:
    publisher = kafka(broker)
    complete(publisher, publisher.send(records(1)))
    broker.fail_next(PRODUCE, KafkaError.TOPIC_AUTHORIZATION_FAILED)

    request = complete(publisher, publisher.send(records(1)))

    [failure] = request.failures
    assert failure.fault is Fault.TRANSIENT
    assert failure.reason == f"not authorized to write to topic {TOPIC}; the user needs an ACL"


def test_a_timed_out_record_is_reported_as_possibly_in_the_topic(broker: EmbeddedBroker) -> None:
    publisher = kafka(broker, timeout=1000)
    complete(publisher, publisher.send(records(1)))
    broker.go_down()

    request = complete(publisher, publisher.send(records(2)))

    assert {failure.reason for failure in request.failures} == {
        "not acknowledged within 1 s; it may be in the topic",
    }


def test_purge_distinguishes_unsent_from_unacknowledged_records(broker: EmbeddedBroker) -> None:
    publisher = kafka(broker)
    complete(publisher, publisher.send(records(1)))
    broker.go_down()
    request = publisher.send(records(2))

    publisher.purge()
    complete(publisher, request)

    assert {failure.reason for failure in request.failures} <= {
        "producer stopped before sending",
        "producer stopped before the acknowledgement; it may be in the topic",
    }
    assert len(request.failures) == 2


def test_a_client_with_a_fatal_error_is_replaced_and_what_it_has_not_delivered_fails(broker: EmbeddedBroker) -> None:
    clock = FakeClock()
    publisher = kafka(broker, clock=clock)
    complete(publisher, publisher.send(records(1)))
    clock.advance(LIFETIME)
    broker.fail_next(PRODUCE, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)

    request = complete(publisher, publisher.send(records(5)))
    later = complete(publisher, publisher.send(records(2)))

    assert {failure.fault for failure in request.failures} == {Fault.TRANSIENT}
    assert request.delivered + len(request.failures) == 5
    assert later.delivered == 2
    assert publisher.unavailable_reason is None


def test_a_client_that_fails_at_once_is_not_replaced_and_every_record_is_accounted_for(broker: EmbeddedBroker) -> None:
    publisher = kafka(broker)
    complete(publisher, publisher.send(records(1)))
    broker.fail_next(PRODUCE, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
    request = publisher.send(records(5))

    with pytest.raises(FatalClientError, match="fatal Kafka client error"):
        complete(publisher, request)
    later = publisher.send(records(1))
    request.fail_unreported("no report")

    assert "fatal Kafka client error" in (publisher.unavailable_reason or "")
    assert request.delivered + len(request.failures) == 5
    assert len(later.failures) == 1
    with pytest.raises(FatalClientError):
        publisher.poll(0)


def test_a_missing_authorization_is_a_transient_fault(broker: EmbeddedBroker) -> None:
    publisher = kafka(broker)
    complete(publisher, publisher.send(records(1)))
    broker.fail_next(PRODUCE, KafkaError.TOPIC_AUTHORIZATION_FAILED)

    reported = complete(publisher, publisher.send([record("0")]))
    refused = complete(publisher, publisher.send([record("0")]))

    assert [failure.fault for failure in (*reported.failures, *refused.failures)] == [Fault.TRANSIENT] * 2


def test_the_publisher_becomes_available_without_sending_anything(broker: EmbeddedBroker) -> None:
    publisher = kafka(broker)
    initially = publisher.unavailable_reason

    poll_until(publisher, lambda: publisher.unavailable_reason is None)

    assert initially == f"broker {broker.address}: not connected yet"


def test_an_unreachable_broker_is_named_until_it_recovers(broker: EmbeddedBroker) -> None:
    publisher = kafka(broker, reconnect_backoff_max_ms=200)
    complete(publisher, publisher.send(records(1)))
    poll_until(publisher, lambda: publisher.unavailable_reason is None)

    broker.go_down()
    publisher.send(records(1))
    poll_until(publisher, lambda: "refused" in (publisher.unavailable_reason or ""))
    broker.come_up()

    poll_until(publisher, lambda: publisher.unavailable_reason is None)


def test_an_unresolvable_default_address_is_logged_with_the_variable_to_set(caplog: pytest.LogCaptureFixture) -> None:
    publisher = KafkaPublisher(KafkaSettings(bootstrap_servers=" kafka:9092, "), delivery_timeout_ms=1000)

    poll_until(publisher, lambda: "KAFKA_BOOTSTRAP_SERVERS" in (publisher.unavailable_reason or ""))

    warnings = [r.__dict__["reason"] for r in caplog.records if r.getMessage() == "broker unreachable"]
    assert "localhost:29092" in warnings[0]


def test_the_clients_log_lines_go_through_our_logging(broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture) -> None:
    publisher = kafka(broker, enable_partition_eof=1)

    publisher.poll(0.1)

    lines = [record for record in caplog.records if record.name == "librdkafka"]
    assert "enable.partition.eof" in lines[0].getMessage()
    assert lines[0].levelno == logging.WARNING


@pytest.mark.parametrize(
    ("client", "text"),
    [
        ({"no.such.key": "1"}, "no.such.key"),
        ({"linger.ms": "soon"}, "queue.buffering.max.ms"),
        ({"max.in.flight": 10}, "max.in.flight"),
        ({"on_delivery": "x"}, "on_delivery|dr_cb|callable"),
    ],
)
def test_a_key_rejected_by_librdkafka_is_a_configuration_error(client: dict[str, str | int], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        KafkaPublisher(KafkaSettings(client=ClientSettings(client)), delivery_timeout_ms=1000)


def test_settings_that_the_guarantees_depend_on_cannot_be_overridden(broker: EmbeddedBroker) -> None:
    seen: list[dict[str, object]] = []

    def remember(config: dict[str, object], **_: object) -> object:
        seen.append(config)
        return None

    KafkaPublisher(
        KafkaSettings(bootstrap_servers="a:1, b:2,", compression_type="lz4", client=ClientSettings({"linger.ms": 50})),
        delivery_timeout_ms=60_000,
        producer=remember,  # type: ignore[arg-type]
    )

    config = seen[0]
    assert (config["enable.idempotence"], config["acks"], config["message.timeout.ms"]) == (True, "all", 60_000)
    assert (config["bootstrap.servers"], config["compression.type"], config["linger.ms"]) == ("a:1,b:2", "lz4", 50)
