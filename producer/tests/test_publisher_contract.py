"""What Delivery relies on, of Kafka and of its fakes alike."""

from collections.abc import Callable, Iterator

import pytest

from local.broker import EmbeddedBroker
from src.delivery.delivery import Publisher
from src.kafka.produce_request import ProduceRequest
from src.kafka.publisher import KafkaPublisher
from src.settings import KafkaSettings
from tests.fakes import FakeClock, FakePublisher, ScriptedPublisher, record, records
from tests.topics import POLLS, TOPIC, create_topic


def complete(publisher: Publisher, request: ProduceRequest) -> ProduceRequest:
    for _ in range(POLLS):
        if request in publisher.poll(0.1):
            return request
    raise AssertionError("the request is not completed")


def scripted() -> ScriptedPublisher:
    publisher = ScriptedPublisher(FakeClock())
    publisher.delivers = True
    return publisher


def on(servers: str, topic: str = TOPIC) -> KafkaPublisher:
    return KafkaPublisher(KafkaSettings(bootstrap_servers=servers, topic=topic), delivery_timeout_ms=10_000)


def on_embedded_broker(request: pytest.FixtureRequest) -> KafkaPublisher:
    broker: EmbeddedBroker = request.getfixturevalue("broker")
    return on(broker.address)


def on_real_kafka(request: pytest.FixtureRequest) -> KafkaPublisher:
    servers: str = request.getfixturevalue("kafka_servers")
    return on(servers, create_topic(servers, partitions=3))


@pytest.fixture(
    params=[
        pytest.param(lambda _: FakePublisher(), id="fake"),
        pytest.param(lambda _: scripted(), id="scripted"),
        pytest.param(on_embedded_broker, id="embedded"),
        pytest.param(on_real_kafka, id="kafka", marks=pytest.mark.docker),
    ]
)
def publisher(request: pytest.FixtureRequest) -> Iterator[Publisher]:
    factory: Callable[[pytest.FixtureRequest], Publisher] = request.param
    publisher = factory(request)
    yield publisher
    publisher.purge()
    publisher.close()


def test_a_request_is_complete_when_every_record_has_its_report(publisher: Publisher) -> None:
    request = complete(publisher, publisher.send(records(100)))

    assert (request.size, request.delivered, request.failures) == (100, 100, [])
    assert request.delivered_bytes == sum(each.size for each in records(100))


def test_concurrent_requests_are_each_completed_once(publisher: Publisher) -> None:
    requests = [publisher.send([record(f"{name}{number}") for number in range(3)]) for name in "abcde"]
    completed: list[ProduceRequest] = []

    for _ in range(POLLS):
        completed += publisher.poll(0.1) if len(completed) < 5 else []

    assert sorted(map(id, completed)) == sorted(map(id, requests))


def test_an_empty_request_is_completed(publisher: Publisher) -> None:
    request = complete(publisher, publisher.send([]))

    assert (request.size, request.delivered, request.failures) == (0, 0, [])


def test_purged_records_are_reported(publisher: Publisher) -> None:
    request = publisher.send(records(3))

    publisher.purge()
    complete(publisher, request)

    assert request.delivered + len(request.failures) == 3


def test_after_a_delivery_the_publisher_is_available(publisher: Publisher) -> None:
    complete(publisher, publisher.send(records(1)))

    assert publisher.unavailable_reason is None
