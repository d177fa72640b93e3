"""The publisher on librdkafka's own cluster: what it promises to delivery, and what the fake promises alike."""

import logging
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from local.broker import EmbeddedBroker
from src.delivery import Publisher
from src.kafka.produce_request import Fault, ProduceRequest
from src.kafka.publisher import KafkaPublisher
from src.model.errors import BrokerError
from src.model.message import Encoded
from src.settings import KafkaSettings
from src.utils.config import ConfigurationError
from src.utils.secret import ClientSettings
from tests.fakes import DEADLINE, FakePublisher, encoded, named

TOPIC = "data-topic"
PRODUCE = 0  # Kafka's api key
TURNS = int(DEADLINE / 0.1)


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({TOPIC: 2}) as broker:
        yield broker


def kafka(broker: EmbeddedBroker, *, timeout: int = 10_000, **client: str | int) -> KafkaPublisher:
    keys = ClientSettings({name.replace("_", "."): value for name, value in client.items()})
    settings = KafkaSettings(bootstrap_servers=broker.address, topic=TOPIC, client=keys)
    return KafkaPublisher(settings, delivery_timeout_ms=timeout)


def settle(publisher: Publisher, shipment: ProduceRequest) -> ProduceRequest:
    for _ in range(TURNS):
        if shipment in publisher.settled(0.1):
            return shipment
    raise AssertionError("the shipment is not settled")


def until(publisher: Publisher, condition: Callable[[], bool]) -> None:
    for _ in range(TURNS):
        if condition():
            return
        publisher.settled(0.1)
    raise AssertionError("it does not come true")


def stored(broker: EmbeddedBroker, count: int) -> list[Encoded]:
    """The first messages of the topic, by key."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.address,
            "group.id": "test",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 10,
        }
    )
    partitions = consumer.list_topics(TOPIC, timeout=DEADLINE).topics[TOPIC].partitions
    consumer.assign([TopicPartition(TOPIC, number, OFFSET_BEGINNING) for number in partitions])
    found: list[Encoded] = []
    for _ in range(TURNS):
        message = consumer.poll(0.1)
        if message is not None:
            assert message.error() is None
            headers = cast(list[tuple[str, bytes | None]], message.headers() or [])
            found.append(Encoded(message.key(), message.value(), headers))
        if len(found) == count:
            break
    consumer.close()
    return sorted(found, key=lambda message: message.key or b"")


class TestContract:
    """What delivery relies on, of Kafka and of the fake alike."""

    @pytest.fixture(params=["fake", "kafka"])
    def publisher(self, request: pytest.FixtureRequest, broker: EmbeddedBroker) -> Iterator[Publisher]:
        publisher: Publisher = FakePublisher() if request.param == "fake" else kafka(broker)
        yield publisher
        publisher.purge()
        publisher.close()

    def test_a_shipment_is_settled_when_each_message_is_reported(self, publisher: Publisher) -> None:
        shipment = publisher.send(named(100))

        settle(publisher, shipment)

        assert (shipment.size, shipment.delivered, shipment.failures) == (100, 100, [])

    def test_several_are_in_flight_and_each_is_settled_once(self, publisher: Publisher) -> None:
        shipments = [publisher.send(named(3)) for _ in range(5)]
        seen: list[ProduceRequest] = []

        for _ in range(TURNS):
            seen += publisher.settled(0.1) if len(seen) < 5 else []

        assert sorted(map(id, seen)) == sorted(map(id, shipments))

    def test_an_empty_shipment_is_settled(self, publisher: Publisher) -> None:
        shipment = publisher.send([])

        settle(publisher, shipment)

        assert shipment.size == 0

    def test_purged_messages_are_reported_as_failed(self, publisher: Publisher) -> None:
        shipment = publisher.send(named(3))

        publisher.purge()
        settle(publisher, shipment)

        assert shipment.delivered + len(shipment.failures) == 3


def test_key_value_and_headers_arrive_as_they_are(broker: EmbeddedBroker) -> None:
    messages = [
        Encoded(b"a", b"1", [("x", b"1"), ("x", None), ("", b""), ("y", b"\xff")]),
        Encoded(b"b", b"", []),
        Encoded(b"c", None, []),
    ]
    publisher = kafka(broker)

    settle(publisher, publisher.send(messages))

    assert stored(broker, 3) == messages


def test_a_message_larger_than_the_client_takes_is_its_own_fault_and_its_neighbours_go(broker: EmbeddedBroker) -> None:
    publisher = kafka(broker, message_max_bytes=2000)

    shipment = settle(publisher, publisher.send([encoded("0"), encoded("1", size=3000), encoded("2")]))

    assert shipment.delivered == 2
    assert [(failure.message.key, failure.fault) for failure in shipment.failures] == [(b"1", Fault.MESSAGE)]


@pytest.mark.parametrize(
    "code", [KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_RECORD]
)
def test_what_kafka_refuses_as_a_whole_may_go_alone(broker: EmbeddedBroker, code: int) -> None:
    publisher = kafka(broker)
    settle(publisher, publisher.send(named(1)))
    broker.fail_next(PRODUCE, code)

    shipment = settle(publisher, publisher.send([Encoded(b"k", b"1", []), Encoded(b"k", b"2", [])]))

    assert [failure.fault for failure in shipment.failures] == [Fault.COMPANY] * 2


def test_a_full_client_takes_what_it_has_room_for(broker: EmbeddedBroker) -> None:
    publisher = kafka(broker, queue_buffering_max_messages=3, linger_ms=0)

    first = publisher.send(named(5))
    settle(publisher, first)
    second = publisher.send(named(2))
    settle(publisher, second)

    assert (first.size, first.delivered, second.size) == (3, 3, 2)


def test_what_is_not_confirmed_in_time_is_reported_with_the_doubt(broker: EmbeddedBroker) -> None:
    publisher = kafka(broker, timeout=1000)
    settle(publisher, publisher.send(named(1)))
    broker.go_down()

    shipment = settle(publisher, publisher.send(named(2)))

    assert {failure.reason for failure in shipment.failures} == {
        "not confirmed within 1 s; it may be in the topic",
    }


def test_purge_tells_what_was_never_sent(broker: EmbeddedBroker) -> None:
    publisher = kafka(broker)
    settle(publisher, publisher.send(named(1)))
    broker.go_down()
    shipment = publisher.send(named(2))

    publisher.purge()
    settle(publisher, shipment)

    assert {failure.reason for failure in shipment.failures} <= {
        "stopped before it was sent",
        "stopped before it was confirmed; it may be in the topic",
    }
    assert len(shipment.failures) == 2


def test_a_fatal_error_ends_the_use_of_the_client_and_no_message_is_forgotten(broker: EmbeddedBroker) -> None:
    publisher = kafka(broker)
    settle(publisher, publisher.send(named(1)))
    broker.fail_next(PRODUCE, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
    shipment = publisher.send(named(5))

    with pytest.raises(BrokerError, match="can't go on"):
        settle(publisher, shipment)
    later = publisher.send(named(1))
    shipment.write_off("no report")

    assert "can't go on" in (publisher.trouble or "")
    assert shipment.delivered + len(shipment.failures) == 5
    assert len(later.failures) == 1
    with pytest.raises(BrokerError):
        publisher.settled(0)


def test_a_refusal_of_the_world_is_worth_another_try(broker: EmbeddedBroker) -> None:
    publisher = kafka(broker)
    settle(publisher, publisher.send(named(1)))
    broker.fail_next(PRODUCE, KafkaError.TOPIC_AUTHORIZATION_FAILED)

    reported = settle(publisher, publisher.send([encoded("0")]))
    refused = settle(publisher, publisher.send([encoded("0")]))

    assert [failure.fault for failure in (*reported.failures, *refused.failures)] == [Fault.WORLD] * 2


def test_a_broker_is_found_without_sending_anything(broker: EmbeddedBroker) -> None:
    publisher = kafka(broker)
    at_first = publisher.trouble

    until(publisher, lambda: publisher.trouble is None)

    assert at_first == f"broker {broker.address}: not connected yet"


def test_a_broker_that_goes_away_is_named_and_forgotten_when_it_is_back(broker: EmbeddedBroker) -> None:
    publisher = kafka(broker, reconnect_backoff_max_ms=200)
    settle(publisher, publisher.send(named(1)))
    until(publisher, lambda: publisher.trouble is None)

    broker.go_down()
    publisher.send(named(1))
    until(publisher, lambda: "refused" in (publisher.trouble or ""))
    broker.come_up()

    until(publisher, lambda: publisher.trouble is None)


def test_where_the_default_name_does_not_resolve_the_log_says_what_to_set(caplog: pytest.LogCaptureFixture) -> None:
    publisher = KafkaPublisher(KafkaSettings(bootstrap_servers=" kafka:9092, "), delivery_timeout_ms=1000)

    until(publisher, lambda: "KAFKA_BOOTSTRAP_SERVERS" in (publisher.trouble or ""))

    warnings = [r.__dict__["reason"] for r in caplog.records if r.getMessage() == "broker unreachable"]
    assert "localhost:29092" in warnings[0]


def test_the_client_speaks_through_our_log(broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture) -> None:
    publisher = kafka(broker, enable_partition_eof=1)

    publisher.settled(0.1)

    lines = [record for record in caplog.records if record.name == "librdkafka"]
    assert "enable.partition.eof" in lines[0].getMessage()
    assert lines[0].levelno == logging.WARNING


@pytest.mark.parametrize(
    ("client", "named_in_the_text"),
    [
        ({"no.such.key": "1"}, "no.such.key"),
        ({"linger.ms": "soon"}, "queue.buffering.max.ms"),
        ({"max.in.flight": 10}, "max.in.flight"),
        ({"on_delivery": "x"}, "on_delivery|dr_cb|callable"),
    ],
)
def test_a_key_that_the_client_refuses_is_a_wrong_setting(client: dict[str, str | int], named_in_the_text: str) -> None:
    with pytest.raises(ConfigurationError, match=named_in_the_text):
        KafkaPublisher(KafkaSettings(client=ClientSettings(client)), delivery_timeout_ms=1000)


def test_the_promise_is_not_the_operators_to_change(broker: EmbeddedBroker) -> None:
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
