"""The behavior that Delivery relies on, of Kafka and of its fakes."""

from collections.abc import Callable, Iterator

import pytest

from local.broker import EmbeddedBroker
from src.delivery.delivery import Publisher
from src.kafka.produce_request import ProduceRequest
from src.kafka.publisher import KafkaPublisher
from src.settings import KafkaSettings
from src.utils.secret import ClientSettings
from tests.fakes import FakeClock, FakePublisher, ScriptedPublisher, record, records
from tests.topics import POLLS, TOPIC, create_topic


def complete(publisher: Publisher, request: ProduceRequest) -> ProduceRequest:
    for _ in range(POLLS):
        if request in publisher.poll(0.1):
            return request
    raise AssertionError("the request is not completed")


CAPACITY = 100  # records that a publisher accepts at a time


def fake(_: pytest.FixtureRequest) -> Publisher:
    return FakePublisher(capacity=CAPACITY)


def scripted(_: pytest.FixtureRequest) -> Publisher:
    publisher = ScriptedPublisher(FakeClock())
    publisher.delivers = True
    publisher.capacity = CAPACITY
    return publisher


def embedded(request: pytest.FixtureRequest) -> Publisher:
    broker: EmbeddedBroker = request.getfixturevalue("broker")
    return kafka(broker.address, TOPIC)


def kafka3(request: pytest.FixtureRequest) -> Publisher:
    return real(request.getfixturevalue("kafka3_servers"))


def kafka4(request: pytest.FixtureRequest) -> Publisher:
    return real(request.getfixturevalue("kafka4_servers"))


def real(servers: str) -> Publisher:
    return kafka(servers, create_topic(servers, partitions=3))


def kafka(servers: str, topic: str) -> Publisher:
    client = ClientSettings({"queue.buffering.max.messages": CAPACITY})
    settings = KafkaSettings(bootstrap_servers=servers, topic=topic, client=client)
    return KafkaPublisher(settings, delivery_timeout_ms=10_000)


ON_SERVERS = [pytest.param(create, marks=pytest.mark.docker) for create in (kafka3, kafka4)]


@pytest.fixture(params=[fake, scripted, embedded, *ON_SERVERS])
def publisher(request: pytest.FixtureRequest) -> Iterator[Publisher]:
    create: Callable[[pytest.FixtureRequest], Publisher] = request.param
    publisher = create(request)
    yield publisher
    publisher.purge()
    publisher.close()


def test_a_request_is_complete_when_every_record_has_its_report(publisher: Publisher) -> None:
    request = complete(publisher, publisher.send(records(CAPACITY)))

    assert (request.size, request.delivered, request.failures) == (CAPACITY, CAPACITY, [])


def test_concurrent_requests_are_each_completed_once(publisher: Publisher) -> None:
    requests = [publisher.send([record(f"{name}{number}") for number in range(3)]) for name in "abcde"]
    completed: list[ProduceRequest] = []

    for _ in range(POLLS):
        completed += publisher.poll(0.1) if len(completed) < 5 else []

    assert sorted(map(id, completed)) == sorted(map(id, requests))


def test_an_empty_request_is_completed(publisher: Publisher) -> None:
    request = complete(publisher, publisher.send([]))

    assert (request.size, request.delivered, request.failures) == (0, 0, [])


def test_a_full_publisher_accepts_the_first_records_and_the_others_once_it_has_capacity(publisher: Publisher) -> None:
    first = publisher.send(records(CAPACITY + 2))
    rejected = publisher.send(records(1))
    complete(publisher, first)
    second = complete(publisher, publisher.send(records(CAPACITY + 2)[first.size :]))

    assert (first.size, first.delivered, rejected.size) == (CAPACITY, CAPACITY, 0)
    assert (second.size, second.delivered) == (2, 2)


def test_without_open_requests_a_poll_returns_nothing(publisher: Publisher) -> None:
    assert list(publisher.poll(0.1)) == []


def test_purged_records_are_reported(publisher: Publisher) -> None:
    request = publisher.send(records(3))

    publisher.purge()
    complete(publisher, request)

    assert request.delivered + len(request.failures) == 3


def test_after_a_delivery_the_publisher_is_available(publisher: Publisher) -> None:
    complete(publisher, publisher.send(records(1)))

    assert publisher.unavailable_reason is None
